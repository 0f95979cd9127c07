"""What every request that a gateway serves has in common."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from eth_account.signers.local import LocalAccount

from declai.api.nodes.directory import NodeDirectory
from declai.api.nodes.hub import LinkHub
from declai.chain.messages import Domain
from declai.protocol.jobs import Envelope
from declai.protocol.peers import Peer
from declai.protocol.wire import PromptFormat

Dispatch = Callable[[Sequence[tuple[str, Envelope]]], Awaitable[None]]


@dataclass(frozen=True)
class Timeouts:
    """Seconds: until all stages are ready, between two tokens, and for the receipts after the end."""

    ready_s: float
    stall_s: float
    receipt_s: float


@dataclass(frozen=True)
class ServingContext:
    """A gateway's links, nodes and queues, its name, its signer's key and its fee."""

    hub: LinkHub
    directory: NodeDirectory
    dispatch: Dispatch
    gateway: Peer
    account: LocalAccount = field(repr=False)
    domain: Domain
    fee_bps: int
    timeouts: Timeouts
    coarsest_prompt_format: PromptFormat = "profile"
