"""Races and faults, each brought about for real, twenty times in a row, and the one outcome that is permitted."""

ROUNDS = 20
