"""Events as they happen: server-sent, over WebSockets, by topic."""
