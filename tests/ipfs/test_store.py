"""The block store: whole blocks or none, nothing damaged comes out, and collection takes only what nobody wants."""

from __future__ import annotations

import io
import multiprocessing
import os
import resource
from pathlib import Path

import pytest

from declai.ipfs import store as store_module
from declai.ipfs.cid import RAW, Cid
from declai.ipfs.errors import CorruptBlock, InvalidBlock, IpfsError, MissingBlock
from declai.ipfs.store import BlockStore


def block_path(store: BlockStore, cid: str) -> Path:
    return next(store.folder.glob(f"blocks/*/{cid}"))


def big(seed: int, size: int = 2_500_000) -> bytes:
    return bytes([seed]) * size


def test_a_damaged_block_is_named_and_never_returned(tmp_path: Path) -> None:
    store = BlockStore(tmp_path)
    cid = store.add(big(1))
    leaf = str(list(store.walk(cid))[1])
    path = block_path(store, leaf)
    data = bytearray(path.read_bytes())
    data[77] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptBlock, match=leaf):
        b"".join(store.read(cid))
    assert store.verify(cid).corrupt == [leaf, leaf]  # the file's first two chunks are the same block
    path.unlink()
    with pytest.raises(MissingBlock, match=leaf):
        b"".join(store.read(cid))
    assert not store.verify(cid).ok
    assert store.add(big(1)) == cid
    assert store.verify(cid).ok


def test_blocks_are_held_to_their_cid_and_size(tmp_path: Path) -> None:
    store = BlockStore(tmp_path)
    with pytest.raises(CorruptBlock):
        store.put_block(Cid.of(RAW, b"a"), b"b")
    with pytest.raises(InvalidBlock):
        store.put_block(Cid.of(RAW, bytes(3 * 2**20)), bytes(3 * 2**20))
    cid = store.add(b"small")
    assert store.read_bytes(cid, 5) == b"small"
    with pytest.raises(IpfsError, match="at most 4"):
        store.read_bytes(cid, 4)


def test_what_is_added_is_pinned_unless_it_is_not_to_be(tmp_path: Path) -> None:
    store = BlockStore(tmp_path)
    cid, _ = store.add(big(1)), store.add(b"other", pin=False)
    store.pin(cid)
    assert store.pins() == [cid]


def _add_many(folder: Path, seed: int) -> None:
    store = BlockStore(folder)
    for number in range(10):
        store.add(big(seed + number, 300_000))


def test_processes_add_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_add_many, args=(tmp_path, seed)) for seed in (0, 5)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    store = BlockStore(tmp_path)
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert len(store.pins()) == 15
    assert all(store.verify(cid).ok for cid in store.pins())


def test_a_pipe_that_gives_little_at_a_time_makes_the_same_file(tmp_path: Path) -> None:
    class Trickle(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            return super().read(min(size or 0, 4097))

    store = BlockStore(tmp_path)
    assert store.add(Trickle(big(3))) == store.add(big(3))


def test_files_larger_than_memory_pass_through(tmp_path: Path) -> None:
    source = tmp_path / "large"
    with source.open("wb") as file:
        for number in range(160):
            file.write(os.urandom(16) * 65536 + bytes([number]))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    store = BlockStore(tmp_path / "store")
    seen: list[int] = []
    cid = store.add(source, seen.append)
    assert sum(seen) == source.stat().st_size
    assert sum(map(len, store.read(cid))) == source.stat().st_size
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 60_000  # KiB, of 160 MiB


def test_reading_a_part_opens_only_its_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "CHUNK_BYTES", 100)
    store = BlockStore(tmp_path)
    content = b"".join(number.to_bytes(2, "big") for number in range(500))
    cid = store.add(content)
    leaves = list(store.walk(cid))[1:]
    block_path(store, str(leaves[0])).unlink()
    assert b"".join(store.read(cid, 500, 100)) == content[500:600]
