"""`declai node bench` on small models: what it measures, and what it says of it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import pytest
import torch

from declai.cli import main
from declai.contributor.bench.machine import Limits
from declai.contributor.bench.measure import GREEDY, NUMS_SEQUENCES, Timing
from declai.contributor.bench.report import run
from declai.contributor.bench.roofline import Shares, StepWork, bottleneck, shares
from declai.contributor.bench.subject import from_folder, made
from declai.devnet.layout import DevnetLayout
from declai.worker.engine import AtCapacity, Engine, EngineLimits, SequenceSpec
from tests.support.desks import Done
from tests.support.devnet import ROOT, Running
from tests.support.zoo import NUM_LAYERS, Zoo

DEMO = ROOT / "models" / "declai-demo"
QUICK = ("--quick", "--threads", "1")


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    return Zoo(tmp_path_factory.mktemp("zoo"))


@pytest.fixture(autouse=True)
def own_threads() -> Iterator[None]:
    """A run sets torch's threads for its process, which here is the other tests', too."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def here(*arguments: str, err: TextIO | None = None) -> Done:
    """A command in this process, whose environment stays as it was. `err` stands for a terminal."""
    out, silent, before = io.StringIO(), io.StringIO(), dict(os.environ)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err or silent):
            main(arguments)
        code = 0
    except SystemExit as ended:
        code = int(ended.code or 0)
    finally:
        os.environ.clear()
        os.environ.update(before)
    return Done(code, out.getvalue(), silent.getvalue())


def is_whole(found: dict[str, Any]) -> None:
    assert set(found) == {"model", "machine", "decode", "prefill", "cache", "bottleneck"}
    assert set(found["model"]) == {"name", "layers", "profile", "num_weights", "weight_bytes", "packs_sequences"}
    assert set(found["machine"]) == {"device", "threads", "load_before", "read_bytes_per_s", "flops_per_s"}
    measured = {"tokens_per_s", "ms_per_step", "share_of_memory", "share_of_arithmetic"}
    for name, column in (("decode", "sequences"), ("prefill", "chunk_tokens")):
        for row in found[name]:
            assert set(row) == measured | {column}
            assert all(row[key] >= 0 for key in measured)
            assert row["tokens_per_s"] * row["ms_per_step"] / 1000 == pytest.approx(row[column], rel=0.02)
    assert found["bottleneck"].count(".") == 1


def test_layers_of_a_folder() -> None:
    done = here("node", "bench", str(DEMO), "--layers", "1-3", "--profile", "bf16", *QUICK, "--json")
    assert (done.code, done.err) == (0, "")  # no progress bar in a pipe
    found = json.loads(done.out)
    is_whole(found)
    assert (found["model"]["layers"], found["model"]["profile"]) == ([1, 4], "bf16")
    assert [row["sequences"] for row in found["decode"]] == list(NUMS_SEQUENCES)
    assert [row["chunk_tokens"] for row in found["prefill"]] == [32, 64, 128]
    # Grouped queries: a quarter less than a square each for keys and values; three matrices of 640 columns.
    assert found["model"]["num_weights"] == 3 * (2 * 256 * 256 + 2 * 256 * 128 + 3 * 256 * 640)
    assert found["cache"]["bytes_per_token"] == 3 * 2 * 4 * 32 * 2


def test_what_a_node_serves_without_chain_and_gateway(devnet: Running) -> None:
    config = DevnetLayout(devnet.cli.home / "devnet").node_config(1)
    found = devnet.cli.json("node", "bench", "--config", str(config), *QUICK)
    is_whole(found)
    node = devnet.network.nodes[1]
    assert found["model"]["layers"] == [node.layers[0], node.layers[1]]


def test_a_terminal_gets_a_progress_bar() -> None:
    ours, theirs = pty.openpty()
    shown: list[bytes] = []
    reader = threading.Thread(target=lambda: shown.extend(iter(lambda: _read(ours), b"")))
    reader.start()
    with os.fdopen(theirs, "w") as terminal:
        done = here("node", "bench", str(DEMO), *QUICK, err=terminal)
    reader.join(10)
    os.close(ours)
    assert done.code == 0
    assert b"loading" in b"".join(shown)
    assert "loading" not in done.out
    for said in ("decode\nsequences  tokens/s", "prefill\nchunk tokens", "limited by", "4,000 tokens fit in 4.0 GiB"):
        assert said in done.out


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 4096)
    except OSError:  # how a terminal ends
        return b""


def test_what_cannot_be_measured_is_said(tmp_path: Path) -> None:
    config = tmp_path / "node.toml"
    config.write_text(f'model = "m"\ngateway_url = "http://127.0.0.1:9"\ndata_dir = "{tmp_path / "nothing"}"\n')
    for arguments, code, said in (
        (["--config", str(config)], 1, "start it once, or name a model's folder"),
        (["--layers", "0-2"], 2, "--layers needs a model"),
        ([str(tmp_path)], 1, "config.json"),
    ):
        done = here("node", "bench", *arguments)
        assert (done.code, said in done.err) == (code, True), done
    assert "declai node bench --config node.toml" in here("node", "bench", "--help").out


def test_a_made_model_is_whole_and_said_so(tmp_path: Path) -> None:
    ticks: list[int] = []
    subject = made(tmp_path, "fp32", "cpu", quick=True)
    found = run(
        subject,
        2**30,
        threads=1,
        quick=True,
        started=lambda number: ticks.append(-number),
        tick=lambda: ticks.append(1),
    )
    is_whole(found)
    assert sum(ticks) == 0  # as many steps as the bar was told
    assert found["model"]["name"].startswith("random Llama (2 layers, hidden 512")
    assert found["machine"]["threads"] == 1


@pytest.mark.parametrize("name", ["llama-tied", "falcon-alibi"])
def test_kinds_of_models(zoo: Zoo, name: str) -> None:
    """One that shares the head with the embedding, and one whose sequences run one after the other."""
    subject = from_folder(zoo.folder(name), (NUM_LAYERS - 1, NUM_LAYERS), "fp32", "cpu")
    found = run(subject, 2**24, threads=1, quick=True, started=lambda number: None, tick=lambda: None)
    is_whole(found)
    assert found["model"]["packs_sequences"] == (name == "llama-tied")
    assert subject.num_weights()[1] == zoo.architecture(name).vocab_size * 32


def test_as_many_sequences_fit_as_it_says(zoo: Zoo) -> None:
    subject = from_folder(zoo.folder("llama"), None, "fp32", "cpu")
    max_cache_bytes = 5_000_000
    found = run(subject, max_cache_bytes, threads=1, quick=True, started=lambda number: None, tick=lambda: None)
    assert found["cache"]["sequences_that_fit"] == {"1000": 7, "4000": 1}
    engine = Engine(subject.load(), EngineLimits(100, 640, max_cache_bytes))
    spec = SequenceSpec(500, 1, options=GREEDY)
    number = max_cache_bytes // engine.sequence_bytes(500, 500)
    for index in range(number):
        engine.add(bytes([index]), spec)
    with pytest.raises(AtCapacity):
        engine.add(b"more", spec)


def test_shares_are_work_over_time_over_limit() -> None:
    work = StepWork(1000, 100, bytes_per_weight=2.0, bytes_per_head_weight=2, bytes_per_token=10)
    timing = Timing(num_sequences=4, num_tokens=8, num_cached=80, seconds=0.5)
    found = shares(timing, work, Limits(bytes_per_s=6000, flops_per_s=67_200))
    assert found.memory == pytest.approx((2200 + 800) / 0.5 / 6000)
    assert found.arithmetic == pytest.approx(2 * (8000 + 400) / 0.5 / 67_200)


@pytest.mark.parametrize(
    ("alone", "together", "said"),
    [
        (
            Shares(0.87, 0.1),
            Shares(0.3, 0.8),
            "One sequence is limited by memory bandwidth (87% of what this machine can read): fewer bytes would help: "
            "a smaller number format or fewer layers; 32 by arithmetic (80% of its matrix rate): more or faster cores "
            "would help, or a GPU.",
        ),
        (
            Shares(0.2, 0.1),
            Shares(0.1, 0.3),
            "One sequence (20% of what this machine can read) and 32 (30% of its matrix rate) are limited by what is "
            "neither reading nor arithmetic: more layers in a stage would help, for each step has costs that do not "
            "grow with them.",
        ),
    ],
)
def test_one_sentence_says_what_limits_a_stage(alone: Shares, together: Shares, said: str) -> None:
    assert bottleneck(alone, together, 32) == said
