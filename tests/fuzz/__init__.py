"""Inputs that nobody would write on purpose, and what every command does with them (scripts/fuzz)."""
