"""What Prometheus reads of a node."""

from __future__ import annotations

from pathlib import Path
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.worker.engine.pipeline import Pipeline as Chain
from tests.worker.engine.pipeline import spec
from tests.worker.model.zoo import Zoo
from worker import probes, traffic
from worker.links import LinkKeyPair, Links
from worker.metrics import NodeMetrics, serve_metrics
from worker.pipeline import Pipeline, Served

from .test_pipeline import PROMPT, Network


def test_an_engines_work_is_counted(tmp_path: Path) -> None:
    chain = Chain(Zoo(tmp_path), "llama")
    prompts = [list(range(3, 23)), list(range(5, 10))]
    for number, prompt in enumerate(prompts):
        chain.start(bytes([number]), prompt, spec(prompt, 6))
    chain.run()
    chain.start(b"open", [5, 6, 7], spec([5, 6, 7], 6))
    links = Links(LinkKeyPair.create(tmp_path / "link.key"), "tcp://127.0.0.1:*", lambda key: True)
    pipeline = Pipeline(links, Served(bytes(32), "cid", 0, 1, 8))
    metrics = NodeMetrics(lambda: {(0, 1): chain.engines[0]}, pipeline)
    try:
        with serve_metrics(metrics, 0) as port, urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            families = list(text_string_to_metric_families(answer.read().decode()))
    finally:
        links.close()
    found = {
        sample.name: sample.value
        for family in families
        for sample in family.samples
        if sample.labels.get("layers", "0-0") == "0-0" and sample.labels.get("le", "+Inf") == "+Inf"
    }
    assert found["vllm:prompt_tokens_total"] == 25
    assert found["vllm:generation_tokens_total"] == 2 * 5  # the last token is fed to no one
    assert found["vllm:num_requests_running"] == 1
    assert 0 < found["vllm:kv_cache_usage_perc"] < 1
    assert found["vllm:iteration_tokens_total_sum"] == 35
    assert found["vllm:prefix_cache_queries_total"] == found["vllm:prefix_cache_hits_total"] == 0
    assert found["declai_step_sessions_bucket"] == found["declai_step_seconds_count"]


def test_links_are_counted_measured_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "PING_EVERY_S", 0.05)
    net = Network(tmp_path, 2, delay_s=0.002)
    try:
        jobs = net.jobs(max_tokens=30)
        net.dispatch(jobs)
        net.prompt(jobs[0])
        net.until(lambda: net.finish(jobs[0]))
        first, last = (node.party.address for node in net.nodes)
        net.until(lambda: net.nodes[0].pipeline.status().links)
        found = {
            (sample.name, sample.labels.get("peer"), sample.labels.get("direction")): sample.value
            for family in NodeMetrics(dict, net.nodes[0].pipeline).collect()
            for sample in family.samples
        }
        net.receipts(jobs)
    finally:
        net.close()
    assert found["declai_link_frames_total", last, "sent"] >= 30
    assert found["declai_link_bytes_total", last, "sent"] >= 16 * (len(PROMPT) + 29)
    assert found["declai_link_frames_total", last, "received"] >= 30
    assert found["declai_link_bytes_total", net.gateway.address, "received"] >= 4 * len(PROMPT)
    assert 0 < found["declai_link_rtt_seconds", last, None] < 1
    assert found["declai_link_full_total", None, None] == 0
    assert not any(first in key for key in found)


def test_of_too_many_peers_the_quietest_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traffic, "MAX_PEERS", 2)
    counts = traffic.Traffic()
    for key in (b"a", b"b", b"a", b"c"):
        counts.received(key, 10)
    counts.sent(b"c", "0xc", 5)
    assert counts.snapshot() == (
        traffic.LinkTraffic(b"a".hex(), num_frames_received=2, num_bytes_received=20),
        traffic.LinkTraffic("0xc", 1, 5, 1, 10),
    )
