"""How many threads torch may use, and how they wait for each other. Imports no torch: it must run before torch loads.

Between two parallel parts OpenMP threads spin. Stages that share cores then burn each other's time: three processes of
two threads on two cores fell to a quarter of their speed. Threads that sleep while they wait
(`OMP_WAIT_POLICY=PASSIVE`) lose nothing measurable, and each stage can use all cores while the others wait for it.
"""

import os
from pathlib import Path

_WAIT_POLICY = "OMP_WAIT_POLICY"


def use_passive_waiting() -> None:
    """Make this process's OpenMP threads sleep while they wait, unless the environment says otherwise.

    OpenMP reads the setting when torch is first imported: call this before, or start the process with it.
    """
    os.environ.setdefault(_WAIT_POLICY, "PASSIVE")


def pick_num_threads(num_processes: int = 1) -> int:
    """Threads for one of `num_processes` worker processes that share this machine.

    All cores that this process may use when its threads wait passively, otherwise its share of them, at least 1.
    """
    num_cores = num_usable_cores()
    if os.environ.get(_WAIT_POLICY, "").upper() == "PASSIVE":
        return num_cores
    return max(1, num_cores // num_processes)


def num_usable_cores() -> int:
    """Physical cores this process may run on, by its affinity and its control group's quota, at least 1."""
    cpus = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    num_cores = len({_siblings(cpu) for cpu in cpus})
    quota = _cpu_quota(Path("/sys/fs/cgroup/cpu.max"))
    return max(1, num_cores if quota is None else min(num_cores, int(quota)))


def _siblings(cpu: int) -> str:
    """The hardware threads of one core share one list."""
    path = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
    try:
        return path.read_text()
    except OSError:
        return str(cpu)


def _cpu_quota(path: Path) -> float | None:
    """Cores per period that the control group (version 2) allows, or None for no bound."""
    try:
        quota, period = path.read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return None
