"""Paths from data to noise, and the trajectories that place a pair on them."""
