"""Blocks over HTTP: whole files come, lies do not, and what broke off goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from declai.ipfs.errors import FetchFailed
from declai.ipfs.exchange import Exchange, raw_block_response
from declai.ipfs.store import BlockStore
from tests.support.block_peers import Peer, serve

CONTENT = b"".join(bytes([number]) * 700_000 for number in range(6))


def test_a_file_comes_whole_and_only_what_is_missing_is_asked_for(tmp_path: Path) -> None:
    peer = Peer(BlockStore(tmp_path / "theirs"))
    cid = peer.store.add(CONTENT)
    mine = BlockStore(tmp_path / "mine")
    with serve(peer) as url:
        exchange = Exchange(mine, [url])
        seen: list[int] = []
        exchange.fetch(cid, seen.append)
        assert b"".join(mine.read(cid)) == CONTENT
        assert sum(seen) == len(CONTENT)
        num_asked = len(peer.asked)
        exchange.fetch(cid)
        assert len(peer.asked) == num_asked
        exchange.close()


def test_a_broken_download_goes_on_where_it_broke(tmp_path: Path) -> None:
    peer = Peer(BlockStore(tmp_path / "theirs"))
    cid = peer.store.add(CONTENT)
    mine = BlockStore(tmp_path / "mine")
    peer.answer, peer.after = (503, b""), 3
    with serve(peer) as url:
        exchange = Exchange(mine, [url])
        with pytest.raises(FetchFailed, match="503"):
            exchange.fetch(cid)
        got = [asked for asked in peer.asked if mine.has(asked)]
        assert len(got) == 3
        peer.answer, peer.asked = None, []
        exchange.fetch(cid)
        assert not set(got) & set(peer.asked)
        assert mine.verify(cid).ok
        exchange.close()


@pytest.mark.parametrize(
    "answer", [(200, b"lies"), (200, b""), (200, bytes(5 * 2**20)), (404, b""), (302, b""), (200, CONTENT[:700_000])]
)
def test_a_liar_is_passed_over_for_an_honest_peer(tmp_path: Path, answer: tuple[int, bytes]) -> None:
    honest, liar = Peer(BlockStore(tmp_path / "theirs")), Peer(BlockStore(tmp_path / "liar"))
    liar.answer = answer
    cid = honest.store.add(CONTENT)
    mine = BlockStore(tmp_path / "mine")
    with serve(honest) as good, serve(liar) as bad:
        exchange = Exchange(mine, [bad, good])
        exchange.fetch(cid)
        assert mine.verify(cid).ok
        exchange.close()
        alone = Exchange(BlockStore(tmp_path / "alone"), [bad])
        with pytest.raises(FetchFailed):
            alone.fetch(cid)
        assert not list((tmp_path / "alone" / "blocks").glob("*/*"))
        alone.close()


def test_a_damaged_block_of_ours_is_fetched_again(tmp_path: Path) -> None:
    peer = Peer(BlockStore(tmp_path / "theirs"))
    cid = peer.store.add(b"content")
    mine = BlockStore(tmp_path / "mine")
    mine.add(b"content")
    next(mine.folder.glob(f"blocks/*/{cid}")).write_bytes(b"damaged")
    with serve(peer) as url:
        exchange = Exchange(mine, [url])
        exchange.fetch(cid)
        exchange.close()
    assert b"".join(mine.read(cid)) == b"content"


@pytest.mark.parametrize("path", ["", "..", "../../etc/passwd", "Qm" + "a" * 44, "b" * 59, "%00", "bafy"])
def test_nothing_but_blocks_is_served(tmp_path: Path, path: str) -> None:
    status, _, _ = raw_block_response(BlockStore(tmp_path), path)
    assert status in (400, 404)


@pytest.mark.parametrize("url", ["http://[no host", "http://" + "n" * 300, "ftp://peer", "http://\0", "nonsense"])
def test_an_address_that_is_none_counts_as_a_silent_peer(tmp_path: Path, url: str) -> None:
    """Peers' addresses come from the registry, where anybody may write anything."""
    there, here = BlockStore(tmp_path / "there"), BlockStore(tmp_path / "here")
    cid = there.add(CONTENT)
    with serve(Peer(there)) as good:
        Exchange(here, [url, good]).fetch(cid)
    with pytest.raises(FetchFailed, match="came from no peer"):
        Exchange(BlockStore(tmp_path / "alone"), [url]).fetch(cid)


def test_a_peer_that_drips_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("declai.ipfs.exchange.BLOCK_TIMEOUT_S", 0.0)
    there = BlockStore(tmp_path / "there")
    cid = there.add(CONTENT)
    with serve(Peer(there)) as slow, pytest.raises(FetchFailed, match="the block was not here after 0 s"):
        Exchange(BlockStore(tmp_path / "here"), [slow]).fetch(cid)
