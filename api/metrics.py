"""What the gateway counts and times, for Prometheus. One set per app, so that several apps live in one process."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

LATENCY_BUCKETS_S = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """Every name carries its unit."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.http_responses = Counter(
            "declai_http_responses_total", "HTTP responses", ["method", "route", "status"], registry=registry
        )
        self.requests = Counter(
            "declai_requests_total", "Admitted requests that ended, by how", ["outcome"], registry=registry
        )
        self.attempts_failed = Counter(
            "declai_attempts_failed_total", "Attempts at a request that failed, by why", ["code"], registry=registry
        )
        self.tokens = Counter("declai_tokens_total", "Tokens of finished requests", ["kind"], registry=registry)
        self.cost = Counter("declai_cost_credits_total", "Cost of finished requests in credits", registry=registry)
        self.running = Gauge("declai_requests_running", "Requests being served", registry=registry)
        self.nodes = Gauge("declai_nodes_live", "Nodes that beat lately", registry=registry)
        self.frames_dropped = Gauge("declai_frames_dropped", "Frames of no job of ours", registry=registry)
        self.frames_malformed = Gauge("declai_frames_malformed", "Messages that were no frames", registry=registry)
        self.relay_bytes = Gauge("declai_relay_bytes", "Bytes passed on to relayed nodes", registry=registry)
        self.relay_frames = Gauge("declai_relay_frames", "Frames passed on to relayed nodes", registry=registry)
        self.relay_refused = Gauge("declai_relay_refused", "Frames that nobody may have relayed", registry=registry)
        self.relay_overflows = Gauge("declai_relay_overflows", "Jobs ended, too much waited", registry=registry)
        self.relay_waiting_bytes = Gauge(
            "declai_relay_waiting_bytes", "Bytes that wait for relayed nodes", registry=registry
        )
        self.chain_block = Gauge("declai_chain_block", "Newest block that was read", registry=registry)
        self.ready_seconds = Histogram(
            "declai_ready_seconds",
            "From admission until all stages run",
            buckets=LATENCY_BUCKETS_S,
            registry=registry,
        )
        self.first_token_seconds = Histogram(
            "declai_first_token_seconds",
            "From admission to the first token",
            buckets=LATENCY_BUCKETS_S,
            registry=registry,
        )
        self.token_interval_seconds = Histogram(
            "declai_token_interval_seconds", "Between two tokens", buckets=LATENCY_BUCKETS_S, registry=registry
        )
