"""Serves admitted requests: drives attempts, keeps the books, hands out text.

Each request is a task of its own that always runs to its end, so that a client who goes away leaves nothing open.
"""

from __future__ import annotations

import asyncio
import logging

from declai.api.credits.admission import Admission, Admitted
from declai.api.errors import AttemptFailed, GatewayError, Overloaded
from declai.api.metrics import Metrics
from declai.api.serving.attempt import Attempt
from declai.api.serving.context import ServingContext
from declai.api.serving.output import Output
from declai.api.serving.quoting import quote_now
from declai.api.serving.running import Arrivals, End, Running
from declai.api.serving.stage_jobs import Generation
from declai.chain.pricing import UNITS_PER_CREDIT, Tier, gateway_fee
from declai.planning.placement import Plan

logger = logging.getLogger(__name__)
MAX_ATTEMPTS = 3
SHUTDOWN_S = 5.0


class Generator:
    """Everything under way, for one gateway."""

    def __init__(self, context: ServingContext, admission: Admission, metrics: Metrics, max_running: int) -> None:
        self._context = context
        self._admission = admission
        self._metrics = metrics
        self._max_running = max_running
        self._tasks: dict[asyncio.Task[None], Running] = {}

    def check_room(self, count: int = 1) -> None:
        """Raises Overloaded when so many requests run that this gateway does not take `count` more."""
        running, most = len(self._tasks), self._max_running
        if running + count > most:
            raise Overloaded(f"{running} requests run on this gateway, it takes {most} at once: try again soon")

    def start(self, admitted: Admitted, generation: Generation, plan: Plan, choice: int, arrivals: Arrivals) -> Running:
        """Begin to serve an admitted request, which is one choice of an answer."""
        running = Running(admitted.request, choice, arrivals)
        task = asyncio.create_task(self._serve(admitted, generation, plan, running), name=admitted.request)
        self._tasks[task] = running
        self._metrics.running.set(len(self._tasks))
        task.add_done_callback(self._forget)
        return running

    def _forget(self, task: asyncio.Task[None]) -> None:
        del self._tasks[task]
        self._metrics.running.set(len(self._tasks))

    async def close(self) -> None:
        """Ask what runs to end now, so that what was made is paid; give the rest up after a moment."""
        for running in self._tasks.values():
            running.cancel()
        if self._tasks:
            _, late = await asyncio.wait(list(self._tasks), timeout=SHUTDOWN_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _serve(self, admitted: Admitted, generation: Generation, plan: Plan, running: Running) -> None:
        try:
            end = await self._attempts(admitted, generation, plan, running)
        except GatewayError as error:
            await self._failed(admitted, error.message)
            running.put(error)
        except asyncio.CancelledError:
            await self._failed(admitted, "the gateway was stopped")
            running.put(GatewayError("the gateway was stopped; nothing is charged"))
            raise
        except Exception as error:
            logger.exception("request %s failed", admitted.request)
            await self._failed(admitted, type(error).__name__)
            running.put(GatewayError("the gateway failed to serve this request; nothing is charged"))
        else:
            self._metrics.requests.labels(end.finish_reason).inc()
            self._metrics.tokens.labels("prompt").inc(end.num_prompt_tokens)
            self._metrics.tokens.labels("output").inc(end.num_output_tokens)
            self._metrics.cost.inc(end.cost / UNITS_PER_CREDIT)
            running.put(end)

    async def _failed(self, admitted: Admitted, reason: str) -> None:
        self._metrics.requests.labels("failed").inc()
        await asyncio.shield(asyncio.to_thread(self._admission.fail, admitted, reason))

    async def _attempts(self, admitted: Admitted, generation: Generation, plan: Plan, running: Running) -> End:
        """Try again on other nodes while no token was shown: a token is never taken back."""
        excluded: frozenset[str] = frozenset()
        for number in range(MAX_ATTEMPTS):
            attempt = Attempt(self._context, admitted, generation, plan, number)
            self._context.directory.started(attempt.addresses)
            try:
                return await self._attempt(admitted, generation, attempt, running)
            except AttemptFailed as error:
                logger.warning("request %s, attempt %d: %s: %s", admitted.request, number, error.failure, error)
                self._metrics.attempts_failed.labels(error.failure).inc()
                if error.address is not None:
                    self._context.directory.lost(error.address)
                    excluded |= {error.address}
                # Without a node to leave out the next attempt would be the same one again.
                hopeless = error.address is None or number + 1 == MAX_ATTEMPTS
                if hopeless or attempt.tokens or running.cancelled:
                    raise
                plan = await self._other_plan(admitted, generation, excluded, error)
            finally:
                self._context.directory.ended(attempt.addresses)
        raise AssertionError("the last attempt returns or raises")

    async def _other_plan(
        self, admitted: Admitted, generation: Generation, excluded: frozenset[str], problem: AttemptFailed
    ) -> Plan:
        found = await quote_now(
            self._context.directory,
            generation,
            Tier(admitted.message.tier),
            self._context.fee_bps,
            max_cost=admitted.message.max_cost,
            excluded=excluded,
        )
        if found.max_cost > admitted.message.max_cost:
            raise problem
        return found.plan

    async def _attempt(self, admitted: Admitted, generation: Generation, attempt: Attempt, running: Running) -> End:
        running.on_cancel(attempt.cancel)
        output = Output(generation, attempt, running, self._metrics)
        await attempt.run(output.take)
        output.flush()
        stages = await asyncio.to_thread(attempt.checked_stages)
        assert attempt.finish is not None, "run() ends with it, or raises"
        num_prompt_tokens, num_output_tokens = len(generation.prompt_token_ids), attempt.finish.num_output_tokens
        reason = "stop" if output.ended else attempt.finish.finish_reason
        cost = await asyncio.shield(
            asyncio.to_thread(
                self._admission.finish,
                admitted,
                finish_reason=reason,
                num_prompt_tokens=num_prompt_tokens,
                num_output_tokens=num_output_tokens,
                fee=gateway_fee([stage.cost for stage in stages], self._context.fee_bps),
                stages_done=stages,
            )
        )
        attempt.acknowledge()
        return End(reason, num_prompt_tokens, num_output_tokens, cost)
