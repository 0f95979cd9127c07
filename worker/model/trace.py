"""What one forward over meta tensors tells of a model: which modules are its decoder layers, what runs around them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import nn

from declai.worker.model.config import UnsupportedArchitecture

Side = Literal["embedding", "head"]

NUM_PROBE_TOKENS = 3


class Trace:
    """Records, during one forward, the order in which candidate layers and the owners of weights are called."""

    def __init__(self, model: nn.Module, num_layers: int) -> None:
        self._model = model
        self._num_layers = num_layers
        self._candidates = {
            path: module
            for path, module in model.named_modules()
            if isinstance(module, nn.ModuleList) and len(module) == num_layers
        }
        self._events: list[tuple[str, str]] = []
        self._outputs: dict[str, Any] = {}

    @contextmanager
    def recording(self) -> Iterator[None]:
        handles = []
        for path, module in self._model.named_modules():
            handles.append(module.register_forward_pre_hook(self._on_enter(path)))
            handles.append(module.register_forward_hook(self._on_leave(path)))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _on_enter(self, path: str) -> Any:
        return lambda module, args: self._events.append(("enter", path))

    def _on_leave(self, path: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            self._events.append(("leave", path))
            self._outputs[path] = output

        return hook

    def layers_path(self) -> str:
        """The outermost list whose modules ran once each, in order."""
        entered = [path for kind, path in self._events if kind == "enter"]
        in_order: list[str] = []
        for path in self._candidates:
            expected = [f"{path}.{index}" for index in range(self._num_layers)]
            members = set(expected)
            if [name for name in entered if name in members] == expected:
                in_order.append(path)
        outermost = [path for path in in_order if not any(path.startswith(f"{other}.") for other in in_order)]
        if len(outermost) != 1:
            raise UnsupportedArchitecture(
                f"{type(self._model).__name__}: expected one list of {self._num_layers} decoder layers that run once "
                f"each in order, found {outermost or 'none'}"
            )
        if "." not in outermost[0]:
            raise UnsupportedArchitecture(f"{type(self._model).__name__} has no base model apart from its head")
        return outermost[0]

    def sides(self, layers_path: str) -> dict[str, Side]:
        first, last = f"{layers_path}.0", f"{layers_path}.{self._num_layers - 1}"
        begin = self._events.index(("enter", first))
        end = self._events.index(("leave", last))
        sides: dict[str, Side] = {}
        for path, module in self._model.named_modules():
            if path.startswith(f"{layers_path}.") or not _owns_weights(module):
                continue
            times = [time for time, event in enumerate(self._events) if event == ("enter", path)]
            if f"{layers_path}.".startswith(f"{path}.") or path == "":
                raise UnsupportedArchitecture(
                    f"{type(module).__name__} holds weights of its own beside its layers; they belong to no stage"
                )
            if any(begin < time < end for time in times) or (times and times[0] < begin and times[-1] > end):
                raise UnsupportedArchitecture(
                    f"{path} runs between or on both sides of the decoder layers; stages would have to share it"
                )
            if times:
                sides[path] = "embedding" if times[0] < begin else "head"
        return sides

    def unused(self) -> tuple[str, ...]:
        entered = [path for kind, path in self._events if kind == "enter"]
        used = {path[:end] for path in entered for end in _prefix_lengths(path)}
        unused: list[str] = []
        for path, module in self._model.named_modules():
            inside = any(path.startswith(f"{other}.") for other in unused)
            if path not in used and not inside and module.state_dict(keep_vars=True):
                unused.append(path)
        return tuple(unused)

    def output_length(self, layers_path: str) -> int | None:
        outputs = [self._outputs[f"{layers_path}.{index}"] for index in range(self._num_layers)]
        lengths = {len(output) if isinstance(output, tuple) else None for output in outputs}
        if len(lengths) != 1:
            raise UnsupportedArchitecture(f"the decoder layers return different things: {lengths}")
        return lengths.pop()

    def hidden_size(self, layers_path: str) -> int:
        output = self._outputs[f"{layers_path}.{self._num_layers - 1}"]
        hidden = output[0] if isinstance(output, tuple) else output
        if not isinstance(hidden, torch.Tensor) or hidden.ndim != 3 or hidden.shape[:2] != (1, NUM_PROBE_TOKENS):
            raise UnsupportedArchitecture("a decoder layer must return hidden states [batch, tokens, hidden]")
        return int(hidden.shape[-1])


def _prefix_lengths(path: str) -> list[int]:
    return [0, len(path), *(index for index, character in enumerate(path) if character == ".")]


def _owns_weights(module: nn.Module) -> bool:
    return any("." not in name for name in module.state_dict(keep_vars=True))
