"""The audit, on a marketplace with every document there is, and on copies of it that were damaged."""
