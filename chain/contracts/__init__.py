"""Typed bindings: one module per contract; reads return frozen dataclasses, writes return a `Call` to be sent."""
