"""Memory, disk and open files, against what the settings and the offered layers will take."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from declai.contributor.doctor.case import Case, Check
from declai.contributor.doctor.cgroup import memory_limit
from declai.contributor.doctor.finding import Finding, Unknown, ok, problem, warning
from declai.storage.database import version_of_file
from declai.storage.errors import StorageError
from declai.worker.job.store.schema import MIGRATIONS

GIB = 2**30
PROGRAM_BYTES = 2**29  # Python, torch and what they load; measured 0.4 GiB
STORED_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
FILES_BESIDES = 128  # libraries, the store, Redis, HTTP
FILES_PER_JOB = 8  # links to two neighbours and a gateway, each a socket and its monitor


def _gib(num_bytes: float) -> str:
    return f"{num_bytes / GIB:.1f} GiB" if num_bytes >= GIB / 10 else f"{num_bytes / 2**20:.1f} MiB"


def memory(case: Case) -> Finding:
    """Cache and weights lie where the model runs: in the device's memory, or the machine's."""
    settings = case.settings
    try:
        weights, known = weight_bytes(case), True
    except Unknown:
        weights, known = 0, False
    needed = settings.max_cache_bytes + weights + PROGRAM_BYTES
    parts = f"cache {_gib(settings.max_cache_bytes)}, weights {_gib(weights) if known else 'unknown'}"
    total, free = device_memory(settings.device) or machine_memory()
    value = f"up to {_gib(needed)} needed ({parts}), {_gib(free)} free of {_gib(total)}"
    if needed > total:
        return problem(value, "set a smaller max_cache_bytes, or offer fewer layers: else the system ends the node")
    if needed > free and case.running is None:
        return warning(value, "end other programs before all sessions are in use, or set a smaller max_cache_bytes")
    return ok(value)


def weight_bytes(case: Case) -> int:
    """Of the offered layers, in the offer's number format. Raises Unknown."""
    offer, profile = case.offer
    shards = case.manifest.stage_shards(offer.first_layer, offer.end_layer)
    from declai.worker.model.numeric import numerics_of  # torch takes seconds to load

    num_weights = sum(shard.size for shard in shards) // STORED_BYTES.get(case.manifest.dtype, 4)
    return int(num_weights * numerics_of(profile).bytes_per_weight)


def machine_memory(path: Path = Path("/proc/meminfo")) -> tuple[int, int]:
    """(total, free) bytes that this process may take. Raises Unknown."""
    try:
        lines = dict(line.split(":", 1) for line in path.read_text().splitlines())
        total, free = (int(lines[name].split()[0]) * 1024 for name in ("MemTotal", "MemAvailable"))
    except (OSError, KeyError, ValueError):
        raise Unknown("this system does not tell how much memory there is") from None
    limit = memory_limit()
    return (total, free) if limit is None else (min(total, limit), min(free, limit))


def device_memory(device: str) -> tuple[int, int] | None:
    """(total, free) bytes of an accelerator; None for the processor. Raises Unknown."""
    import torch

    if device.startswith(("cuda", "rocm")):
        if not torch.cuda.is_available():
            raise Unknown(f"torch sees no {device}")
        free, total = torch.cuda.mem_get_info(torch.device(device.replace("rocm", "cuda")))
        return total, free
    return None


def disk(case: Case, free_bytes: int | None = None) -> Finding:
    """A shard lies there twice: in blocks, which others may fetch, and as the file that is mapped into memory.

    `free_bytes` stands for what the disk has.
    """
    folder = case.settings.data_dir.absolute()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free if free_bytes is None else free_bytes
    offer, _ = case.offer
    missing = 0
    for shard in case.manifest.stage_shards(offer.first_layer, offer.end_layer):
        file = folder / "models" / case.version.manifest_cid / f"{shard.cid}.safetensors"
        if not file.exists():
            has_blocks = case.blocks is not None and case.blocks.has(shard.cid)
            missing += shard.size if has_blocks else 2 * shard.size
    value = f"{_gib(missing)} still to come into {folder}, {_gib(free)} free"
    if missing > free:
        return problem(value, "make room, or set data_dir to a larger disk")
    if free - missing < GIB / 4:
        return warning(value, "make room: receipts and the status file need some, too")
    return ok(value)


def files(case: Case) -> Finding:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = FILES_BESIDES + FILES_PER_JOB * case.settings.max_jobs
    value = f"{soft} may be open, up to {needed} needed for {case.settings.max_jobs} jobs"
    if soft != resource.RLIM_INFINITY and soft < needed:
        advice = f"start the node after `ulimit -n {needed}`, or with LimitNOFILE={needed} in its systemd unit"
        return problem(
            value, advice if hard in (-1, resource.RLIM_INFINITY) or hard >= needed else f"as root: {advice}"
        )
    return ok(value)


def store(case: Case) -> Finding:
    """The receipts' file: read as it is, for opening it would migrate it."""
    path = case.settings.data_dir.absolute() / "node.db"
    if not path.exists():
        return ok(f"{path} is made at the first start")
    try:
        version = version_of_file(path, MIGRATIONS)
    except StorageError as error:
        return problem(str(error), "use the release that wrote it, or mend the file; it holds what you earned")
    shut = [place for place in (path, path.parent) if not os.access(place, os.R_OK | os.W_OK)]
    if shut:
        return problem(f"{shut[0]} cannot be read and written", "give this user the right to do both")
    value = f"{path} has version {version}"
    if version < MIGRATIONS.version:
        value += f", this program writes version {MIGRATIONS.version}"
        return warning(value, "keep a copy: the next start of a node migrates it, once the old one is stopped")
    return ok(value)


CHECKS: dict[str, Check] = {"memory": memory, "disk": disk, "files": files, "store": store}
