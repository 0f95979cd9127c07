"""In which format a prompt's hidden states travel over one link of a job."""

from __future__ import annotations

from declai.chain.fields import NUMERIC_PROFILES
from declai.planning.placement import LinkSpeed, PlannedStage
from declai.protocol.wire import ITEM_BYTES, PromptFormat

# A prompt goes through stages and links in pieces, so that a link delays it only by what it takes beyond the slowest
# stage. Rounding is for links that take clearly longer than that, and so long that somebody notices.
CLEARLY_LONGER = 1.5
NOTICED_S = 0.05
FORMATS: tuple[PromptFormat, ...] = ("profile", "float16", "int8")
# Of a number in hidden states as they are computed, in each profile that we know.
COMPUTED_BYTES = ITEM_BYTES["float32"]


def prompt_format(num_values: int, compute_s: float, bytes_per_s: float | None, coarsest: PromptFormat) -> PromptFormat:
    """The finest format in which a link of `bytes_per_s` does not hold a prompt up; if there is none, the coarsest.

    `num_values` are to go over it; computing them takes the stage `compute_s`. Nothing is rounded for a link that
    nobody measured.
    """
    if bytes_per_s is None:
        return "profile"
    bound_s = max(CLEARLY_LONGER * compute_s, NOTICED_S)
    chosen: PromptFormat = "profile"
    for candidate in FORMATS[: FORMATS.index(coarsest) + 1]:
        size = COMPUTED_BYTES if candidate == "profile" else ITEM_BYTES[candidate]
        chosen = candidate
        if num_values * size / bytes_per_s <= bound_s:
            break
    return chosen


def stage_format(
    stage: PlannedStage, link: LinkSpeed | None, num_prompt_tokens: int, hidden_size: int, coarsest: PromptFormat
) -> PromptFormat:
    """`prompt_format` of what a stage sends on over a link as it was measured."""
    offer = stage.offer
    if offer.numeric_profile not in NUMERIC_PROFILES.values() or link is None:
        return "profile"
    compute_s = num_prompt_tokens * stage.num_layers * offer.seconds_per_token_layer * (1 + offer.num_running)
    return prompt_format(num_prompt_tokens * hidden_size, compute_s, link.bytes_per_s, coarsest)
