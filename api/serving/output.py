"""One attempt's output on its way to the reader: tokens become pieces of text as they come, and are timed."""

from __future__ import annotations

import time

from declai.api.metrics import Metrics
from declai.api.serving.attempt import Attempt
from declai.api.serving.running import Piece, Running
from declai.api.serving.stage_jobs import Generation
from declai.protocol.wire import Token


class Output:
    """Takes the tokens of an attempt and puts their pieces where the reader waits.

    `ended` once the text did: with a stop string or at the end of the sequence.
    """

    def __init__(self, generation: Generation, attempt: Attempt, running: Running, metrics: Metrics) -> None:
        options = generation.options
        self._text = generation.model.tokenizer.output_text(options.stop, ignore_eos=options.ignore_eos)
        self._attempt = attempt
        self._running = running
        self._metrics = metrics
        self._last_at = time.monotonic()

    @property
    def ended(self) -> bool:
        return self._text.ended

    def take(self, token: Token) -> None:
        """A token came now."""
        self._measure(token)
        self._running.put(Piece(self._text.push(token.token_id), (token,)))
        if self.ended and token.finish_reason is None:
            self._attempt.cancel()  # the last stage should have ended here: nobody pays for what comes after

    def flush(self) -> None:
        """No more tokens come: hand on the text that was held back."""
        if rest := self._text.flush():
            self._running.put(Piece(rest))

    def _measure(self, token: Token) -> None:
        now = time.monotonic()
        if token.index:
            self._metrics.token_interval_seconds.observe(now - self._last_at)
        else:
            ready_at = self._attempt.ready_at
            assert ready_at is not None, "tokens come after it"
            self._running.saw_first_token(ready_at)
            self._metrics.ready_seconds.observe(ready_at - self._running.started_at)
            self._metrics.first_token_seconds.observe(now - self._running.started_at)
        self._last_at = now
