"""The deploy files, read and run."""
