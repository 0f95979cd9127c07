"""Sequences that share forwards: each is as if alone, whoever comes, goes, and lies beside it in the pool."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import torch

from declai.chain.fields import NUMERIC_PROFILES
from declai.protocol.options import GenerationOptions, Sampling
from declai.worker.engine import AtCapacity, EngineLimits, SampledToken, SequenceSpec
from declai.worker.engine.runner import Runner
from declai.worker.model.packed import Pool
from declai.worker.model.stage import Stage
from declai.worker.model.static_decode import StaticDecode
from tests.support.pipelines import GREEDY, Pipeline, generated, ids, prompt_of, spec
from tests.support.zoo import ARCHITECTURES, NUM_LAYERS, ONE_BY_ONE, Zoo

LIMITS = EngineLimits(8, 640, 1 << 24, prefill_chunk_tokens=48, mixed_prefill_tokens=20)


@dataclass(frozen=True)
class Request:
    """`at`: step in which it comes. `gives_up_at`: step in which it is cancelled, if it ever is."""

    at: int
    prompt: Sequence[int]
    max_tokens: int
    sampling: Sampling = GREEDY
    gives_up_at: int | None = None


def run(pipeline: Pipeline, requests: dict[bytes, Request]) -> dict[bytes, list[SampledToken]]:
    """All requests, each from its step on; what those that were not cancelled got."""
    step, open_ids = 0, set(requests)
    while True:
        for sequence_id, request in requests.items():
            if request.at == step:
                pipeline.start(sequence_id, request.prompt, spec(request.prompt, request.max_tokens, request.sampling))
            if request.gives_up_at == step:
                open_ids.discard(sequence_id)
                for engine in pipeline.engines:
                    engine.remove(sequence_id)
        worked = pipeline.step()
        step += 1
        if not worked and step > max(request.at for request in requests.values()):
            return {sequence_id: pipeline.tokens[sequence_id] for sequence_id in open_ids}


def crowd() -> dict[bytes, Request]:
    lengths = (1, 130, 7, 40, 77, 3, 260, 19)
    requests = {
        bytes([number]): Request(3 * number, prompt_of(length, seed=number), 10 + number)
        for number, length in enumerate(lengths)
    }
    gone = {
        bytes([100 + number]): Request(2 + number, prompt_of(50, seed=50 + number), 30, gives_up_at=6 + 3 * number)
        for number in range(3)
    }
    return requests | gone


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_each_gets_what_generate_makes(zoo: Zoo, name: str) -> None:
    requests = crowd()
    pipeline = Pipeline(zoo, name, limits=EngineLimits(12, 640, 1 << 24, 48, 20))
    for sequence_id, tokens in run(pipeline, requests).items():
        request = requests[sequence_id]
        assert ids(tokens) == generated(zoo, name, request.prompt, request.max_tokens)
    for engine in pipeline.engines:
        for sequence_id in requests:
            engine.remove(sequence_id)
        assert engine.used_cache_bytes == 0
        engine.check_integrity()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_most_architectures_share_forwards(zoo: Zoo, name: str) -> None:
    files = [zoo.folder(name) / "model.safetensors"]
    for first, end in ((0, 1), (1, 4), (4, NUM_LAYERS)):
        assert Stage.load(zoo.architecture(name), first, end, files).packs == (name not in ONE_BY_ONE)


@pytest.mark.parametrize("profile", ["bf16", "fp16", "int8", "int4"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_other_numeric_profiles_share_forwards_too(zoo: Zoo, name: str, profile: str) -> None:
    stage = Stage.load(zoo.architecture(name), 0, 2, [zoo.folder(name) / "model.safetensors"], profile)
    assert stage.packs == (name not in ONE_BY_ONE)


@pytest.mark.parametrize("profile", NUMERIC_PROFILES)
def test_a_cut_changes_nothing_in_any_profile(zoo: Zoo, profile: str) -> None:
    """Stages hand each other what the next layer would have got."""
    answers = []
    for boundaries in ((0, 2, 3, NUM_LAYERS), (0, NUM_LAYERS)):
        pipeline = Pipeline(zoo, "llama", boundaries, profile=profile)
        answers.append(run(pipeline, {b"one": Request(0, prompt_of(20, seed=1), 20)}))
    assert answers[0] == answers[1]


def test_decode_steps_of_one_shape_change_no_token(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on CUDA, but for the recording; with tokens that are reused and windows."""
    ordinary = run(Pipeline(zoo, "gemma2", limits=LIMITS), crowd())
    shapes: set[tuple[int, int]] = set()

    class OnCpu(Runner):
        def __init__(self, stage: Stage, max_chunk_tokens: int, pool: Pool | None, **options: bool) -> None:
            super().__init__(stage, max_chunk_tokens, pool)
            assert pool is not None
            self._static = StaticDecode(stage, pool, records=False)

        def check_integrity(self, sequence_ids: set[bytes]) -> None:
            super().check_integrity(sequence_ids)
            assert self._static is not None
            shapes.update(self._static._steps)

    monkeypatch.setattr("declai.worker.engine.engine.Runner", OnCpu)
    static = run(Pipeline(zoo, "gemma2", limits=LIMITS), crowd())
    assert {sequence: ids(tokens) for sequence, tokens in static.items()} == {
        sequence: ids(tokens) for sequence, tokens in ordinary.items()
    }
    assert {(1, 256), (2, 512)} <= shapes


def test_a_step_takes_all_that_waits(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = Pipeline(zoo, "llama", limits=LIMITS)
    batches: list[int] = []
    first = pipeline.engines[0]._stage
    forward = first.forward_packed

    def counted(inputs: torch.Tensor, segments: Sequence[object], pool: object) -> torch.Tensor:
        batches.append(len(segments))
        return forward(inputs, segments, pool)  # type: ignore[arg-type]

    monkeypatch.setattr(first, "forward_packed", counted)
    run(pipeline, {bytes([number]): Request(0, prompt_of(2, seed=number), 6) for number in range(8)})
    assert batches == [8] * 6


def test_a_seed_gives_one_text_in_any_company(zoo: Zoo) -> None:
    sampled = [Sampling(temperature=1.0, top_p=0.9, seed=seed) for seed in range(6)]
    requests = {
        bytes([seed]): Request(2 * seed, prompt_of(10 + 20 * seed, seed=seed), 25, sampling)
        for seed, sampling in enumerate(sampled)
    }
    together = run(Pipeline(zoo, "gemma2", limits=LIMITS), requests)
    for sequence_id, request in requests.items():
        alone = Pipeline(zoo, "gemma2").generate(request.prompt, spec(request.prompt, 25, request.sampling))
        assert ids(together[sequence_id]) == ids(alone)


def test_a_sequence_in_many_pieces_of_the_pool_is_as_one_in_one(zoo: Zoo) -> None:
    """Short sequences fill the pool, every other one leaves, and a long one has to take their places."""
    pipeline = Pipeline(zoo, "mistral", limits=EngineLimits(100, 640, 1 << 17))
    prompt = prompt_of(60)
    for engine in pipeline.engines:
        options = GenerationOptions(sampling=GREEDY) if engine is pipeline.engines[-1] else None
        with contextlib.suppress(AtCapacity):
            for number in range(100):
                engine.add(bytes([number]), SequenceSpec(1, 10, options))
        for number in range(0, 100, 2):
            engine.remove(bytes([number]))
    pipeline.start(b"long", prompt, spec(prompt, 30))
    assert all(any(len(lane.runs) > 1 for lane in engine._cache.lanes(b"long")) for engine in pipeline.engines)
    pipeline.run()
    assert ids(pipeline.tokens[b"long"]) == generated(zoo, "mistral", prompt, 30)
