"""Items for items: trades and the proposals to them."""
