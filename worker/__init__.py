"""The contributor's side: stage models, engine, links, commitments, receipts, tasks, the node process."""
