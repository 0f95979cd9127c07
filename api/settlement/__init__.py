"""From durable receipts to one transaction: batches, the job that settles them, and their verification."""
