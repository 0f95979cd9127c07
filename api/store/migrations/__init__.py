"""The steps from each version of the gateway's store to the next. A step that was released never changes."""
