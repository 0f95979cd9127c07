"""A node's metrics for Prometheus, on loopback. What vLLM measures, too, has vLLM's names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from worker.engine import Engine
from worker.engine.stats import Distribution
from worker.pipeline import Pipeline

LABELS = ("layers",)


class NodeMetrics(Collector):
    """Read from the engines and the pipeline whenever somebody asks; nothing is counted twice."""

    def __init__(self, engines: Callable[[], dict[tuple[int, int], Engine]], pipeline: Pipeline) -> None:
        """`engines`: those loaded now, by the layers [first, end) that they run."""
        self._engines = engines
        self._pipeline = pipeline

    def collect(self) -> Iterable[Metric]:
        yield from self._engine_metrics()
        yield from self._pipeline_metrics()
        yield from self._link_metrics()

    def _engine_metrics(self) -> Iterable[Metric]:
        running = GaugeMetricFamily("vllm:num_requests_running", "Sessions that are open.", labels=LABELS)
        usage = GaugeMetricFamily("vllm:kv_cache_usage_perc", "Cache that is reserved, from 0 to 1.", labels=LABELS)
        prompt = CounterMetricFamily("vllm:prompt_tokens", "Prompt tokens computed.", labels=LABELS)
        output = CounterMetricFamily("vllm:generation_tokens", "Output tokens computed.", labels=LABELS)
        queries = CounterMetricFamily("vllm:prefix_cache_queries", "Prompt tokens that could be reused.", labels=LABELS)
        hits = CounterMetricFamily("vllm:prefix_cache_hits", "Prompt tokens that were reused.", labels=LABELS)
        tokens = HistogramMetricFamily("vllm:iteration_tokens_total", "Tokens in one forward.", labels=LABELS)
        sessions = HistogramMetricFamily("declai_step_sessions", "Sessions in one forward.", labels=LABELS)
        seconds = HistogramMetricFamily("declai_step_seconds", "Time of one forward.", labels=LABELS)
        for (first, end), engine in self._engines().items():
            labels, stats = (f"{first}-{end - 1}",), engine.stats
            running.add_metric(labels, engine.num_sessions)
            usage.add_metric(labels, engine.used_cache_bytes / engine.limits.max_cache_bytes)
            prompt.add_metric(labels, stats.num_prompt_tokens)
            output.add_metric(labels, stats.num_output_tokens)
            queries.add_metric(labels, stats.num_reusable_tokens)
            hits.add_metric(labels, stats.num_reused_tokens)
            _add(tokens, labels, stats.step_tokens)
            _add(sessions, labels, stats.step_sessions)
            _add(seconds, labels, stats.step_seconds)
        return running, usage, prompt, output, queries, hits, tokens, sessions, seconds

    def _pipeline_metrics(self) -> Iterable[Metric]:
        seen = self._pipeline.status()
        jobs = CounterMetricFamily("declai_jobs", "Jobs that have ended.", labels=("how",))
        for how, number in seen.ended.items():
            jobs.add_metric((how,), number)
        dropped = CounterMetricFamily("declai_frames_dropped", "Frames that were not for us.", labels=("why",))
        for why, number in seen.dropped.items():
            dropped.add_metric((why,), number)
        waiting = GaugeMetricFamily("declai_receipts_waiting", "Receipts that no gateway has accepted yet.")
        waiting.add_metric((), seen.num_receipts_waiting)
        full = CounterMetricFamily("declai_link_full", "Frames that a full link did not take at once.")
        full.add_metric((), seen.num_link_full)
        return jobs, dropped, waiting, full

    def _link_metrics(self) -> Iterable[Metric]:
        seen = self._pipeline.status()
        frames = CounterMetricFamily("declai_link_frames", "Frames over a link.", labels=("peer", "direction"))
        size = CounterMetricFamily("declai_link_bytes", "Bytes of frames over a link.", labels=("peer", "direction"))
        for link in seen.traffic:
            frames.add_metric((link.peer, "sent"), link.num_frames_sent)
            frames.add_metric((link.peer, "received"), link.num_frames_received)
            size.add_metric((link.peer, "sent"), link.num_bytes_sent)
            size.add_metric((link.peer, "received"), link.num_bytes_received)
        rtt = GaugeMetricFamily("declai_link_rtt_seconds", "Round trip to a neighbour.", labels=("peer",))
        bandwidth = GaugeMetricFamily("declai_link_bytes_per_second", "Bandwidth toward a neighbour.", labels=("peer",))
        for report in seen.links:
            rtt.add_metric((report.address,), report.rtt_s)
            if report.bytes_per_s is not None:
                bandwidth.add_metric((report.address,), report.bytes_per_s)
        return frames, size, rtt, bandwidth


def _add(family: HistogramMetricFamily, labels: tuple[str], values: Distribution) -> None:
    family.add_metric(labels, values.buckets(), values.sum)


@contextmanager
def serve_metrics(metrics: NodeMetrics, port: int) -> Iterator[int]:
    """GET /metrics on 127.0.0.1 while the block runs; gives the port, which is chosen where it is 0."""
    registry = CollectorRegistry()
    registry.register(metrics)
    server, thread = start_http_server(port, "127.0.0.1", registry)
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
