"""Items in custody: direct sales, gifts, and their return to Telegram."""
