"""Decisions as pure functions of their inputs: placement, quotes, formats. No socket, no clock."""
