"""A node's metrics for Prometheus, on loopback. What vLLM measures, too, has vLLM's names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from declai.worker.engine import Engine
from declai.worker.engine.stats import Distribution
from declai.worker.job.engine_thread import EngineThread

LABELS = ("layers",)
WAITS = (
    ("vllm:request_queue_time_seconds", "From a sequence's first input to its first step.", "queue_seconds"),
    (
        "vllm:time_to_first_token_seconds",
        "From a sequence's first input to what follows its prompt here: a token, or the prompt's last hidden states.",
        "first_output_seconds",
    ),
    (
        "vllm:inter_token_latency_seconds",
        "Between two outputs of a sequence after that, the other stages' time included.",
        "between_outputs_seconds",
    ),
    ("declai_input_wait_seconds", "From input that is ready to its step.", "input_wait_seconds"),
)


class NodeMetrics(Collector):
    """Read from the engines and the engine thread whenever somebody asks; nothing is counted twice."""

    def __init__(self, engines: Callable[[], dict[tuple[int, int], Engine]], engine_thread: EngineThread) -> None:
        """`engines`: those loaded now, by the layers [first, end) that they run."""
        self._engines = engines
        self._engine_thread = engine_thread

    def collect(self) -> Iterable[Metric]:
        yield from self._engine_metrics()
        yield from self._wait_metrics()
        yield from self._share_metrics()
        yield from self._engine_thread_metrics()
        yield from self._link_metrics()

    def _engine_metrics(self) -> Iterable[Metric]:
        running = GaugeMetricFamily("vllm:num_requests_running", "Sequences that are open.", labels=LABELS)
        usage = GaugeMetricFamily("vllm:kv_cache_usage_perc", "Cache that is reserved, from 0 to 1.", labels=LABELS)
        prompt = CounterMetricFamily("vllm:prompt_tokens", "Prompt tokens computed.", labels=LABELS)
        output = CounterMetricFamily("vllm:generation_tokens", "Output tokens computed.", labels=LABELS)
        queries = CounterMetricFamily("vllm:prefix_cache_queries", "Prompt tokens that could be reused.", labels=LABELS)
        hits = CounterMetricFamily("vllm:prefix_cache_hits", "Prompt tokens that were reused.", labels=LABELS)
        tokens = HistogramMetricFamily("vllm:iteration_tokens_total", "Tokens in one forward.", labels=LABELS)
        sequences = HistogramMetricFamily("declai_step_sequences", "Sequences in one forward.", labels=LABELS)
        seconds = HistogramMetricFamily("declai_step_seconds", "Time of one forward.", labels=LABELS)
        for layers, engine in self._engines().items():
            labels, stats = _named(layers), engine.stats
            running.add_metric(labels, engine.num_sequences)
            usage.add_metric(labels, engine.used_cache_bytes / engine.limits.max_cache_bytes)
            prompt.add_metric(labels, stats.num_prompt_tokens)
            output.add_metric(labels, stats.num_output_tokens)
            queries.add_metric(labels, stats.num_reusable_tokens)
            hits.add_metric(labels, stats.num_reused_tokens)
            _add(tokens, labels, stats.step_tokens)
            _add(sequences, labels, stats.step_sequences)
            _add(seconds, labels, stats.step_seconds)
        return running, usage, prompt, output, queries, hits, tokens, sequences, seconds

    def _wait_metrics(self) -> Iterable[Metric]:
        """How long sequences wait at this stage."""
        engines = list(self._engines().items())
        waiting = GaugeMetricFamily(
            "vllm:num_requests_waiting", "Sequences that wait for their first step.", labels=LABELS
        )
        for layers, engine in engines:
            waiting.add_metric(_named(layers), engine.num_waiting)
        yield waiting
        for name, text, attribute in WAITS:
            family = HistogramMetricFamily(name, text, labels=LABELS)
            for layers, engine in engines:
                _add(family, _named(layers), getattr(engine.stats, attribute))
            yield family

    def _share_metrics(self) -> Iterable[Metric]:
        """What steps and cache are used for, and who was turned away."""
        parts = CounterMetricFamily("declai_step_part_seconds", "Time of all steps, by part.", labels=(*LABELS, "part"))
        used = GaugeMetricFamily("declai_cache_bytes", "Bytes of cache that sequences have reserved.", labels=LABELS)
        limit = GaugeMetricFamily("declai_cache_limit_bytes", "Bytes of cache that they may reserve.", labels=LABELS)
        blocks = GaugeMetricFamily("declai_cache_blocks", "Blocks of 16 tokens.", labels=(*LABELS, "state"))
        refused = CounterMetricFamily("declai_sequences_refused", "Sequences not opened.", labels=(*LABELS, "why"))
        failed = CounterMetricFamily("declai_sequences_failed", "Sequences that failed here.", labels=(*LABELS, "why"))
        for layers, engine in self._engines().items():
            labels, stats = _named(layers), engine.stats
            used.add_metric(labels, engine.used_cache_bytes)
            limit.add_metric(labels, engine.limits.max_cache_bytes)
            shares = (
                (parts, stats.part_seconds),
                (blocks, dict(zip(("used", "free"), engine.num_cache_blocks, strict=True))),
                (refused, stats.refused),
                (failed, stats.failed),
            )
            for family, values in shares:
                for name, value in values.items():
                    family.add_metric((*labels, name), value)
        return parts, used, limit, blocks, refused, failed

    def _engine_thread_metrics(self) -> Iterable[Metric]:
        seen = self._engine_thread.status()
        jobs = CounterMetricFamily("declai_jobs", "Jobs that have ended, or were refused.", labels=("how",))
        for how, number in seen.ended.items():
            jobs.add_metric((how,), number)
        dropped = CounterMetricFamily("declai_frames_dropped", "Frames that were not for us.", labels=("why",))
        for why, number in seen.dropped.items():
            dropped.add_metric((why,), number)
        waiting = GaugeMetricFamily("declai_receipts_waiting", "Receipts that no gateway has accepted yet.")
        waiting.add_metric((), seen.num_receipts_waiting)
        full = CounterMetricFamily("declai_link_full", "How often a link took no more.")
        full.add_metric((), seen.num_link_full)
        return jobs, dropped, waiting, full

    def _link_metrics(self) -> Iterable[Metric]:
        seen = self._engine_thread.status()
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


def _named(layers: tuple[int, int]) -> tuple[str]:
    return (f"{layers[0]}-{layers[1] - 1}",)


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
