"""The rules, in memory."""
