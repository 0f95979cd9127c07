"""Brings a slice of a model into its numeric profile, one weight at a time.

Weights are loaded as they are stored: memory-mapped, without a copy. Then each module that multiplies matrices is made
to do that in the profile's format, and all others keep float32. So loading takes at
most the stage's own memory and a few copies of one weight. When all weights of a file took another form, nothing of the
file stays mapped.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from declai.worker.model.linears import linear_for
from declai.worker.model.memory import give_back_memory
from declai.worker.model.numeric import RESIDUAL_DTYPE, Numerics
from declai.worker.model.quantised import quantise_stack

_LINEARS = (nn.Linear, Conv1D)  # exact classes: their subclasses compute something else
_STACK = 3  # dimensions of the weights of a layer's experts


def declare_dtypes(model: nn.Module, stored: torch.dtype, numerics: Numerics) -> None:
    """Give the weights of a model on meta the dtype that they are to be loaded in; `stored` is that of the files."""
    for module in model.modules():
        if type(module) in (*_LINEARS, nn.Embedding) or (numerics.weight_bits and _has_experts(module)):
            dtype = stored
        else:
            dtype = numerics.dtype if _multiplies(module) else RESIDUAL_DTYPE
        for name, parameter in module._parameters.items():
            if parameter is not None and parameter.is_floating_point():
                module._parameters[name] = nn.Parameter(parameter.to(dtype), requires_grad=False)


def fit(
    model: PreTrainedModel,
    layers_path: str,
    numerics: Numerics,
    device: torch.device,
    linears: MutableMapping[str, nn.Module],
) -> None:
    """Bring the loaded weights into the profile and to the device, one at a time.

    Args:
        layers_path: dotted name of the decoder layers; weights outside are never kept as integers.
        linears: by dotted name: those that are there are taken instead of made anew, others are added.
    """
    for path, parent in list(model.named_modules()):
        inside = f"{path}.".startswith(f"{layers_path}.")
        format_here = numerics if inside else Numerics(numerics.dtype)
        for name, child in list(parent.named_children()):
            if "forward" in vars(child):
                continue  # outside the slice
            if type(child) in _LINEARS:
                full_name = f"{path}.{name}"
                made = linears.get(full_name)
                if made is None:
                    made = linears[full_name] = _linear(child, format_here, device)
                setattr(parent, name, made)
                give_back_memory()
            else:
                _fit_other(child, format_here, device, model._can_set_experts_implementation())
                _move(child, device)


def _linear(layer: Any, numerics: Numerics, device: torch.device) -> nn.Module:
    weight = layer.weight if isinstance(layer, nn.Linear) else layer.weight.T
    return linear_for(numerics, device, weight, layer.bias)


def _fit_other(module: nn.Module, numerics: Numerics, device: torch.device, experts_one_by_one: bool) -> None:
    parameters = {name: parameter for name, parameter in module._parameters.items() if parameter is not None}
    if type(module) is nn.Embedding:
        # A lookup is exact in any format, and touches few rows of a table that stays in its file.
        module.register_forward_hook(_widen_output)
    elif _multiplies(module):
        num_bits = numerics.weight_bits if experts_one_by_one else None
        for name, parameter in parameters.items():
            if num_bits and parameter.ndim == _STACK:
                del module._parameters[name]
                module.__dict__[name] = quantise_stack(parameter, num_bits, device)
            else:
                module._parameters[name] = nn.Parameter(parameter.to(numerics.dtype), requires_grad=False)
        module.register_forward_pre_hook(_narrow_inputs_to(numerics.dtype), with_kwargs=True)
        module.register_forward_hook(_widen_output)
    else:
        for name, parameter in parameters.items():  # small: a copy lets go of the file
            module._parameters[name] = nn.Parameter(parameter.clone(), requires_grad=False)


def _move(module: nn.Module, device: torch.device) -> None:
    """Move what a module owns itself. In place, so that tied weights stay one."""
    for tensor in (*module._parameters.values(), *module._buffers.values()):
        if tensor is not None:
            tensor.data = tensor.data.to(device)


def _multiplies(module: nn.Module) -> bool:
    """Whether a module multiplies matrices of its own: experts, or some architecture's kind of linear layer."""
    return _has_experts(module) or (
        isinstance(module, nn.Linear | nn.Embedding) and type(module) not in (nn.Linear, nn.Embedding)
    )


def _has_experts(module: nn.Module) -> bool:
    return any(parameter is not None and parameter.ndim == _STACK for parameter in module._parameters.values())


def _narrow_inputs_to(dtype: torch.dtype) -> Any:
    def narrow(value: Any) -> Any:
        return value.to(dtype) if isinstance(value, torch.Tensor) and value.is_floating_point() else value

    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return tuple(map(narrow, args)), {name: narrow(value) for name, value in kwargs.items()}

    return hook


def _widen_output(module: nn.Module, args: Any, output: Any) -> Any:
    if isinstance(output, tuple):
        return tuple(_widen_output(module, args, part) for part in output)
    return output.to(RESIDUAL_DTYPE) if isinstance(output, torch.Tensor) and output.is_floating_point() else output
