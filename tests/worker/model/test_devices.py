"""Stages on devices that are not here: what a node says, and that nothing of a forward stays behind on the CPU."""

from typing import Any

import pytest
import torch
from torch import nn

from declai.worker.errors import NodeStartError
from declai.worker.model import linears
from declai.worker.model.devices import available_devices, open_device
from declai.worker.model.layout import Lane
from declai.worker.model.packed import Pool, Segment
from declai.worker.model.quantised import quantise_stack
from declai.worker.model.stage import Stage
from tests.support.zoo import Zoo

GPU = torch.device("cuda:0")
META = torch.device("meta")


def two_gpus(monkeypatch: pytest.MonkeyPatch, hip: str | None) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.version, "hip", hip)


def test_the_cpu_is_always_there() -> None:
    assert open_device("cpu") == torch.device("cpu")


def test_a_device_that_is_not_here_is_refused_with_what_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for name in ("cuda", "cuda:1", "rocm", "xpu:3", "mps"):
        if name not in available_devices():
            with pytest.raises(NodeStartError, match=f"device '{name}' is not here: torch .* finds cpu"):
                open_device(name)


def test_a_gpu_is_named_by_its_maker_and_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    two_gpus(monkeypatch, hip=None)
    assert [open_device(name) for name in ("cuda", "cuda:1")] == [GPU, torch.device("cuda:1")]
    with pytest.raises(NodeStartError, match="finds cpu, cuda:0, cuda:1"):
        open_device("cuda:2")
    with pytest.raises(NodeStartError):
        open_device("rocm")


def test_amds_gpus_are_torchs_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    two_gpus(monkeypatch, hip="6.4")
    assert open_device("rocm:1") == torch.device("cuda:1")
    with pytest.raises(NodeStartError, match="finds cpu, rocm:0, rocm:1"):
        open_device("cuda")


def without_numbers(stage: Stage) -> None:
    """Move a stage to a device that knows shapes and formats alone."""
    for module in stage._model.modules():
        for owner in (module, getattr(module, "_weights", None)):
            tensors: list[dict[str, Any]] = [] if owner is None else [vars(owner)]
            if isinstance(owner, nn.Module):
                tensors += [owner._parameters, owner._buffers]
            for held in tensors:
                held.update({name: value.to(META) for name, value in held.items() if isinstance(value, torch.Tensor)})
    stage.device = META


@pytest.mark.parametrize("profile", ["fp32", "bf16", "fp16", "int8", "int4"])
@pytest.mark.parametrize("name", ["llama", "gemma2", "gpt2", "qwen3"])
def test_all_of_a_forward_is_on_the_stages_device(
    zoo: Zoo, name: str, profile: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is on two devices cannot be computed with, and numbers of a device cannot be read in passing."""
    monkeypatch.setattr(linears, "_can_pack", lambda dtype: False)
    monkeypatch.setattr(linears, "quantise", quantise_stack)
    stage = Stage.load(zoo.architecture(name), 3, 5, [zoo.folder(name) / "model.safetensors"], profile)
    without_numbers(stage)
    pool, rows = Pool(stage.layout(8), 160), torch.empty(7, 32, device=META)
    lanes = [
        tuple(Lane(((begin + 80 * lane, 16), (begin + 20 + 80 * lane, 16))) for lane in (0, 1)) for begin in (0, 40)
    ]
    segments = [Segment(0, 6, lanes[0]), Segment(12, 1, lanes[1])]
    hidden = stage.forward_packed(rows, segments, pool)
    logits = stage.forward_packed_logits(rows, segments, pool, [5, 6])
    alone = stage.forward(rows, stage.new_cache(8, 8))
    assert {tensor.device for tensor in (hidden, logits, alone)} == {META}
    assert {tensor.dtype for tensor in (hidden, logits, alone)} == {torch.float32}
    assert {rows.device for _, _, rows in pool._shapes.values()} == {META}
    assert {rows.dtype for _, _, rows in pool._shapes.values()} == {stage.cache_dtype}
