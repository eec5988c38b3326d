"""The sale of Telegram channels with their gifts."""
