"""Runs of many stages on the lab world: the demo, and the study of methods."""
