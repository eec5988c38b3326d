"""Redis: where it is, the queues, notices and locks in it."""
