"""Objectives: pure, per-pair, unreduced losses on what the networks said. `table` lists them."""
