"""What a run needs before it starts: memory, work, disk, and the environment."""
