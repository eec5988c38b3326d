"""Money in and out, and the floors of other markets."""
