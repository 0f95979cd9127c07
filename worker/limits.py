"""The bounds of a node's work, unless its settings say otherwise. Torch-free."""

# How much of a prompt an engine takes at once.
PREFILL_CHUNK_TOKENS = 256
MIXED_PREFILL_TOKENS = 256
# In memory, of what was handed on.
KEPT_ROWS_BYTES = 2**29
# After these a job ends: without any frame, and with a neighbour's link down.
IDLE_TIMEOUT_S = 60.0
PEER_GRACE_S = 3.0
