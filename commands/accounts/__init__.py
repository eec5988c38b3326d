"""Users' Telegram accounts: signing in, and what is in them."""
