"""The devices that a stage may compute on, by the names in a node's settings."""

from __future__ import annotations

import torch

from declai.worker.errors import NodeStartError


def open_device(name: str) -> torch.device:
    """The device of a name as `NodeSettings.device` has it; a kind without a number is its first.

    AMD's GPUs are "rocm" to people and "cuda" to torch.

    Raises:
        NodeStartError: it is not on this machine, or this build of torch does not know it; the text says what is.
    """
    kind, _, index = name.partition(":")
    wanted = name if kind in ("cpu", "mps") else f"{kind}:{index or 0}"
    found = available_devices()
    if wanted not in found:
        raise NodeStartError(f"device {name!r} is not here: torch {torch.__version__} finds {', '.join(found)}")
    return torch.device(wanted.replace("rocm", "cuda"))


def available_devices() -> list[str]:
    """What this build of torch finds on this machine."""
    found = ["cpu"]
    if torch.cuda.is_available():
        kind = "cuda" if torch.version.hip is None else "rocm"
        found += [f"{kind}:{index}" for index in range(torch.cuda.device_count())]
    if torch.xpu.is_available():
        found += [f"xpu:{index}" for index in range(torch.xpu.device_count())]
    if torch.backends.mps.is_available():
        found.append("mps")
    return found
