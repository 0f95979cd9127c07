"""Decode steps of one shape compute what the ordinary ones compute; recorded, too, where there is CUDA."""

import pytest
import torch

from declai.worker.engine.memory.cache import CacheManager
from declai.worker.model.layout import BLOCK_TOKENS, Lane
from declai.worker.model.packed import Pool, Segment
from declai.worker.model.stage import Stage
from declai.worker.model.static_decode import MAX_SEQUENCES, StaticDecode
from tests.support.zoo import ARCHITECTURES, NUM_LAYERS, VOCAB_SIZE, Zoo

LENGTHS = (3, 40, 11, 1, 254)  # the last outgrows the keys that steps begin with
NUM_TOKENS = 5
STEP_TOKENS = 16  # of a prompt in one forward: windows' rings are so short that they go round
ONE_BY_ONE = {"gptj", "falcon-alibi", "bloom"}
Lanes = tuple[Lane, ...]


def pool_and_lanes(stage: Stage) -> tuple[Pool, list[Lanes]]:
    """Sequences' lanes where other sequences' ends left room between others': in several pieces."""
    layout = stage.layout(STEP_TOKENS)
    manager = CacheManager(9999, 2**30, layout)
    num_blocks = 3 * sum(manager.num_blocks_for(length + NUM_TOKENS) for length in LENGTHS)
    manager = CacheManager(9999, num_blocks * BLOCK_TOKENS * layout.row_bytes, layout)
    fillers = list[bytes]()
    while manager.can_allocate(0, 1):
        fillers.append(b"filler %d" % len(fillers))
        manager.allocate(fillers[-1], 0, 1)
    for name in fillers[1::2]:
        manager.free(name)
    for number, length in enumerate(LENGTHS):
        manager.allocate(b"%d" % number, 0, length + NUM_TOKENS)
    lanes = [manager.lanes(b"%d" % number) for number in range(len(LENGTHS))]
    longest = [lane for own in lanes for lane in own if lane.num_slots > 2 * BLOCK_TOKENS]
    assert not longest or any(len(lane.runs) > 1 for lane in longest)
    return Pool(layout, manager.num_blocks * BLOCK_TOKENS), lanes


def first_token(
    stages: list[Stage], pools: tuple[Pool, ...], lanes: tuple[list[Lanes], ...], number: int, prompt: torch.Tensor
) -> torch.Tensor:
    """The greedy token after a sequence's prompt, [1]."""
    for begin in range(0, len(prompt), STEP_TOKENS):
        rows = prompt[begin : begin + STEP_TOKENS].to(stages[0].device)
        for stage, pool, own in zip(stages, pools, lanes, strict=True):
            segments = [Segment(begin, len(rows), own[number])]
            if stage.is_last:
                rows = stage.forward_packed_logits(rows, segments, pool, [len(rows) - 1])
            else:
                rows = stage.forward_packed(rows, segments, pool)
    return rows.argmax(-1)


def decode(stages: list[Stage], *, static: bool, records: bool = False) -> torch.Tensor:
    """Greedy tokens of all sequences, [steps, sequences], with a sequence less in every other step."""
    pools, lanes = zip(*(pool_and_lanes(stage) for stage in stages), strict=True)
    steps = [StaticDecode(stage, pool, records=records) for stage, pool in zip(stages, pools, strict=True)]
    generator = torch.Generator().manual_seed(5)
    prompts = [torch.randint(VOCAB_SIZE, (length,), generator=generator) for length in LENGTHS]
    tokens = [torch.cat([first_token(stages, pools, lanes, n, prompt) for n, prompt in enumerate(prompts)])]
    for step in range(NUM_TOKENS):
        numbers = range(step // 2, len(LENGTHS))
        rows = tokens[-1][-len(numbers) :]
        for index, stage in enumerate(stages):
            segments = [Segment(LENGTHS[number] + step, 1, lanes[index][number]) for number in numbers]
            if static:
                assert steps[index].takes(segments)
                rows = steps[index].run(rows, segments)
            elif stage.is_last:
                rows = stage.forward_packed_logits(rows, segments, pools[index], range(len(segments)))
            else:
                rows = stage.forward_packed(rows, segments, pools[index])
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
    assert torch.equal(decode(stages, static=True), decode(stages, static=False))


def test_prompts_and_crowds_are_left_to_the_ordinary_way(zoo: Zoo) -> None:
    stage = stages_of(zoo, "llama")[0]
    pool, (lanes, *_) = pool_and_lanes(stage)
    static = StaticDecode(stage, pool, records=False)
    token = Segment(2, 1, lanes)
    assert static.takes([token] * MAX_SEQUENCES)
    assert not static.takes([token] * (MAX_SEQUENCES + 1))
    assert not static.takes([token, Segment(0, 2, lanes)])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="recording needs CUDA")
@pytest.mark.parametrize("name", ["llama", "gemma2", "qwen3"])
def test_a_recorded_graph_decodes_the_same_tokens(zoo: Zoo, name: str) -> None:
    stages = stages_of(zoo, name, "cuda")
    assert torch.equal(decode(stages, static=True, records=True), decode(stages, static=False))
