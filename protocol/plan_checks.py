"""The plan of a job, checked: who was to run which layers, by whose order, and for how much."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from declai.chain.messages import Assignment, Domain, InferenceRequest, digest, signed_by
from declai.protocol.problems import Problem, ProblemKind


class OfferedPrice(Protocol):
    """What a check needs of an offer: its number format, and its prices in base units per million token-layers."""

    @property
    def numeric_profile(self) -> int: ...
    @property
    def prompt_price(self) -> int: ...
    @property
    def output_price(self) -> int: ...


@dataclass(frozen=True)
class StageOrder:
    """What a gateway told one node to do, and its signature.

    `from_position`: where what the node sent begins: later than 0 where it took another's place.
    """

    assignment: Assignment
    signature: bytes
    from_position: int = 0


@dataclass(frozen=True)
class ChainFacts:
    """What the chain says of those who took part in a job, from its state now or from an index.

    Attributes:
        gateway_signer: of the gateway that ordered the stages; None when it has left the registry.
        node_signers: by operator address.
        num_layers: of the model, in each version that may have been served.
        max_fee_bps: the gateway's part at most, in basis points of what the stages earn.
        offers: of each node for the model, by operator address; None where those of that time are not known.
    """

    domain: Domain
    gateway_signer: str | None
    node_signers: Mapping[str, str]
    num_layers: Collection[int]
    max_fee_bps: int
    offers: Mapping[str, Sequence[OfferedPrice]] | None = None


def verify_plan(request: InferenceRequest, orders: Sequence[StageOrder], facts: ChainFacts) -> list[Problem]:
    """The stages follow one another over all layers, each for this request, by the gateway's order, and at no more
    than its node's offer. Empty when all holds."""
    found: list[Problem] = []
    request_digest, at = digest(request, facts.domain), 0
    for stage, order in enumerate(orders):
        assignment = order.assignment
        if (assignment.request, assignment.stage, assignment.first_layer) != (request_digest, stage, at):
            found.append(Problem(ProblemKind.NOT_NEXT, stage, "it does not follow the stage before it in this request"))
        at = assignment.end_layer
        if not signed_by(assignment, facts.domain, order.signature, facts.gateway_signer):
            found.append(Problem(ProblemKind.WRONG_GATEWAY, stage, "its assignment is not signed by the gateway"))
        if facts.offers is not None and not _is_offered(assignment, facts.offers.get(assignment.node, ())):
            found.append(Problem(ProblemKind.ABOVE_OFFER, stage, f"it is charged above the offer of {assignment.node}"))
    if at not in facts.num_layers:
        layers = " or ".join(map(str, sorted(facts.num_layers))) or "no"
        found.append(Problem(ProblemKind.INCOMPLETE, None, f"the stages end at layer {at}, the model has {layers}"))
    return found


def _is_offered(assignment: Assignment, offers: Sequence[OfferedPrice]) -> bool:
    return any(
        assignment.numeric_profile == offer.numeric_profile
        and assignment.prompt_price <= offer.prompt_price
        and assignment.output_price <= offer.output_price
        for offer in offers
    )
