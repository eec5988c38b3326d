"""Faults under load: what clients were told, what the tables say, and whether the two can both be true."""
