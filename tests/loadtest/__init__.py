"""The load test's own arithmetic."""
