"""Reservations against a session's budget, in Redis, by one atomic script a step.

Redis may be lost at any time: what it holds is rebuilt from the store, which records a request before its reservation
is asked for. Lua's numbers are exact to 2**53, so amounts are counted in 10**9 base units here: costs and caps rounded
up, budgets down, never over the budget. Near the budget's end two requests that ask at the same moment may both be
refused, because a rebuild counts whatever the store has begun; that errs on the payer's side.
"""

from __future__ import annotations

import logging
import secrets
import time
from dataclasses import dataclass
from typing import Any, cast

import redis

from declai.api.errors import BookkeepingUnavailable, BudgetExhausted
from declai.api.store.store import Store
from declai.chain.pricing import format_credits

logger = logging.getLogger(__name__)
UNIT = 10**9
MAX_UNITS = 2**53 - 1

# KEYS of all scripts: totals hash, reservations hash, rebuild token.
# ARGV: id, amount, budget. Returns 1 reserved, 0 not covered, -1 nothing known; then what is spent and held.
_RESERVE = """
local committed = redis.call('HGET', KEYS[1], 'committed')
if not committed then return {-1, '0'} end
local held = tonumber(committed)
for i, value in ipairs(redis.call('HVALS', KEYS[2])) do held = held + tonumber(value) end
local old = redis.call('HGET', KEYS[2], ARGV[1])
if old then held = held - tonumber(old) end
if held + tonumber(ARGV[2]) > tonumber(ARGV[3]) then return {0, string.format('%.0f', held)} end
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
return {1, string.format('%.0f', held)}
"""
# ARGV: id, cost. A second call, or one for a reservation that is not known, forgets the totals: they are rebuilt.
# A rebuild under way may have read the store before this request ended: its token goes, so that it starts again.
_RELEASE = """
redis.call('DEL', KEYS[3])
if redis.call('HDEL', KEYS[2], ARGV[1]) == 1 and redis.call('HEXISTS', KEYS[1], 'committed') == 1 then
  redis.call('HINCRBY', KEYS[1], 'committed', ARGV[2])
else
  redis.call('DEL', KEYS[1], KEYS[2])
end
return 1
"""
# ARGV: token, committed, then id and amount in turn. Writes only when nobody rebuilt, released or lost data meanwhile.
_REBUILD = """
if redis.call('GET', KEYS[3]) ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1], KEYS[2], KEYS[3])
redis.call('HSET', KEYS[1], 'committed', ARGV[2])
for i = 3, #ARGV, 2 do redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1]) end
return 1
"""
REBUILD_TOKEN_TTL_S = 3
REBUILD_POLL_S = 0.02
MAX_TRIES = 200


def _up(amount: int) -> int:
    return -(-amount // UNIT)


@dataclass(frozen=True)
class Scripts:
    """The three scripts, registered on one client."""

    reserve: Any
    release: Any
    rebuild: Any


class Reservations:
    """Reserves and releases for one gateway. Blocking: call in a thread."""

    def __init__(self, client: redis.Redis, store: Store, gateway: str) -> None:
        self._client = client
        self._store = store
        self._prefix = f"gateway:{gateway.lower()}:session:"
        register = client.register_script
        self._scripts = Scripts(register(_RESERVE), register(_RELEASE), register(_REBUILD))

    def _keys(self, session: str) -> list[str]:
        # One hash tag, so that a cluster keeps all of them on one machine.
        return [f"{self._prefix}{{{session}}}:{name}" for name in ("totals", "reserved", "rebuild")]

    def reserve(self, session: str, request: str, amount: int, budget: int) -> None:
        """Hold `amount` base units for a request that the store has as running. Repeating it changes nothing.

        Raises:
            BudgetExhausted: it does not fit beside what is spent and held.
            BookkeepingUnavailable: Redis does not answer.
        """
        if amount > budget:
            raise exhausted(amount, budget)
        arguments = [request, min(_up(amount), MAX_UNITS), min(budget // UNIT, MAX_UNITS)]
        try:
            checked = False
            for _ in range(MAX_TRIES):
                outcome, held = cast("list[Any]", self._scripts.reserve(keys=self._keys(session), args=arguments))
                if int(outcome) == 1:
                    return
                if int(outcome) == 0:
                    if checked:
                        raise exhausted(amount, max(budget - int(held) * UNIT, 0))
                    # A crash may have left a cap behind: nobody is refused before the store was asked.
                    self.forget(session)
                    checked = True
                self._rebuild(session)
        except redis.RedisError as error:
            raise BookkeepingUnavailable(
                f"budgets cannot be reserved now ({type(error).__name__}): try again"
            ) from None
        raise BookkeepingUnavailable("the session's totals are being rebuilt: try again")

    def release(self, session: str, request: str, cost: int) -> None:
        """The request ended and cost this much (0 when it failed); the store knows already.

        Without an answer from Redis the cap stays held there, until a reservation that it stands in the way of.
        """
        try:
            self._scripts.release(keys=self._keys(session), args=[request, _up(cost)])
        except redis.RedisError as error:
            logger.warning("Redis did not release request %s: %s", request, type(error).__name__)

    def forget(self, session: str) -> None:
        """Drop what Redis knows of a session; the next reservation rebuilds it."""
        self._client.delete(*self._keys(session))

    def forget_all(self) -> None:
        """Drop what Redis knows of all sessions: the store knows better, after a crash that Redis may have shared."""
        for key in self._client.scan_iter(match=f"{self._prefix}*", count=500):
            self._client.delete(key)

    def _rebuild(self, session: str) -> None:
        """Write what the store says. Whoever comes second, or reads before something changed, writes nothing."""
        keys, token = self._keys(session), secrets.token_hex(16)
        if not self._client.set(keys[2], token, ex=REBUILD_TOKEN_TTL_S, nx=True):
            time.sleep(REBUILD_POLL_S)  # another one rebuilds; its token ends with it
            return
        totals = self._store.session_totals(session)
        held = [item for request, cap in totals.running.items() for item in (request, _up(cap))]
        self._scripts.rebuild(keys=keys, args=[token, _up(totals.finished_total), *held])


def exhausted(amount: int, left: int) -> BudgetExhausted:
    """The refusal of what may cost `amount` base units where `left` are free."""
    return BudgetExhausted(
        f"this request may cost {format_credits(amount)} credits, the session has {format_credits(left)} left: "
        "top it up (`declai session top-up`) or lower max_tokens",
        details={"needed": str(amount), "left": str(left)},
    )
