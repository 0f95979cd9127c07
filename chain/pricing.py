"""What work costs. The one place that computes it, in integers; all rounding is down.

Prices are base units per million token-layers; a credit is 10**18 base units.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal, InvalidOperation
from enum import IntEnum

from declai.chain.errors import InvalidAmount

DECIMALS = 18
UNITS_PER_CREDIT: int = 10**DECIMALS
TOKEN_LAYERS_PER_PRICE = 10**6
BPS = 10_000


class Tier(IntEnum):
    """Service tier, as `InferenceRequest.tier` carries it."""

    RESEARCH = 0
    PRODUCTION = 1
    REALTIME = 2

    @property
    def factor_bps(self) -> int:
        """What the tier multiplies prices by, in basis points."""
        return (10_000, 25_000, 50_000)[self]


def stage_cost(
    *,
    num_prompt_tokens: int,
    num_output_tokens: int,
    prompt_price: int,
    output_price: int,
    num_layers: int,
    tier: Tier,
) -> int:
    """What one stage earns, in base units, rounded down once (to the payer's favour)."""
    price = (num_prompt_tokens * prompt_price + num_output_tokens * output_price) * num_layers
    return price * tier.factor_bps // (TOKEN_LAYERS_PER_PRICE * BPS)


def credits_per_layer(
    *, num_prompt_tokens: int, num_output_tokens: int, prompt_price: int, output_price: int, tier_bps: int
) -> float:
    """What a stage earns for each of its layers, in credits and before rounding: to compare plans by."""
    price = num_prompt_tokens * prompt_price + num_output_tokens * output_price
    return price * tier_bps / (TOKEN_LAYERS_PER_PRICE * BPS * UNITS_PER_CREDIT)


def gateway_fee(stage_costs: Iterable[int], fee_bps: int) -> int:
    """The gateway's part, on top of what the stages earn, rounded down."""
    return sum(stage_costs) * fee_bps // BPS


def request_cost(stage_costs: Iterable[int], fee_bps: int) -> int:
    """What a request costs its payer: the stages' earnings and the gateway's fee."""
    costs = list(stage_costs)
    return sum(costs) + gateway_fee(costs, fee_bps)


def format_credits(units: int) -> str:
    """Base units as credits: the exact decimal, without trailing zeros."""
    whole, rest = divmod(abs(units), UNITS_PER_CREDIT)
    digits = f"{rest:0{DECIMALS}d}".rstrip("0")
    return ("-" if units < 0 else "") + (f"{whole}.{digits}" if digits else str(whole))


def parse_credits(text: str) -> int:
    """Base units of an amount in credits such as "1.5".

    Raises:
        InvalidAmount: not a plain decimal number, negative, or finer than a base unit.
    """
    try:
        amount = Decimal(text.strip())
    except InvalidOperation:
        raise InvalidAmount(f"{text!r} is not an amount of credits: write it like 12 or 0.05") from None
    if not amount.is_finite() or amount < 0 or amount.adjusted() > 40:
        raise InvalidAmount(f"{text!r} is not an amount of credits: write it like 12 or 0.05")
    _, digits, exponent = amount.as_tuple()
    value = int("".join(map(str, digits)) or "0")
    scaled: int = value * 10 ** (DECIMALS + max(int(exponent), -DECIMALS))
    step: int = 10 ** max(-DECIMALS - int(exponent), 0)
    units, finer = divmod(scaled, step)
    if finer:
        raise InvalidAmount(f"{text!r} is finer than a base unit: a credit has {DECIMALS} decimals")
    return units
