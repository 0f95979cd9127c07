"""Whose turn it is. Pure Python: it counts positions and knows neither tensors nor models.

A step takes the next token of every sequence that has one waiting, and chunks of prompts. While sequences decode, the
prompts' share of a step is small: a long prompt then takes more steps, and nobody's next token waits for it.
Where there is not room for all, each kind has its turns in a fair queue.
"""

from dataclasses import dataclass

from declai.worker.engine.errors import PositionMismatch
from declai.worker.engine.turns.budget import MIN_TOKENS, SHARE, Rush, alone_s, beside_s, num_tokens_in, piece
from declai.worker.engine.turns.fairness import FairQueue
from declai.worker.engine.turns.groups import Groups
from declai.worker.engine.turns.step import Chunk, EngineStep, Wait
from declai.worker.engine.turns.times import StepTimes


@dataclass
class _Progress:
    num_prompt_tokens: int
    max_positions: int
    num_fed: int = 0
    num_computed: int = 0
    is_held: bool = False

    @property
    def num_waiting(self) -> int:
        return self.num_fed - self.num_computed

    @property
    def is_decoding(self) -> bool:
        return self.num_computed >= self.num_prompt_tokens

    def chunk(self, sequence_id: bytes, num_tokens: int) -> Chunk:
        """The next so many positions."""
        num_prompt_tokens = max(0, min(num_tokens, self.num_prompt_tokens - self.num_computed))
        return Chunk(sequence_id, self.num_computed, num_tokens, num_prompt_tokens)


class Scheduler:
    """Owner of the queues of sequences that have input waiting."""

    def __init__(
        self,
        max_prefill_tokens: int,
        max_mixed_prefill_tokens: int,
        max_sequences: int,
        *,
        samples: bool,
    ) -> None:
        """
        Args:
            max_prefill_tokens: the most prompt tokens in a step while no sequence decodes (see `budget`).
            max_mixed_prefill_tokens: the same while others decode.
            max_sequences: sequences in a step.
            samples: whether each position from a prompt's end on needs a step of its own, to draw a token after it.
        """
        self._max_prefill_tokens = max_prefill_tokens
        self._max_decode_tokens = 1 if samples else max_prefill_tokens
        self._samples = samples
        self._max_mixed_tokens = min(max_mixed_prefill_tokens, max_prefill_tokens)
        self._max_sequences = max_sequences
        self._times = StepTimes()
        self._groups = Groups(self._times)
        self._prompts_turn = self._prompts_went_alone = False
        self._rush = Rush()
        self._sequences: dict[bytes, _Progress] = {}
        self._prompts = FairQueue()
        self._decoding = FairQueue()

    @property
    def has_waiting(self) -> bool:
        return bool(self._prompts or self._decoding)

    def add(
        self,
        sequence_id: bytes,
        num_prompt_tokens: int,
        max_positions: int,
        *,
        weight: float = 1.0,
        num_stages: int = 1,
    ) -> None:
        """
        Args:
            weight: the sequence's share of a busy stage, relative to the others'.
            num_stages: that its tokens go through until the next one comes, here; 1 where that is no concern.
        """
        self._sequences[sequence_id] = _Progress(num_prompt_tokens, max_positions)
        self._groups.add(sequence_id, num_stages)
        for queue in (self._prompts, self._decoding):
            queue.add(sequence_id, weight)

    def check_feed(self, sequence_id: bytes, first_position: int, num_tokens: int) -> None:
        """Raises PositionMismatch unless these positions continue the sequence and stay within it."""
        progress = self._sequences[sequence_id]
        if first_position != progress.num_fed:
            raise PositionMismatch(f"input starts at position {first_position}, expected {progress.num_fed}")
        if num_tokens < 1 or first_position + num_tokens > progress.max_positions:
            raise PositionMismatch(
                f"{num_tokens} positions from {first_position} on; the sequence ends at {progress.max_positions}"
            )

    def feed(self, sequence_id: bytes, num_tokens: int, now: float) -> None:
        progress = self._sequences[sequence_id]
        progress.num_fed += num_tokens
        if progress.is_decoding:
            self._groups.come_back(sequence_id, now)
        if not progress.is_held:
            self._queue_of(progress).wait(sequence_id)

    def hold(self, sequence_id: bytes, held: bool) -> None:
        """Give a sequence no turns, or turns again; does nothing when it is unknown."""
        progress = self._sequences.get(sequence_id)
        if progress is None or progress.is_held == held:
            return
        progress.is_held = held
        if held:
            self._queue_of(progress).pause(sequence_id)
        elif progress.num_waiting:
            self._queue_of(progress).wait(sequence_id)

    def skippable(self) -> list[tuple[bytes, int]]:
        """Sequences that wait, and the position up to which none needs a step of its own: all but a prompt's last token
        and what follows it, where tokens are drawn."""
        found = []
        for sequence_id, progress in self._sequences.items():
            end = min(progress.num_fed, progress.num_prompt_tokens - 1) if self._samples else progress.num_fed
            if end > progress.num_computed and not progress.is_held:
                found.append((sequence_id, end))
        return found

    def skip(self, sequence_id: bytes, end: int) -> Chunk:
        """Count the positions before `end` as computed, out of turn; returns those that were not yet."""
        progress = self._sequences[sequence_id]
        chunk = progress.chunk(sequence_id, end - progress.num_computed)
        self._queue_of(progress).rest(sequence_id)
        progress.num_computed = end
        if progress.num_waiting:
            self._queue_of(progress).wait(sequence_id)
        return chunk

    def next_step(self, now: float) -> EngineStep | Wait:
        """What to do now; a step's positions count as computed from here on. Call `took` when it is."""
        seconds = self.wait_s(now)
        return EngineStep(self._schedule(now)) if seconds == 0 else Wait(seconds)

    def wait_s(self, now: float) -> float | None:
        """Seconds until a step is worth it (see Groups); None while nothing waits.

        Prompts fill the time until the next group is back where there is enough of it, or else go with that group.
        Where they rush nothing is waited for.
        """
        if not self.has_waiting:
            return None
        if decoding := self._decoding.in_order():
            return 0.0 if self._prompts and self._rushes() else self._groups.wait_s(decoding, now)
        return 0.0 if self._has_time_for_prompts(now) else self._groups.late_in_s(now)

    def took(self, step: EngineStep, seconds: float, processor_s: float) -> None:
        """How long a step took, and for how much of that time it had a processor."""
        self._times.note(step.num_decoding, step.num_prompt_tokens, processor_s)
        self._groups.note_processor_share(processor_s / seconds)

    def remove(self, sequence_id: bytes) -> None:
        self._sequences.pop(sequence_id, None)
        self._groups.remove(sequence_id)
        for queue in (self._prompts, self._decoding):
            queue.remove(sequence_id)

    def check_integrity(self) -> None:
        for sequence_id, progress in self._sequences.items():
            for queue in (self._prompts, self._decoding):
                waits = progress.num_waiting > 0 and not progress.is_held and queue is self._queue_of(progress)
                assert (sequence_id in queue) == waits, "the queues and the counts differ"
        assert len(self._prompts) + len(self._decoding) <= len(self._sequences), "somebody unknown waits"

    def _queue_of(self, progress: _Progress) -> FairQueue:
        return self._decoding if progress.is_decoding else self._prompts

    def _schedule(self, now: float) -> list[Chunk]:
        """The next step's chunks, one per sequence, decoding sequences first."""
        decoding = self._decoding.in_order()
        decoding = decoding[: min(self._max_sequences, self._groups.largest(decoding, now))]
        if self._prompts and len(decoding) == self._max_sequences:  # no room for both: by turns
            self._prompts_turn = not self._prompts_turn
            decoding = decoding[:-1] if self._prompts_turn else decoding
        prompts = self._prompts.in_order()[: self._max_sequences - len(decoding)]
        chunks = [self._take(name, self._max_decode_tokens) for name in decoding]
        some_decode, (budget, more) = self._num_decoding > 0, self._prefill_budget(len(decoding), now)
        for name in prompts:
            if budget > 0:
                num_waiting = self._sequences[name].num_waiting
                chunks.append(self._take(name, num_waiting if num_waiting <= budget + more else budget))
                budget -= chunks[-1].num_tokens
        self._prompts_went_alone = some_decode and not decoding
        self._groups.step(decoding, now, with_prompts=len(chunks) > len(decoding))
        return chunks

    def _prefill_budget(self, num_sequences: int, now: float) -> tuple[int, int]:
        """Prompt tokens for a step with so many decoding sequences, and how many more to come to a prompt's end."""
        if not self._num_decoding:
            return piece(self._times, self._max_prefill_tokens)
        if self._rushes():
            return piece(self._times, self._max_mixed_tokens)
        ratio = len(self._prompting) / self._num_decoding
        if num_sequences and self._prompts_went_alone and ratio <= SHARE:
            return 0, 0
        group_size = max(1, self._groups.largest((), now))
        if num_sequences or self._decoding or not self._groups.late_in_s(now):
            seconds = beside_s(self._times, num_sequences or group_size, ratio)
        else:
            seconds = alone_s(self._times, self._groups.free_s(now), group_size, ratio)
        return num_tokens_in(self._times, seconds, self._max_mixed_tokens), 0

    def _rushes(self) -> bool:
        left = [progress.num_prompt_tokens - progress.num_computed for progress in self._prompting]
        return self._rush.is_on(self._times, len(left), sum(left), self._num_decoding)

    def _has_time_for_prompts(self, now: float) -> bool:
        """While no decoding sequence waits."""
        return not self._num_decoding or self._prefill_budget(0, now)[0] > min(MIN_TOKENS, self._max_mixed_tokens - 1)

    @property
    def _num_decoding(self) -> int:
        return sum(progress.is_decoding for progress in self._sequences.values())

    @property
    def _prompting(self) -> list[_Progress]:
        """Sequences that wait for their first token, also where the stage before is not done with their prompts."""
        return [progress for progress in self._sequences.values() if not (progress.is_decoding or progress.is_held)]

    def _take(self, sequence_id: bytes, max_tokens: int) -> Chunk:
        """Count a sequence's next positions as computed, and put its next turn back."""
        progress = self._sequences[sequence_id]
        num_tokens = min(progress.num_waiting, max_tokens)
        if self._samples and not progress.is_decoding:
            num_tokens = min(num_tokens, progress.num_prompt_tokens - progress.num_computed)
        chunk = progress.chunk(sequence_id, num_tokens)
        queue = self._queue_of(progress)
        progress.num_computed += num_tokens
        stays = queue is self._queue_of(progress)
        queue.serve(sequence_id, num_tokens, waits=stays and progress.num_waiting > 0)
        if progress.num_waiting and not stays:
            self._decoding.wait(sequence_id)
        return chunk
