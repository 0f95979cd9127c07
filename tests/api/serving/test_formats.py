"""When a prompt's hidden states are rounded for a link, and when they never are."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest

from declai.api.nodes.directory import ActiveWorkers, NodeDirectory
from declai.api.serving.context import ServingContext
from declai.api.serving.stage_jobs import Generation, prompt_formats
from declai.chain.fields import NUMERIC_PROFILES
from declai.planning.formats import prompt_format, stage_format
from declai.planning.placement import LinkSpeed, NodeOffer, Plan, PlannedStage
from declai.protocol import wire
from declai.protocol.options import GenerationOptions
from declai.protocol.wire import LinkReport, PromptFormat

VALUES = 1000 * 4096


@pytest.mark.parametrize(
    ("bytes_per_s", "compute_s", "coarsest", "expected"),
    [
        (None, 0.0, "int8", "profile"),
        (1e9, 0.0, "int8", "profile"),  # 16 ms: nobody notices
        (16e6, 1.0, "int8", "profile"),  # as long as the compute
        (8e6, 1.0, "int8", "float16"),  # twice as long, and half of it is not
        (4e6, 1.0, "int8", "int8"),
        (1e3, 1.0, "int8", "int8"),
        (1e3, 1.0, "float16", "float16"),
        (1e3, 1.0, "profile", "profile"),
    ],
)
def test_the_finest_format_that_does_not_hold_the_prompt_up(
    bytes_per_s: float | None, compute_s: float, coarsest: PromptFormat, expected: PromptFormat
) -> None:
    assert prompt_format(VALUES, compute_s, bytes_per_s, coarsest) == expected


@pytest.mark.parametrize("profile", NUMERIC_PROFILES)
def test_hidden_states_are_float32_in_every_profile_and_so_may_be_float16(profile: str) -> None:
    stage = PlannedStage(NodeOffer("0x1", 0, 2, 1, 1, 1e-6, numeric_profile=NUMERIC_PROFILES[profile]), 0, 2)
    assert stage_format(stage, LinkSpeed(0.01, 1e5), 1000, 4096, "float16") == "float16"


def test_a_stage_whose_link_or_profile_is_not_known_rounds_nothing() -> None:
    offer = NodeOffer("0x1", 0, 2, 1, 1, 1e-6)
    stage, slow = PlannedStage(offer, 0, 2), LinkSpeed(0.01, 1e5)
    assert stage_format(stage, slow, 1000, 4096, "int8") == "int8"
    assert stage_format(stage, None, 1000, 4096, "int8") == "profile"
    foreign = PlannedStage(NodeOffer("0x1", 0, 2, 1, 1, 1e-6, numeric_profile=200), 0, 2)
    assert stage_format(foreign, slow, 1000, 4096, "int8") == "profile"


@dataclass
class FakeDirectory:
    links: dict[tuple[str, str], LinkSpeed] = field(default_factory=dict)

    def link_speeds(self) -> dict[tuple[str, str], LinkSpeed]:
        return self.links


@pytest.mark.parametrize(
    ("coarsest", "exact", "expected"),
    [
        ("profile", False, ["profile"] * 4),
        ("float16", False, ["profile", "float16", "profile", "profile"]),
        ("int8", False, ["profile", "int8", "profile", "profile"]),
        ("int8", True, ["profile"] * 4),
    ],
)
def test_each_link_of_a_job_has_its_format_unless_the_request_wants_it_exact(
    coarsest: PromptFormat, exact: bool, expected: list[PromptFormat]
) -> None:
    stages = tuple(PlannedStage(NodeOffer(str(n), n, n + 1, 1, 1, 1e-6), n, n + 1) for n in range(3))
    directory = FakeDirectory({("0", "1"): LinkSpeed(0.01, 1e5), ("1", "2"): LinkSpeed(0.01, 1e9)})
    context = cast(ServingContext, SimpleNamespace(directory=directory, coarsest_prompt_format=coarsest))
    model: Any = SimpleNamespace(manifest=SimpleNamespace(hidden_size=4096))
    generation = Generation(model, range(1000), 10, GenerationOptions(), exact=exact)
    assert prompt_formats(context, generation, Plan(stages, 0.0, 0.0)) == expected


def test_of_two_reports_of_a_round_trip_the_longer_counts_and_bandwidth_is_the_sender_s() -> None:
    directory = NodeDirectory(None, None)  # type: ignore[arg-type]
    a, b, c = ("0x" + digit * 40 for digit in "123")
    keys = {bytes([n]) * 32: address for n, address in enumerate((a, b, c))}
    directory.registry = ActiveWorkers(workers=dict.fromkeys((a, b, c)), by_key=keys)  # type: ignore[arg-type]
    reports = {a: [LinkReport(b, 0.25, 1024.0), LinkReport(c, 0.5, None)], b: [LinkReport(a, 0.125, 2048.0)], c: []}
    for key, address in keys.items():
        beat = wire.Heartbeat(bytes(32), "x", 0, 1, 0, 1, 0.0, links=wire.pack_reports(reports[address]))
        directory.beat(key, beat)
    assert directory.link_speeds() == {
        (a, b): LinkSpeed(0.25, 1024.0),
        (b, a): LinkSpeed(0.25, 2048.0),
        (a, c): LinkSpeed(0.5, None),
    }


def test_reports_are_read_when_they_come_and_not_for_every_request(monkeypatch: pytest.MonkeyPatch) -> None:
    directory = NodeDirectory(None, None)  # type: ignore[arg-type]
    a, b = ("0x" + digit * 40 for digit in "12")
    directory.registry = ActiveWorkers(workers={a: None}, by_key={bytes(32): a})  # type: ignore[dict-item]
    links = wire.pack_reports([LinkReport(b, 0.25, 1024.0)])
    directory.beat(bytes(32), wire.Heartbeat(bytes(32), "x", 0, 1, 0, 1, 0.0, links=links))
    monkeypatch.delattr("declai.api.nodes.directory.unpack_reports")
    assert directory.link_speeds() == {(a, b): LinkSpeed(0.25, 1024.0)}
