"""The way out to Telegram and to the TON network."""
