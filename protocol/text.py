"""Text out of token ids as they come, and where it ends. Torch-free; node, gateway and client hold to this one rule.

All of it is a function of the whole sequence: however a stream is cut into pieces, the same text and end come out.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer

_REPLACEMENT = "\ufffd"
# A character spans at most 4 byte tokens; a long run without one is not UTF-8 and is let go, replacement signs and all.
_MAX_PENDING_TOKENS = 16


class IncrementalDetokenizer:
    """Turns token ids into text piece by piece, decoding only the last few tokens at each step.

    A piece is held back while it ends inside a character. Special tokens give no text.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._special_ids = {
            token_id for token_id, token in tokenizer.get_added_tokens_decoder().items() if token.special
        }
        # Decoders look at neighbours (a first token loses its space), so pending tokens are decoded after the last
        # ones that gave text, and what these gave is taken off the front.
        self._context: list[int] = []
        self._context_text = ""
        self._pending: list[int] = []

    def push(self, token_id: int) -> str:
        """Add a token; returns the text that is now certain, often ''."""
        if token_id in self._special_ids:
            return ""
        self._pending.append(token_id)
        text = self._decode(self._context + self._pending)
        if len(text) <= len(self._context_text) and len(self._pending) < _MAX_PENDING_TOKENS:
            return ""
        if text.endswith(_REPLACEMENT) and len(self._pending) < _MAX_PENDING_TOKENS:
            return ""
        return self._emit(text)

    def flush(self) -> str:
        """The text still held back; to be called once, after the last token."""
        return self._emit(self._decode(self._context + self._pending)) if self._pending else ""

    def _emit(self, text: str) -> str:
        piece = text[len(self._context_text) :]
        self._context, self._pending = self._pending, []
        self._context_text = self._decode(self._context)
        return piece

    def _decode(self, token_ids: list[int]) -> str:
        return self._tokenizer.decode(token_ids, skip_special_tokens=False)


@dataclass(frozen=True)
class Matched:
    """Text that may be shown, and the stop string that ended it, or None while none has been seen."""

    text: str
    stop: str | None


class StopMatcher:
    """Looks for stop strings in a stream of text, and holds back what may be the beginning of one.

    The stop string that is complete first ends the text (of several complete at the same character, the longest); the
    text ends where it begins.
    """

    def __init__(self, stop_strings: Sequence[str]) -> None:
        if any(not stop for stop in stop_strings):
            raise ValueError("a stop string must not be empty")
        self._stop_strings = tuple(stop_strings)
        self._held = ""
        self._ended = False

    def push(self, piece: str) -> Matched:
        """Add text; returns what is certain to precede any stop string. After a match everything is swallowed."""
        if self._ended:
            return Matched("", None)
        text = self._held + piece
        first = min(
            ((at + len(stop), at, stop) for stop in self._stop_strings if (at := text.find(stop)) >= 0),
            default=None,
        )
        if first is not None:
            self._ended, self._held = True, ""
            return Matched(text[: first[1]], first[2])
        num_held = self._num_chars_of_possible_stop(text)
        certain, self._held = text[: len(text) - num_held], text[len(text) - num_held :]
        return Matched(certain, None)

    def flush(self) -> str:
        """The text held back, once it is known that no more comes."""
        held, self._held = self._held, ""
        return held

    def _num_chars_of_possible_stop(self, text: str) -> int:
        longest = 0
        for stop in self._stop_strings:
            for length in range(min(len(stop) - 1, len(text)), longest, -1):
                if text.endswith(stop[:length]):
                    longest = length
                    break
        return longest


class OutputText:
    """The text of one output: whole characters, up to the first stop string or end-of-sequence token.

    `ended` once one of them came; tokens after it give no text. Without a tokenizer no text is made, and only
    end-of-sequence tokens are seen: all that a node needs where there are no stop strings.
    """

    def __init__(
        self, tokenizer: Tokenizer | None, stop_strings: Sequence[str] = (), eos_token_ids: Collection[int] = ()
    ) -> None:
        """`eos_token_ids`: empty where the output goes on after them. Raises ValueError for an empty stop string."""
        self._detokenizer = IncrementalDetokenizer(tokenizer) if tokenizer is not None else None
        self._matcher = StopMatcher(stop_strings)
        self._eos_token_ids = frozenset(eos_token_ids)
        self.ended = False

    def push(self, token_id: int) -> str:
        """Add a token; returns the text that is now certain, often ''."""
        if self.ended:
            return ""
        if token_id in self._eos_token_ids:
            text = self.flush()  # what was held back before the end of the sequence is certain now
            self.ended = True
            return text
        return self._match(self._detokenizer.push(token_id)) if self._detokenizer is not None else ""

    def flush(self) -> str:
        """The text still held back; to be called once, after the last token."""
        if self.ended or self._detokenizer is None:
            return ""
        text = self._match(self._detokenizer.flush())
        return text if self.ended else text + self._matcher.flush()

    def _match(self, piece: str) -> str:
        matched = self._matcher.push(piece)
        self.ended = matched.stop is not None
        return matched.text
