"""One command from pairs to a model and a report: what the data has decides the signal, the card how it is trained."""
