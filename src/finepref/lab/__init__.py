"""The embedded default: a tiny text-to-image world with its own tiny Stable-Diffusion pipeline.

world     prompts, the renderer, and the true quality of an image, which is computed and never learned
model     the pipeline that ships as package data -> a plain diffusers folder
makers    image makers of comparable strength
voters    noisy people who see the true quality
votes     makers and voters -> votes.parquet in the Pick-a-Pic v2 schema
scorers   `lab-reward` (learned from votes) and `lab-true` (the computed quality), behind the scorer protocol
"""
