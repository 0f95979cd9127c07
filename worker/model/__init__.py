"""The model side of a stage: what an architecture is made of, and the slice of it that runs here."""
