"""Load, replays and comparisons: a stranger that imports nothing of the project and knows only what clients know."""
