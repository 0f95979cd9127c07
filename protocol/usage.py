"""How an answer is counted: OpenAI's fields, and what it costs. Torch-free."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from declai.chain.pricing import format_credits


@dataclass(frozen=True)
class ChoiceUsage:
    """The tokens of one choice, and its cost in base units."""

    num_prompt_tokens: int
    num_output_tokens: int
    cost: int


def usage_of(choices: Sequence[ChoiceUsage]) -> dict[str, Any]:
    """The counts over all choices (the prompt counts once), and what they cost together as an exact decimal."""
    num_prompt_tokens = max(choice.num_prompt_tokens for choice in choices)
    num_output_tokens = sum(choice.num_output_tokens for choice in choices)
    return {
        "prompt_tokens": num_prompt_tokens,
        "completion_tokens": num_output_tokens,
        "total_tokens": num_prompt_tokens + num_output_tokens,
        "cost_credits": format_credits(sum(choice.cost for choice in choices)),
    }
