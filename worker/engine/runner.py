"""Owner of every tensor: the stage's weights, the sequences' caches, and the input that waits to be computed."""

import itertools
from collections import deque
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from declai.protocol.rows import is_finite
from declai.worker.engine.errors import InvalidInput
from declai.worker.engine.memory.prefix import Hit
from declai.worker.engine.turns.step import Chunk
from declai.worker.model.cache import StageCache, cache_bytes
from declai.worker.model.layout import Lane
from declai.worker.model.packed import Pool, Segment
from declai.worker.model.stage import Stage
from declai.worker.model.static_decode import StaticDecode

Payload = bytes | bytearray | memoryview | torch.Tensor | NDArray[np.generic] | Sequence[int]
TOKEN_ID_BYTES = 4
NOT_FINITE = "hidden states are not finite; the stage before is broken or hostile"


class Runner:
    """Checks and holds input, runs forwards. One sequence's state is reached by its id alone."""

    def __init__(self, stage: Stage, max_chunk_tokens: int, pool: Pool | None, *, records_steps: bool = False) -> None:
        """`pool`: where the sequences' lanes lie, if the stage packs them."""
        self.stage = stage
        self.row_bytes = TOKEN_ID_BYTES if stage.is_first else stage.bytes_per_row
        self._max_chunk_tokens = max_chunk_tokens
        self._pool = pool
        self._static = None
        if records_steps and pool is not None and stage.device.type == "cuda":
            self._static = StaticDecode(stage, pool, records=True)
        self._lanes: dict[bytes, tuple[Lane, ...]] = {}
        self._caches: dict[bytes, StageCache] = {}
        self._inboxes: dict[bytes, deque[torch.Tensor]] = {}

    def bytes_besides(self, num_prompt_tokens: int, max_positions: int) -> int:
        """The most memory a sequence takes beside its blocks: a whole prompt in its inbox, and a cache of its own where
        the stage does not pack."""
        stage, inbox_bytes = self.stage, num_prompt_tokens * self.row_bytes
        if self._pool is not None:
            return inbox_bytes
        return inbox_bytes + cache_bytes(
            stage.architecture,
            stage.first_layer,
            stage.end_layer,
            max_positions,
            self._max_chunk_tokens,
            stage.cache_dtype.itemsize,
        )

    def open(self, sequence_id: bytes, max_positions: int, lanes: tuple[Lane, ...]) -> None:
        """`lanes`: where in the pool the sequence's rows go."""
        if self._pool is not None:
            self._lanes[sequence_id] = lanes
        else:
            self._caches[sequence_id] = self.stage.new_cache(max_positions, self._max_chunk_tokens)
        self._inboxes[sequence_id] = deque()

    def close(self, sequence_id: bytes) -> None:
        self._lanes.pop(sequence_id, None)
        self._caches.pop(sequence_id, None)
        self._inboxes.pop(sequence_id, None)

    def parse(self, payload: Payload) -> torch.Tensor:
        """Token ids as int64 [tokens] or hidden states as [tokens, hidden_size] in the stage's dtype, on the CPU.

        Raw bytes are u32 little-endian ids or row-major hidden states in the stage's dtype. Raises InvalidInput.
        """
        return self._parse_token_ids(payload) if self.stage.is_first else self._parse_hidden(payload)

    def put(self, sequence_id: bytes, inputs: torch.Tensor) -> None:
        self._inboxes[sequence_id].append(inputs.to(self.stage.device))

    def take(self, chunks: Sequence[Chunk]) -> torch.Tensor:
        """The input of chunks, laid end to end, off their sequences' inboxes."""
        pieces = [self._take(chunk) for chunk in chunks]
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces)

    def run(self, chunks: Sequence[Chunk], inputs: torch.Tensor) -> NDArray[np.uint8]:
        """Compute chunks; returns their hidden states as bytes, uint8 [tokens, bytes per row] on the CPU."""
        if self._pool is not None:
            segments = self._segments(chunks)
            if self._static is not None and self._static.takes(segments):
                hidden = self._static.run(inputs, segments)
            else:
                hidden = self.stage.forward_packed(inputs, segments, self._pool)
        else:
            (chunk,) = chunks
            hidden = self.stage.forward(inputs, self._caches[chunk.sequence_id])
        return as_bytes(hidden)

    def reuse(self, chunk: Chunk, hit: Hit) -> None:
        """Copy what was found instead of computing a chunk."""
        assert self._pool is not None
        for source, target, first in zip(hit.lanes, self._lanes[chunk.sequence_id], hit.firsts, strict=True):
            if first > chunk.first_position:  # a ring that goes round is read whole, and 0 times NaN is NaN
                self._pool.clear(target.runs)
            if first < chunk.end:
                self._pool.copy(source.cut(first, chunk.end), target.cut(first, chunk.end))

    def run_logits(self, chunks: Sequence[Chunk], inputs: torch.Tensor) -> NDArray[np.float32]:
        """Compute chunks at the last stage; returns the logits after each, float32 [chunks, vocab_size], on the CPU."""
        if self._pool is not None:
            segments = self._segments(chunks)
            if self._static is not None and self._static.takes(segments):
                logits = self._static.run(inputs, segments)
            else:
                last = [end - 1 for end in itertools.accumulate(chunk.num_tokens for chunk in chunks)]
                logits = self.stage.forward_packed_logits(inputs, segments, self._pool, last)
        else:
            (chunk,) = chunks
            logits = self.stage.forward_logits(inputs, self._caches[chunk.sequence_id]).unsqueeze(0)
        found: NDArray[np.float32] = logits.cpu().numpy()
        return found

    def check_integrity(self, sequence_ids: set[bytes]) -> None:
        held = self._caches if self._pool is None else self._lanes
        assert set(held) == set(self._inboxes) == sequence_ids, "tensors and open sequences differ"

    def _segments(self, chunks: Sequence[Chunk]) -> list[Segment]:
        return [Segment(chunk.first_position, chunk.num_tokens, self._lanes[chunk.sequence_id]) for chunk in chunks]

    def _take(self, chunk: Chunk) -> torch.Tensor:
        """The chunk's inputs off the front of the inbox, whatever the pieces they came in."""
        inbox, missing, taken = self._inboxes[chunk.sequence_id], chunk.num_tokens, []
        while missing:
            piece = inbox.popleft()
            if len(piece) > missing:
                inbox.appendleft(piece[missing:])
                piece = piece[:missing]
            taken.append(piece)
            missing -= len(piece)
        return taken[0] if len(taken) == 1 else torch.cat(taken)

    def _parse_token_ids(self, payload: Payload) -> torch.Tensor:
        try:
            if isinstance(payload, bytes | bytearray | memoryview):
                token_ids = np.frombuffer(payload, dtype="<u4").astype(np.int64)
            else:
                token_ids = np.asarray(payload)
                if not np.issubdtype(token_ids.dtype, np.integer) or token_ids.ndim != 1:
                    raise InvalidInput(f"token ids must be a list of integers, not {token_ids.dtype} {token_ids.shape}")
                token_ids = token_ids.astype(np.int64)
        except (ValueError, TypeError, OverflowError) as error:
            raise InvalidInput(f"token ids must be u32 little-endian: {error}") from error
        vocab_size = self.stage.architecture.vocab_size
        if len(token_ids) and not 0 <= int(token_ids.min()) <= int(token_ids.max()) < vocab_size:
            raise InvalidInput(f"token ids from {token_ids.min()} to {token_ids.max()}, the model has {vocab_size}")
        return torch.from_numpy(token_ids)

    def _parse_hidden(self, payload: Payload) -> torch.Tensor:
        if isinstance(payload, bytes | bytearray | memoryview):
            return self._parse_hidden_bytes(payload)
        hidden_size, dtype = self.stage.architecture.hidden_size, self.stage.dtype
        if not isinstance(payload, torch.Tensor | np.ndarray):
            raise InvalidInput(f"hidden states must be bytes, a tensor or an array, not {type(payload).__name__}")
        rows = torch.as_tensor(payload)
        if rows.ndim != 2 or rows.shape[1] != hidden_size or rows.dtype != dtype:
            raise InvalidInput(f"hidden states {rows.dtype} {tuple(rows.shape)}, expected {dtype} [n, {hidden_size}]")
        if not bool(torch.isfinite(rows).all()):
            raise InvalidInput(NOT_FINITE)
        return rows.cpu()

    def _parse_hidden_bytes(self, payload: bytes | bytearray | memoryview) -> torch.Tensor:
        hidden_size, dtype = self.stage.architecture.hidden_size, self.stage.dtype
        num_bytes = memoryview(payload).nbytes
        if num_bytes % self.row_bytes:
            raise InvalidInput(f"{num_bytes} bytes are no whole rows of {self.row_bytes} ({hidden_size} x {dtype})")
        # By numpy: for one row torch's way takes several times as long.
        if not is_finite(payload, str(dtype).removeprefix("torch.")):  # type: ignore[arg-type]
            raise InvalidInput(NOT_FINITE)
        # Copied: a received frame is read-only and may lie at any address.
        rows = torch.frombuffer(bytearray(payload), dtype=dtype) if num_bytes else torch.empty(0, dtype=dtype)
        return rows.view(-1, hidden_size)


def as_bytes(tensor: torch.Tensor) -> NDArray[np.uint8]:
    """uint8 [rows, bytes per row] on the CPU; of a tensor without rows, uint8 [bytes]."""
    found: NDArray[np.uint8] = tensor.cpu().contiguous().view(torch.uint8).numpy()
    return found
