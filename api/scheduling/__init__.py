"""Which nodes are alive, and which of them serve a request."""
