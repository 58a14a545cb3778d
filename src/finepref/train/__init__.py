"""The exact loop: config, draws, step, checkpoints, log."""
