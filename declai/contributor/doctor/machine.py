"""This machine: its Python, its processor, its accelerators, and the threads that a model gets."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from pathlib import Path

from declai.contributor.doctor.case import Case, Check
from declai.contributor.doctor.cgroup import cpu_quota
from declai.contributor.doctor.finding import Finding, ok, problem, warning
from declai.worker.model.threads import num_usable_cores

MIN_PYTHON = (3, 11)
GIB = 2**30
# What of a processor makes stages faster, by the names of /proc/cpuinfo on x86 and ARM.
FEATURES = {
    "AVX2": ("avx2",),
    "AVX-512": ("avx512f",),
    "AMX": ("amx_tile",),
    "bf16": ("avx512_bf16", "amx_bf16", "bf16"),
    "fp16": ("avx512_fp16", "amx_fp16", "asimdhp"),
    "NEON": ("asimd",),
}
FAST = {"AVX2", "AVX-512", "NEON"}


def settings(case: Case) -> Finding:
    """Whether there are any: without them the machine alone is looked at."""
    if case.given is not None:
        return ok(f"to serve {case.given.model}, in {case.given.data_dir.absolute()}")
    if case.trouble:
        return problem(case.trouble, "mend the file, or name the right one with --config")
    return warning("none are named: the machine alone is looked at", "name the node's file with --config")


def python(case: Case) -> Finding:
    value = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
    if sys.version_info < MIN_PYTHON:
        return problem(value, "install Python 3.11 or newer")
    return ok(value)


def torch(case: Case) -> Finding:
    try:
        import torch as installed
    except ImportError as error:
        return problem(f"torch does not load: {error}", "install the package anew: `pip install declai`")
    others = [f"{name} {importlib.metadata.version(name)}" for name in ("transformers", "safetensors")]
    return ok(", ".join([f"torch {installed.__version__}", *others]))


def processor(case: Case) -> Finding:
    """Cores that are this process's own, and what of the machine's it may not use."""
    cores, quota = num_usable_cores(), cpu_quota()
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    value = f"{cores} {'core' if cores == 1 else 'cores'} of {os.cpu_count()} hardware threads ({affinity} allowed"
    value += f", a control group gives the time of {quota:g})" if quota is not None else ", no quota)"
    if quota is not None and cores > max(1, int(quota)):
        return warning(value, f"set num_threads = {max(1, int(quota))}: threads above the quota only wait")
    return ok(value)


def instructions(case: Case) -> Finding:
    import torch as installed

    flags = cpu_flags()
    found = [name for name, names in FEATURES.items() if flags.intersection(names)]
    value = f"{', '.join(found) or 'none known'} (torch uses {installed.backends.cpu.get_cpu_capability()})"
    wanted = case.given.numeric_profile if case.given else None
    if flags and not FAST.intersection(found):
        return warning(value, "expect few tokens a second: offer few layers, or use another machine")
    if wanted in ("bf16", "fp16") and case.given and case.given.device == "cpu" and flags and wanted not in found:
        return warning(value, f"this processor emulates {wanted}: fp32 may be faster, see `declai node bench`")
    return ok(value)


def cpu_flags(path: Path = Path("/proc/cpuinfo")) -> set[str]:
    """The first processor's; empty where the system does not tell."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return set()
    return next(
        (set(line.split(":", 1)[1].split()) for line in lines if line.lower().startswith(("flags", "feat"))), set()
    )


def accelerators(case: Case) -> Finding:
    found = _accelerators()
    value = "; ".join(found.values()) or "none: the processor computes"
    device = case.given.device if case.given else None
    kind = device.partition(":")[0] if device else "cpu"
    if kind != "cpu" and device not in found and not (device == kind and any(name.startswith(kind) for name in found)):
        return problem(f"{value}; the settings want {device}", 'set device = "cpu", or install torch for your device')
    if kind == "cpu" and case.given is not None and found:
        return warning(f"{value}; the settings use the processor", f'set device = "{next(iter(found))}"')
    return ok(value)


def _accelerators() -> dict[str, str]:
    """What torch sees, by the name that it has in the settings."""
    import torch as installed

    from declai.worker.model.devices import available_devices

    found = {}
    for name in available_devices():
        kind, _, index = name.partition(":")
        if kind in ("cuda", "rocm"):
            free, total = installed.cuda.mem_get_info(int(index))
            model = installed.cuda.get_device_name(int(index))
            found[name] = f"{name} {model} ({free / GIB:.1f} of {total / GIB:.1f} GiB free)"
        elif kind == "xpu":
            seen = installed.xpu.get_device_properties(int(index))
            found[name] = f"{name} {seen.name} ({seen.total_memory / GIB:.1f} GiB)"
        elif kind == "mps":
            found[name] = f"{name} Apple GPU ({installed.mps.recommended_max_memory() / GIB:.1f} GiB)"
    return found


def threads(case: Case) -> Finding:
    """A node's threads wait passively, so it takes all cores that are its own."""
    cores = num_usable_cores()
    chosen = case.given.num_threads if case.given else 0
    if chosen > cores:
        return warning(
            f"{chosen} by num_threads, more than the {cores} cores that may be used",
            f"set num_threads = {cores}, or leave it out",
        )
    if chosen:
        return ok(f"{chosen} by num_threads, of {cores} cores")
    return ok(f"{cores}: all cores that are this process's own (set num_threads to leave some to others)")


CHECKS: dict[str, Check] = {
    "settings": settings,
    "python": python,
    "torch": torch,
    "processor": processor,
    "instructions": instructions,
    "accelerators": accelerators,
    "threads": threads,
}
