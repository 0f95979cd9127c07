"""What must survive a crash: requests, assignments, receipts, batches, API keys."""
