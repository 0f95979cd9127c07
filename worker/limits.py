"""How much of a prompt an engine takes at once, unless a node's settings say otherwise. Torch-free."""

PREFILL_CHUNK_TOKENS = 256
MIXED_PREFILL_TOKENS = 256
