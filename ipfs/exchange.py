"""Blocks from other peers by the trustless-gateway protocol (https://specs.ipfs.tech/http-gateways/trustless-gateway/).

A peer is a base URL; a block is `GET {base}/ipfs/{cid}?format=raw`. Every block is hashed before it is kept, so a peer
can be slow or silent but cannot lie. Blocks that are here already are not fetched: a broken download resumes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import httpx

from declai.ipfs.cid import RAW, Cid
from declai.ipfs.errors import CorruptBlock, FetchFailed, InvalidBlock, InvalidCid, MissingBlock
from declai.ipfs.store import BlockStore
from declai.ipfs.unixfs import MAX_BLOCK_BYTES, MAX_DEPTH, Link, decode

RAW_BLOCK = "application/vnd.ipld.raw"
NUM_PARALLEL = 8
TIMEOUT_S = 30.0  # without a byte
BLOCK_TIMEOUT_S = 120.0
IMMUTABLE = "public, max-age=29030400, immutable"

Fetch = Callable[[str], None]


class Exchange:
    """Fetches DAGs into a store from peers, the first one that delivers."""

    def __init__(self, store: BlockStore, base_urls: Sequence[str], *, timeout_s: float = TIMEOUT_S) -> None:
        self._store = store
        self._base_urls = [url.rstrip("/") for url in base_urls]
        self._client = httpx.Client(timeout=timeout_s, headers={"Accept": RAW_BLOCK}, follow_redirects=False)

    def close(self) -> None:
        self._client.close()

    def fetch(self, cid: str, progress: Callable[[int], None] | None = None) -> None:
        """Make a whole DAG present, several blocks at once. `progress` gets the bytes of each leaf.

        Raises:
            FetchFailed: no peer has a block of it, or all that they sent for it was wrong.
        """
        root = Cid.parse(cid)
        level = [Link(root, 0, -1)]
        with ThreadPoolExecutor(NUM_PARALLEL) as pool:
            for _ in range(MAX_DEPTH + 1):
                blocks = pool.map(self._get, (link.cid for link in level))
                below: list[Link] = []
                for link, block in zip(level, blocks, strict=True):
                    if link.cid.codec != RAW:
                        below.extend(decode(block).links)
                    elif progress:
                        progress(len(block))
                if not below:
                    return
                level = below
        raise InvalidBlock(f"the DAG at {cid} is deeper than any file of ours")

    def _get(self, cid: Cid) -> bytes:
        try:
            return self._store.get_block(cid)
        except (MissingBlock, CorruptBlock):
            pass
        problems = []
        for base_url in self._base_urls:
            try:
                block = self._download(f"{base_url}/ipfs/{cid}?format=raw")
                self._store.put_block(cid, block)
            except (httpx.HTTPError, httpx.InvalidURL, UnicodeError, CorruptBlock, FetchFailed) as error:
                problems.append(f"{base_url}: {error or type(error).__name__}")
            else:
                return block
        raise FetchFailed(f"block {cid} came from no peer: " + ("; ".join(problems) or "no peer is known"))

    def _download(self, url: str) -> bytes:
        deadline = time.monotonic() + BLOCK_TIMEOUT_S
        with self._client.stream("GET", url) as response:
            if response.status_code != 200:
                raise FetchFailed(f"HTTP {response.status_code}")
            block = bytearray()
            for part in response.iter_bytes():
                block += part
                if len(block) > MAX_BLOCK_BYTES:
                    raise FetchFailed("the answer is larger than any block")
                if time.monotonic() > deadline:
                    raise FetchFailed(f"the block was not here after {BLOCK_TIMEOUT_S:g} s")
            return bytes(block)


def raw_block_response(store: BlockStore, cid: str) -> tuple[int, dict[str, str], bytes]:
    """(status, headers, body) for `GET /ipfs/{cid}`: raw blocks alone, which whoever asks can verify."""
    try:
        parsed = Cid.parse(cid)
        block = store.get_block(parsed)
    except InvalidCid as error:
        return 400, {"Content-Type": "text/plain"}, str(error).encode()
    except (MissingBlock, CorruptBlock):
        return 404, {"Content-Type": "text/plain"}, f"no block {cid}".encode()
    headers = {
        "Content-Type": RAW_BLOCK,
        "Cache-Control": IMMUTABLE,
        "Etag": f'"{cid}.raw"',
        "X-Content-Type-Options": "nosniff",
        "Content-Disposition": f'attachment; filename="{cid}.bin"',
    }
    return 200, headers, block
