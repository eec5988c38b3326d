"""Whole processes, and their deaths."""
