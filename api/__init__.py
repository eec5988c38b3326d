"""The process that accepts commands over HTTP and shows what came of them."""
