"""Presales: gifts sold before Telegram lets them move."""
