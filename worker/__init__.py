"""The contributor's side: stage models and engine, links between stages, commitments, receipts, tasks, the node process."""
