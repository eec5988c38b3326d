"""The command line that speaks HTTP."""
