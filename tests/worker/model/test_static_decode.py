"""Decode steps of one shape compute what the ordinary ones compute; recorded, too, where there is CUDA."""

import pytest
import torch

from worker.model.packed import Pool, Segment
from worker.model.stage import Stage
from worker.model.static_decode import MAX_SESSIONS, StaticDecode

from .zoo import ARCHITECTURES, NUM_LAYERS, VOCAB_SIZE, Zoo

NUM_SLOTS = 1300
LENGTHS = (3, 40, 11, 1, 254)  # the last outgrows the keys that steps begin with
NUM_TOKENS = 5
ONE_BY_ONE = {"gptj", "falcon-alibi", "bloom"}


def runs_of(number: int, end: int) -> tuple[tuple[int, int], ...]:
    """A session's keys: two pieces, the second before the first."""
    first = 240 * (number + 1) - 20 if number < 4 else 1250
    pieces = ((first, min(end, 10)), (240 * number, end - 10))
    return tuple(piece for piece in pieces if piece[1] > 0)


def decode(stages: list[Stage], device: str, *, static: bool, records: bool = False) -> torch.Tensor:
    """Greedy tokens of all sessions, [steps, sessions], with a session less in each step."""
    pools = [Pool(NUM_SLOTS) for _ in stages]
    steps = [StaticDecode(stage, pool, records=records) for stage, pool in zip(stages, pools, strict=True)]
    generator = torch.Generator().manual_seed(5)
    prompts = [torch.randint(VOCAB_SIZE, (length,), generator=generator) for length in LENGTHS]
    segments = [Segment(0, length, runs_of(number, length)) for number, length in enumerate(LENGTHS)]
    rows = torch.cat(prompts).to(device)
    for stage, pool in zip(stages[:-1], pools[:-1], strict=True):
        rows = stage.forward_packed(rows, segments, pool)
    ends = torch.tensor(LENGTHS).cumsum(0) - 1
    tokens = [stages[-1].forward_packed_logits(rows, segments, pools[-1], ends.tolist()).argmax(-1)]
    for step in range(NUM_TOKENS):
        open_numbers = range(step // 2, len(LENGTHS))
        segments = [Segment(LENGTHS[n] + step, 1, runs_of(n, LENGTHS[n] + step + 1)) for n in open_numbers]
        rows = tokens[-1][-len(segments) :]
        for index, (stage, pool) in enumerate(zip(stages, pools, strict=True)):
            if static:
                assert steps[index].takes(segments)
                rows = steps[index].run(rows, segments)
            elif stage.is_last:
                rows = stage.forward_packed_logits(rows, segments, pool, range(len(segments)))
            else:
                rows = stage.forward_packed(rows, segments, pool)
        tokens.append(torch.cat([torch.full((step // 2,), -1, device=rows.device), rows.argmax(-1)]))
    return torch.stack(tokens).cpu()


def stages_of(zoo: Zoo, name: str, device: str = "cpu") -> list[Stage]:
    files = [zoo.folder(name) / "model.safetensors"]
    return [
        Stage.load(zoo.architecture(name), first, end, files, device=device) for first, end in ((0, 2), (2, NUM_LAYERS))
    ]


@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if name not in ONE_BY_ONE])
def test_every_architecture_decodes_the_same_tokens(zoo: Zoo, name: str) -> None:
    stages = stages_of(zoo, name)
    assert torch.equal(decode(stages, "cpu", static=True), decode(stages, "cpu", static=False))


def test_prompts_and_crowds_are_left_to_the_ordinary_way(zoo: Zoo) -> None:
    static = StaticDecode(stages_of(zoo, "llama")[0], Pool(NUM_SLOTS), records=False)
    token = Segment(4, 1, ((0, 5),))
    assert static.takes([token] * MAX_SESSIONS)
    assert not static.takes([token] * (MAX_SESSIONS + 1))
    assert not static.takes([token, Segment(0, 2, ((7, 2),))])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="recording needs CUDA")
@pytest.mark.parametrize("name", ["llama", "gemma2", "qwen3"])
def test_a_recorded_graph_decodes_the_same_tokens(zoo: Zoo, name: str) -> None:
    stages = stages_of(zoo, name, "cuda")
    recorded = decode(stages, "cuda", static=True, records=True)
    assert torch.equal(recorded, decode(stages, "cuda", static=False))
