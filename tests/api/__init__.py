"""The API against real servers."""
