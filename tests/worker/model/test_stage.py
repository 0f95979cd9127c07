"""A stage computes its slice of the whole from its own shards alone."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from declai.worker.model.architecture import Architecture
from declai.worker.model.slicing import StageLoadError
from declai.worker.model.stage import Stage, stage_shards
from tests.support.zoo import ARCHITECTURES, VOCAB_SIZE, Zoo, cut_into_shards


def load_stages(zoo: Zoo, name: str, boundaries: tuple[int, ...]) -> list[Stage]:
    architecture, files = zoo.architecture(name), zoo.shard_files(name)
    return [
        Stage.load(architecture, first, end, [files[key] for key in stage_shards(architecture, first, end)])
        for first, end in pairwise(boundaries)
    ]


def run(stages: list[Stage], token_ids: torch.Tensor, chunk_tokens: int) -> torch.Tensor:
    """The logits after the last token, fed in chunks."""
    caches = [stage.new_cache(len(token_ids), chunk_tokens) for stage in stages]
    for chunk in token_ids.split(chunk_tokens):
        rows = chunk
        for stage, cache in zip(stages[:-1], caches[:-1], strict=True):
            rows = stage.forward(rows, cache)
        logits = stages[-1].forward_logits(rows, caches[-1])
    return logits


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_stages_from_their_own_shards_give_the_logits_of_the_whole(zoo: Zoo, name: str) -> None:
    token_ids = torch.randint(VOCAB_SIZE, (50,), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        whole = zoo.whole(name)(token_ids[None]).logits[0, -1]
    for boundaries in ((0, 5), (0, 1, 5), (0, 2, 3, 5)):
        logits = run(load_stages(zoo, name, boundaries), token_ids, chunk_tokens=50)
        torch.testing.assert_close(logits, whole, rtol=1e-4, atol=1e-4)


def test_a_stage_holds_the_weights_of_its_slice_alone(zoo: Zoo) -> None:
    whole = sum(parameter.numel() for parameter in zoo.whole("llama").parameters())
    parts = [
        sum(parameter.numel() for parameter in stage._model.parameters())  # packed weights count by their shapes
        for stage in load_stages(zoo, "llama", (0, 1, 4, 5))
    ]
    assert sum(parts) == whole


def test_sessions_of_one_stage_do_not_disturb_each_other(zoo: Zoo) -> None:
    stages = load_stages(zoo, "gemma2", (0, 2, 5))
    prompts = [torch.arange(3, 43), torch.arange(50, 60)]
    alone = [run(stages, prompt, chunk_tokens=16) for prompt in prompts]
    again = [run(stages, prompt, chunk_tokens=16) for prompt in prompts]
    assert all(torch.equal(first, second) for first, second in zip(alone, again, strict=True))


@pytest.mark.parametrize("layers", [(0, 2), (2, 4), (4, 5), (0, 5)])
def test_any_stage_can_be_timed_without_a_session(zoo: Zoo, layers: tuple[int, int]) -> None:
    (stage,) = load_stages(zoo, "gpt-oss", layers)
    assert stage.measure_s_per_token() > 0


def shards_with(architecture: Architecture, zoo: Zoo, tmp_path: Path, **changes: torch.Tensor | None) -> Path:
    tensors = load_file(zoo.folder("llama") / "model.safetensors")
    for name, tensor in changes.items():
        if tensor is None:
            del tensors[name]
        else:
            tensors[name] = tensor
    save_file(tensors, tmp_path / "changed.safetensors")
    return tmp_path / "changed.safetensors"


def test_a_missing_weight_is_named(zoo: Zoo, tmp_path: Path) -> None:
    architecture = zoo.architecture("llama")
    path = shards_with(architecture, zoo, tmp_path, **{"model.layers.2.mlp.up_proj.weight": None})
    with pytest.raises(StageLoadError, match=r"model\.layers\.2\.mlp\.up_proj\.weight"):
        Stage.load(architecture, 2, 3, [path])
    Stage.load(architecture, 3, 5, [path])


def test_a_weight_of_another_shape_is_refused(zoo: Zoo, tmp_path: Path) -> None:
    architecture = zoo.architecture("llama")
    path = shards_with(architecture, zoo, tmp_path, **{"model.layers.2.mlp.up_proj.weight": torch.zeros(2, 2)})
    with pytest.raises(StageLoadError):
        Stage.load(architecture, 2, 3, [path])


def test_another_stages_shards_are_refused(zoo: Zoo) -> None:
    architecture, files = zoo.architecture("llama"), zoo.shard_files("llama")
    with pytest.raises(StageLoadError, match="missing_keys"):
        Stage.load(architecture, 2, 3, [files[3]])


@pytest.mark.parametrize("layers", [(0, 0), (3, 2), (-1, 2), (4, 6)])
def test_a_range_that_is_no_stage_is_refused(zoo: Zoo, layers: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="no stage"):
        Stage.load(zoo.architecture("llama"), *layers, [])


def test_old_checkpoints_of_single_experts_load_into_fused_ones(zoo: Zoo, tmp_path: Path) -> None:
    with_experts = load_file(zoo.folder("mixtral") / "model.safetensors")
    assert "model.layers.0.block_sparse_moe.experts.0.w1.weight" in with_experts
    files = cut_into_shards(zoo.architecture("mixtral"), zoo.folder("mixtral"), tmp_path / "shards")
    stage = Stage.load(zoo.architecture("mixtral"), 0, 1, [files["embedding"], files[0]])
    assert stage.forward(torch.tensor([3]), stage.new_cache(4, 4)).shape == (1, 32)
