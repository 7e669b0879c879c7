"""The HTTP server: its routes, their handlers, and who may use them."""
