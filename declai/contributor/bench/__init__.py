"""How fast this machine runs a stage, against what its memory and its arithmetic allow. Imports torch."""
