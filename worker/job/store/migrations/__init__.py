"""The steps from each version of the node's store to the next. A step that was released never changes."""
