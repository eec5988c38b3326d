"""Servers from wheels, run as child processes, and the stack on one machine."""
