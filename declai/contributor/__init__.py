"""What a contributor does on the chain: stake, offer, and take what is owed."""
