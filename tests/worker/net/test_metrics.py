"""What Prometheus reads of a node."""

from __future__ import annotations

from pathlib import Path
from urllib.request import urlopen

from prometheus_client.parser import text_string_to_metric_families

from tests.worker.engine.pipeline import Pipeline as Chain
from tests.worker.engine.pipeline import spec
from tests.worker.model.zoo import Zoo
from worker.links import LinkKeyPair, Links
from worker.metrics import NodeMetrics, serve_metrics
from worker.pipeline import Pipeline, Served


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
