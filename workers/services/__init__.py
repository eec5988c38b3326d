"""What a worker does beside its lanes, each in a loop of its own."""
