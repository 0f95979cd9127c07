"""The gateway: HTTP surface, wallet auth, credits and sessions, scheduling, serving, settlement."""
