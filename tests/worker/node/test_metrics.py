"""What Prometheus reads of a node."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from declai.links import probes, traffic
from declai.links.keys import LinkKeyPair
from declai.links.node_links import NodeLinks
from declai.worker.engine import AtCapacity, Engine, EngineError, EngineLimits, InvalidSequence, SequenceSpec
from declai.worker.engine.stats import EngineStats, SequenceClock
from declai.worker.engine.turns.step import Chunk
from declai.worker.job.engine_thread import EngineThread
from declai.worker.job.served_layers import ServedLayers
from declai.worker.job.stage_engine import StageIdentity
from declai.worker.node.metrics import NodeMetrics, serve_metrics
from tests.support.devnet import ROOT
from tests.support.parties import Party, make_jobs
from tests.support.pipelines import LIMITS, spec
from tests.support.pipelines import Pipeline as Chain
from tests.support.toy_network import PROMPT, Network
from tests.support.zoo import NUM_LAYERS, Zoo

Samples = dict[tuple[str, ...], float]


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    return Zoo(tmp_path_factory.mktemp("zoo"))


@pytest.fixture
def engine_thread(tmp_path: Path) -> Iterator[EngineThread]:
    links = NodeLinks(LinkKeyPair.create(tmp_path / "link.key"), "tcp://127.0.0.1:*", lambda key: True)
    yield EngineThread(links, ServedLayers(bytes(32), "cid", 0, 1, 8))
    links.close()


def scrape(engine: Engine, engine_thread: EngineThread) -> Samples:
    """Values by name and labels but for the layers; of histograms the bucket of all."""
    metrics = NodeMetrics(lambda: {(0, 1): engine}, engine_thread)
    with serve_metrics(metrics, 0) as port, urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    found = {}
    for sample in (sample for family in families for sample in family.samples):
        labels = dict(sample.labels)
        assert labels.pop("layers", "0-0") == "0-0"
        if labels.pop("le", "+Inf") == "+Inf":
            found[sample.name, *labels.values()] = sample.value
    return found


def test_an_engines_work_is_counted(zoo: Zoo, engine_thread: EngineThread) -> None:
    chain = Chain(zoo, "llama")
    prompts = [list(range(3, 23)), list(range(5, 10))]
    for number, prompt in enumerate(prompts):
        chain.start(bytes([number]), prompt, spec(prompt, 6))
    chain.run()
    chain.start(b"open", [5, 6, 7], spec([5, 6, 7], 6))
    found = scrape(chain.engines[0], engine_thread)
    assert found["vllm:prompt_tokens_total",] == 25
    assert found["vllm:generation_tokens_total",] == 2 * 5  # the last token is fed to no one
    assert found["vllm:num_requests_running",] == 1
    assert 0 < found["vllm:kv_cache_usage_perc",] < 1
    assert found["vllm:iteration_tokens_total_sum",] == 35
    assert found["declai_step_sequences_bucket",] == found["declai_step_seconds_count",]


def test_waits_cache_and_the_parts_of_steps_are_counted(zoo: Zoo, engine_thread: EngineThread) -> None:
    chain = Chain(zoo, "llama")
    for number in range(2):
        chain.start(bytes([number]), [5, 6, 7], spec([5, 6, 7], 6))
    chain.run()
    chain.start(b"open", [5, 6, 7], spec([5, 6, 7], 20))
    first, last = scrape(chain.engines[0], engine_thread), scrape(chain.engines[-1], engine_thread)
    for found in (first, last):
        assert found["vllm:request_queue_time_seconds_count",] == 2
        assert found["vllm:time_to_first_token_seconds_count",] == 2
        assert found["vllm:inter_token_latency_seconds_count",] == 2 * 5
        assert found["declai_input_wait_seconds_count",] == found["declai_step_sequences_sum",]
        assert 0 < found["vllm:time_to_first_token_seconds_sum",] < 60
        parts = [found["declai_step_part_seconds_total", part] for part in ("forward", "sample", "rest")]
        assert sum(parts) == pytest.approx(found["declai_step_seconds_sum",])
        cache = chain.engines[0 if found is first else -1]._cache
        num_lanes = sum(group.num_lanes for group in cache._groups)
        assert found["declai_cache_blocks", "used"] == 2 * num_lanes  # of 16 tokens, for the 22 that are ever computed
        blocks = found["declai_cache_blocks", "used"] + found["declai_cache_blocks", "free"]
        assert found["declai_cache_limit_bytes",] == LIMITS.max_cache_bytes
        assert 0 < found["declai_cache_bytes",] < LIMITS.max_cache_bytes
        assert blocks == cache.num_blocks
    assert first["vllm:num_requests_waiting",] == 1
    assert last["vllm:num_requests_waiting",] == 0  # its input has not come: it waits elsewhere
    assert first["declai_step_part_seconds_total", "sample"] == 0
    assert last["declai_step_part_seconds_total", "sample"] > 0


def test_sequences_that_are_refused_or_fail_are_counted_by_why(zoo: Zoo, engine_thread: EngineThread) -> None:
    limits = EngineLimits(max_sequences=2, max_context_tokens=600, max_cache_bytes=60 * 256)
    engine = Chain(zoo, "llama", (0, 1, NUM_LAYERS), limits).engines[0]
    assert scrape(engine, engine_thread)["declai_sequences_refused_total", "cache"] == 0
    engine.add(b"1", SequenceSpec(3, 8))
    with pytest.raises(AtCapacity):
        engine.add(b"2", SequenceSpec(300, 8))
    with pytest.raises(InvalidSequence):
        engine.add(b"2", SequenceSpec(700, 8))
    engine.add(b"2", SequenceSpec(3, 8))
    with pytest.raises(AtCapacity):
        engine.add(b"3", SequenceSpec(3, 8))
    for sequence_id, position, token_id in ((b"1", 7, 5), (b"2", 0, 97)):
        with pytest.raises(EngineError):
            engine.feed(sequence_id, position, [token_id])
    found = scrape(engine, engine_thread)
    for why in ("cache", "sequences", "invalid_sequence"):
        assert found["declai_sequences_refused_total", why] == 1
    for why, number in (("position_mismatch", 1), ("invalid_input", 1), ("forward_failed", 0)):
        assert found["declai_sequences_failed_total", why] == number


def test_jobs_that_are_refused_are_counted(engine_thread: EngineThread, zoo: Zoo) -> None:
    (job,) = make_jobs(Party(), [Party()])
    engine_thread.start()
    engine_thread.refuse(job, "price_mismatch", "too cheap")
    engine_thread.drain()
    busy = engine_thread.submit(job, Chain(zoo, "llama").engines[0], StageIdentity("fp32", "float32", bytes(32)))
    assert busy.result(10).code == "busy"
    assert engine_thread.status().ended == {"price_mismatch": 1, "busy": 1}
    engine_thread.stop()


def test_the_documents_name_every_metric_and_a_config_that_reads_them(zoo: Zoo, engine_thread: EngineThread) -> None:
    text = (ROOT / "docs" / "contributors.md").read_text().partition("## Watching a node")[2].partition("\n## ")[0]
    engine = Chain(zoo, "llama").engines[0]
    families = NodeMetrics(lambda: {(0, 1): engine}, engine_thread).collect()
    exposed = {family.name + ("_total" if family.type == "counter" else "") for family in families}
    assert set(re.findall(r"`((?:vllm:|declai_)[a-z_]+)`", text)) == exposed
    (config,) = re.findall(r"```yaml\n(.*?)```", text, re.S)
    (job,) = yaml.safe_load(config)["scrape_configs"]
    ((target,),) = (one["targets"] for one in job["static_configs"])
    assert f"`metrics_port = {target.rpartition(':')[2]}`" in text
    assert f"http://{target}/metrics" in text  # where Prometheus looks unless told otherwise


def test_time_in_the_queue_is_that_from_input_to_step() -> None:
    """Two chunks of a prompt, one output, and a wait for other stages that is no wait in the queue."""
    stats = EngineStats()
    clock = SequenceClock(stats)
    clock.open(b"a", 4)
    assert clock.num_waiting == 0
    clock.feed(b"a", 4, now=10.0)
    assert clock.num_waiting == 1
    clock.step([Chunk(b"a", 0, 2, 2)], began=11.0, ended=11.5)
    assert clock.num_waiting == 0
    clock.step([Chunk(b"a", 2, 2, 2)], began=12.0, ended=12.5)
    clock.feed(b"a", 5, now=20.0)
    clock.step([Chunk(b"a", 4, 1, 0)], began=20.25, ended=20.5)
    clock.close(b"a")
    clock.step([Chunk(b"a", 5, 1, 0)], began=21.0, ended=22.0)
    assert stats.queue_seconds.sum == 1.0
    assert stats.input_wait_seconds.sum == 1.0 + 0.5 + 0.25
    assert stats.first_output_seconds.sum == 2.5
    assert stats.between_outputs_seconds.sum == 8.0


def test_links_are_counted_measured_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "PING_EVERY_S", 0.05)
    net = Network(tmp_path, 2, delay_s=0.002)
    try:
        jobs = net.jobs(max_tokens=30)
        net.dispatch(jobs)
        net.prompt(jobs[0])
        net.until(lambda: net.finish(jobs[0]))
        first, last = (node.party.address for node in net.nodes)
        net.until(lambda: net.nodes[0].engine_thread.status().links)
        found = {
            (sample.name, sample.labels.get("peer"), sample.labels.get("direction")): sample.value
            for family in NodeMetrics(dict, net.nodes[0].engine_thread).collect()
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
