"""Preference data: schemas, readers, the latent cache, batches, prompt sets."""
