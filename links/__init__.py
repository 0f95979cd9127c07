"""Sockets between nodes and to the gateway: CURVE, relay, seals, probes, flow control. Knows frames, no job."""
