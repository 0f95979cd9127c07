"""What comes from the broker: Celery's app and transport, envelopes, and whom a node believes."""
