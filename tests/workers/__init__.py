"""Workers against real servers."""
