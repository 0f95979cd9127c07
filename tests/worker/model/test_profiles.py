"""Numeric profiles: what they compute, how close it comes to fp32, and that every machine has the same integers."""

import hashlib
from pathlib import Path

import pytest
import torch
from torch import nn

from declai.chain.fields import NUMERIC_PROFILES
from declai.worker.model import linears
from declai.worker.model.linears import IntLinear, PackedLinear, PlainLinear, linear_for
from declai.worker.model.numeric import Numerics, numerics_of
from declai.worker.model.quantised import Int4Weights, Int8Weights, quantise
from declai.worker.model.stage import Stage
from tests.support.zoo import ARCHITECTURES, VOCAB_SIZE, Zoo, save_random_model

CPU = torch.device("cpu")
# Of the norm of a row of hidden states after four layers. The zoo's weights are random and large, and a rounding error
# grows by much with each layer; 4 bits of weights without any order are off by 8 percent to begin with.
LARGEST_ERROR = {"fp32": 1e-5, "bf16": 6e-2, "fp16": 1e-2, "int8": 0.15, "int4": 0.9}
HALF_PRECISION = {"bf16": 1e-2, "fp16": 2e-3, "int8": 1e-2, "int4": 1e-2}


def hidden_states(stage: Stage) -> torch.Tensor:
    """A prompt in two pieces, then two tokens one by one, after the stage's layers."""
    token_ids = torch.randint(VOCAB_SIZE, (40,), generator=torch.Generator().manual_seed(1))
    cache = stage.new_cache(len(token_ids), 30)
    return torch.cat([stage.forward(piece, cache) for piece in token_ids.split([30, 8, 1, 1])])


def relative_error(found: torch.Tensor, exact: torch.Tensor) -> torch.Tensor:
    return (found - exact).norm(dim=-1) / exact.norm(dim=-1)


@pytest.mark.parametrize("profile", NUMERIC_PROFILES)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_runs_in_every_profile(zoo: Zoo, name: str, profile: str) -> None:
    architecture, files = zoo.architecture(name), [zoo.folder(name) / "model.safetensors"]
    exact = hidden_states(Stage.load(architecture, 0, 4, files))
    stage = Stage.load(architecture, 0, 4, files, profile)
    found = hidden_states(stage)
    assert stage.dtype == found.dtype == torch.float32
    # The median: an expert more or less, chosen by a hair, makes another token of one of them.
    assert relative_error(found, exact).median() < LARGEST_ERROR[profile]


@pytest.mark.parametrize("profile", ["bf16", "fp16", "int8"])
def test_what_a_layer_adds_to_large_numbers_is_not_lost(zoo: Zoo, profile: str) -> None:
    """A bf16 near 4096 is a multiple of 32, and far less is added here."""
    architecture, files = zoo.architecture("llama"), [zoo.folder("llama") / "model.safetensors"]
    rows = 4096 * torch.randn(4, 32, generator=torch.Generator().manual_seed(4))
    exact, found = (
        stage.forward(rows, stage.new_cache(4, 4)) - rows
        for stage in (Stage.load(architecture, 2, 3, files, name) for name in ("fp32", profile))
    )
    assert exact.abs().max() < 32
    assert relative_error(found, exact).max() < 0.1


def test_keys_and_values_are_kept_in_the_profiles_format(zoo: Zoo) -> None:
    architecture, files = zoo.architecture("llama"), [zoo.folder("llama") / "model.safetensors"]
    sizes = {
        profile: Stage.load(architecture, 0, 2, files, profile).layout(8).row_bytes for profile in NUMERIC_PROFILES
    }
    assert sizes["fp32"] == 2 * sizes["bf16"] == 2 * sizes["fp16"] == 2 * sizes["int8"] == 2 * sizes["int4"]


def test_an_unknown_profile_is_refused(zoo: Zoo) -> None:
    with pytest.raises(ValueError, match="'fp8' is unknown; known are fp32, bf16, fp16, int8, int4"):
        Stage.load(zoo.architecture("llama"), 0, 1, [], "fp8")


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float16])
def test_fp32_is_exact_on_weights_stored_in_less(zoo: Zoo, tmp_path: Path, stored: torch.dtype) -> None:
    narrow = save_random_model(ARCHITECTURES["gemma3"](), tmp_path / "narrow", stored)
    stage = Stage.load(zoo.architecture("gemma3"), 0, 4, [narrow / "model.safetensors"])
    wide = zoo.whole("gemma3").__class__.from_pretrained(narrow, dtype=torch.float32)
    wide.save_pretrained(tmp_path / "wide")
    exact = Stage.load(zoo.architecture("gemma3"), 0, 4, [tmp_path / "wide" / "model.safetensors"])
    assert torch.equal(hidden_states(stage), hidden_states(exact))


@pytest.mark.parametrize("num_rows", [1, 2, 8, 64])
@pytest.mark.parametrize("profile", HALF_PRECISION)
@pytest.mark.parametrize("shape", [(48, 64), (512, 96), (97, 32), (24, 40), (1, 32)])
def test_a_linear_layer_multiplies_what_its_weights_are(shape: tuple[int, int], profile: str, num_rows: int) -> None:
    generator = torch.Generator().manual_seed(2)
    weight, bias = torch.randn(shape, generator=generator), torch.randn(shape[0], generator=generator)
    x = torch.randn(num_rows, shape[1], generator=generator)
    numerics = numerics_of(profile)
    kept = weight.to(numerics.dtype)
    if numerics.weight_bits is not None:
        kept = reference(weight, 4 if profile == "int4" and shape[0] % 16 == shape[1] % 32 == 0 else 8)
    found = linear_for(numerics, CPU, weight, bias)(x.unsqueeze(0))
    exact = x @ kept.float().T + bias
    assert found.dtype == torch.float32
    assert (found[0] - exact).norm() / exact.norm() < HALF_PRECISION[profile]


def reference(weight: torch.Tensor, num_bits: int) -> torch.Tensor:
    """The weights that quantised ones stand for, without any kernel."""
    return (Int4Weights if num_bits == 4 else Int8Weights)(weight, CPU)[:]


def test_integers_are_the_nearest_to_the_weights() -> None:
    weight = torch.randn(64, 96, generator=torch.Generator().manual_seed(3))
    step = weight.abs().amax(1, keepdim=True) / 127
    assert ((reference(weight, 8) - weight).abs() <= step * 0.5 + weight.abs() * 2**-8).all()
    groups = weight.view(64, 3, 32)
    step = (groups.amax(2, keepdim=True) - groups.amin(2, keepdim=True)) / 15
    assert ((reference(weight, 4).view(64, 3, 32) - groups).abs() <= step * 0.55 + groups.abs() * 2**-7).all()


def test_weights_that_are_all_one_number_are_kept() -> None:
    for value in (0.0, -0.25, 3.0):
        weight = torch.full((16, 32), value)
        for num_bits in (4, 8):
            assert torch.equal(reference(weight, num_bits), weight)


@pytest.mark.parametrize("num_rows", [1, 16, 32])
def test_integers_are_scaled_alike_in_small_and_large_steps(num_rows: int) -> None:
    """A decode step takes another kernel than a prompt: no row of weights may be larger in one of them."""
    weight = torch.randn(48, 32, generator=torch.Generator().manual_seed(3))
    eight = Int8Weights(weight, CPU)
    one_by_one = torch.eye(32, dtype=torch.bfloat16)[:num_rows]
    assert torch.equal(eight.multiply(one_by_one), (eight._values * eight._scales).T[:num_rows])


def test_every_machine_gets_these_integers() -> None:
    """From weights that anyone can compute: a change of these numbers is a change of the profiles."""
    weight = ((torch.arange(16 * 32).view(16, 32) * 7919) % 8191 - 4095).float() / 4096
    eight, four = Int8Weights(weight, CPU), Int4Weights(weight, CPU)
    assert digest(eight._values, eight._scales) == "f53bc48987fc8ec3"
    assert digest(four._pairs, four._scales) == "c3f98f3e3f62cf33"


def digest(*tensors: torch.Tensor) -> str:
    content = b"".join(tensor.contiguous().view(torch.uint8).numpy().tobytes() for tensor in tensors)
    return hashlib.sha256(content).hexdigest()[:16]


@pytest.mark.parametrize(("profile", "kind"), [("fp32", PackedLinear), ("fp16", PlainLinear), ("int8", IntLinear)])
def test_layers_are_laid_out_for_the_cpu(profile: str, kind: type[nn.Module]) -> None:
    assert isinstance(linear_for(numerics_of(profile), CPU, torch.ones(16, 32), None), kind)


def test_without_onednn_floats_are_multiplied_as_they_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linears, "_can_pack", lambda dtype: False)
    weight = torch.ones(16, 32)
    layer = linear_for(Numerics(torch.float32), CPU, weight, None)
    assert isinstance(layer, PlainLinear)
    assert layer.weight.data_ptr() == weight.data_ptr()


def test_what_has_no_kernel_on_a_device_is_widened_there() -> None:
    """On meta nothing is computed, but shapes, formats and devices must fit."""
    meta = torch.device("meta")
    for num_bits in (4, 8):
        weights = quantise(torch.randn(48, 64), num_bits, meta)
        product = weights.multiply(torch.zeros(3, 64, dtype=torch.bfloat16, device=meta))
        assert (product.shape, product.device) == ((3, 48), meta)
