"""From models to numbers that can be believed: generate, score, compare, report. Files at every boundary."""
