"""The demo's own model: its training text, its training, and the trained model in `declai-demo/`."""
