"""Between nodes: frames, the sockets and keys that carry them, and how the links fare. Torch-free."""
