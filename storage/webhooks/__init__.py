"""Endpoints of webhooks, and the HTTP client that is safe to send to them with."""
