"""The closed loop: pictures of the current model, votes on them, signals, training from there, and again."""
