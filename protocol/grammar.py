"""Output held to a grammar: which tokens may come next, by llguidance. Torch-free; gateways check with the same code.

Grammars come from strangers. A mask takes microseconds for what people ask; the limits below end what would take more
than some milliseconds of an engine's time, or more than about 50 MB.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Literal

import numpy as np
from llguidance import LLMatcher, LLParserLimits, LLTokenizer
from numpy.typing import NDArray
from tokenizers import Tokenizer

from declai.protocol.errors import InvalidGrammar
from declai.protocol.options import Grammar
from declai.protocol.sampling import Logits

# Between JSON's parts, unless the schema's own `x-guidance` says otherwise: a space, or a new line and its indentation.
# Without a bound, models that have nothing to say go on with white space until their tokens are used up.
WHITESPACE = r"\x20|\n[\x20\t]{0,32}"


def _limits() -> LLParserLimits:
    return LLParserLimits(
        initial_lexer_fuel=500_000,
        step_lexer_fuel=20_000,
        step_max_items=20_000,
        max_lexer_states=20_000,
        verbose_errors=False,
    )


class Constraint:
    """One output's way through its grammar. `allowed`: bool [vocab_size], the tokens that may come next.

    The end-of-sequence tokens are allowed exactly where the grammar may end. `ended` is set by the token after which
    nothing may come ("stop"), or after which the grammar is too complex to be followed ("length": the output is cut).
    """

    def __init__(self, matcher: LLMatcher, vocab_size: int) -> None:
        """Raises InvalidGrammar when the grammar has no output, or is too complex from the first token on."""
        self.ended: Literal["stop", "length"] | None = None
        self._matcher = matcher
        self._vocab_size = vocab_size
        self.allowed = self._next()
        if matcher.is_error() or not self.allowed.any():
            problem = matcher.get_error().partition("\n")[0]
            nothing = problem in ("", "NoExtensionBias")  # llguidance's word for it
            raise InvalidGrammar("no output matches it" if nothing else problem[:200])

    def masked(self, logits: Logits) -> Logits:
        """A copy of logits with -infinity where a token may not come."""
        masked: Logits = np.where(self.allowed, logits, np.float32(-np.inf))
        return masked

    def accept(self, token_id: int) -> None:
        """Go on by a token that was allowed."""
        self._matcher.consume_token(token_id)
        if not self._matcher.is_stopped():
            self.allowed = self._next()
        if self._matcher.is_error() or not self.allowed.any():
            self.ended = "length"
        elif self._matcher.is_stopped():
            self.ended = "stop"

    def _next(self) -> NDArray[np.bool_]:
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        return np.unpackbits(bits, count=self._vocab_size, bitorder="little").view(np.bool_)


class GrammarCompiler:
    """Grammars over the tokens of one model. Thread-safe.

    A compilation takes some milliseconds, and a tenth of a second where the limits end it; other threads run meanwhile.
    """

    def __init__(self, tokenizer: Tokenizer, vocab_size: int, eos_token_ids: Sequence[int]) -> None:
        """`vocab_size`: of the logits."""
        self._tokenizer = tokenizer
        self._vocab_size = vocab_size
        self._eos_token_ids = eos_token_ids
        self._lock = threading.Lock()
        self._tokens: LLTokenizer | None = None

    def load(self) -> LLTokenizer:
        """Sort the tokens, the first time: up to two seconds for 128,000 tokens, in which no other thread runs.

        Raises:
            InvalidGrammar: the tokenizer is of a kind that cannot be followed.
        """
        with self._lock:
            if self._tokens is None:
                num_tokens = max(self._vocab_size, self._tokenizer.get_vocab_size(with_added_tokens=True))
                eos = [token_id for token_id in self._eos_token_ids if token_id < num_tokens]
                try:
                    self._tokens = LLTokenizer(self._tokenizer.to_str(), n_vocab=num_tokens, eos_token=eos or None)
                except ValueError as error:
                    raise InvalidGrammar(f"no grammar goes with this model's tokenizer: {error}") from None
            return self._tokens

    def constraint(self, grammar: Grammar) -> Constraint:
        """A fresh way through a grammar. Raises InvalidGrammar, whose text says what is wrong with it."""
        tokens = self.load()
        try:
            source = _source(grammar)
        except ValueError as error:
            raise InvalidGrammar(f"the schema is no JSON object: {str(error)[:200]}") from None
        matcher = LLMatcher(tokens, source, log_level=0, limits=_limits())
        if matcher.is_error():
            raise InvalidGrammar(matcher.get_error()[:400])
        return Constraint(matcher, self._vocab_size)


def _source(grammar: Grammar) -> str:
    if grammar.kind == "regex":
        return LLMatcher.grammar_from_regex(grammar.text)
    return LLMatcher.grammar_from_json_schema(grammar.text, defaults={"whitespace_pattern": WHITESPACE})
