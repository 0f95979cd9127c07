"""The ring of a job: who serves each stage, and who takes whose place while the job lives. Torch-free.

The stages of a job form a ring: upstream of stage 0 is the last stage (whose tokens are fed back), downstream of the
last stage is stage 0. A job of one stage has neither. The gateway stands beside the ring.

A stage has one replica or several. All compute the same and commit to it; number 0 alone is heard by others. A stage
knows its own place and its neighbours (`RingView`), the gateway knows all (`Ring`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

from eth_account.signers.local import LocalAccount
from pydantic import Field, model_validator

from declai.chain.fields import Bytes32
from declai.protocol.message import ProtocolMessage
from declai.protocol.peers import Peer
from declai.protocol.wire import MAX_TOKENS, Replaced

MAX_REPLICAS = 8
MAX_STAGES = 255
MAX_EXCHANGES = 8  # of one place of a job: so many attempts after the one that names the job


class Replica(ProtocolMessage):
    """One node in one place of the ring.

    Attributes:
        number: its place among the stage's replicas.
        attempt: that of its assignment. Each node in a place has one more than the node before it.
        from_position: what it sends begins there; what came before is the word of the node whose place it took.
    """

    peer: Peer
    number: Annotated[int, Field(ge=0, lt=MAX_REPLICAS)] = 0
    attempt: Annotated[int, Field(ge=0, lt=2**32)] = 0
    from_position: Annotated[int, Field(ge=0, lt=MAX_TOKENS)] = 0


Replicas = Annotated[tuple[Replica, ...], Field(max_length=MAX_REPLICAS)]


class Replacement(ProtocolMessage):
    """A gateway's word that a place in a job's ring is another node's now."""

    job: Bytes32
    stage: Annotated[int, Field(ge=0, lt=MAX_STAGES)]
    replica: Replica


class RingView(ProtocolMessage):
    """The ring as one replica sees it: its own place, and who stands beside it, by their numbers."""

    number: Annotated[int, Field(ge=0, lt=MAX_REPLICAS)] = 0
    from_position: Annotated[int, Field(ge=0, lt=MAX_TOKENS)] = 0
    upstream: Replicas = ()
    downstream: Replicas = ()

    @model_validator(mode="after")
    def _check_numbers(self) -> RingView:
        for side in (self.upstream, self.downstream):
            if [replica.number for replica in side] != list(range(len(side))):
                raise ValueError("a stage's replicas are numbered from 0 on")
        return self

    def with_replacement(self, change: Replacement, stage: int, num_stages: int) -> RingView:
        """What a node of `stage` sees after a change beside it.

        Raises ValueError where no such place is beside, or the new node does not follow on the one that stood there.
        """
        sides = {"upstream": (stage - 1) % num_stages, "downstream": (stage + 1) % num_stages}
        changed = {}
        for side, beside in sides.items():
            if beside == change.stage and beside != stage:
                changed[side] = _with(getattr(self, side), change.replica)
        if not changed:
            raise ValueError(f"stage {change.stage} is not beside stage {stage}")
        return self.model_copy(update=changed)

    @property
    def neighbours(self) -> tuple[Peer, ...]:
        """Everyone beside, each once: in a ring of two stages the same nodes are on both sides."""
        return tuple(dict.fromkeys(replica.peer for replica in (*self.upstream, *self.downstream)))

    @property
    def speaks(self) -> bool:
        """Whether others hear what this replica makes."""
        return self.number == 0

    @property
    def listeners(self) -> tuple[Peer, ...]:
        """Who hears what this replica makes."""
        return tuple(replica.peer for replica in self.downstream) if self.speaks else ()


@dataclass(frozen=True)
class Ring:
    """All places of a job: `stages[k]` are the replicas of stage k, by their numbers."""

    gateway: Peer
    stages: tuple[tuple[Replica, ...], ...]

    @property
    def attempt(self) -> int:
        """The attempt that names the job: that of the nodes that have been in it from the beginning."""
        return min(replica.attempt for replicas in self.stages for replica in replicas)

    def view(self, stage: int, number: int = 0) -> RingView:
        """What replica `number` of a stage is told."""
        own = self.stages[stage][number]
        is_ring = len(self.stages) > 1
        return RingView(
            number=number,
            from_position=own.from_position,
            upstream=self.stages[stage - 1] if is_ring else (),
            downstream=self.stages[(stage + 1) % len(self.stages)] if is_ring else (),
        )

    def with_node(self, stage: int, number: int, peer: Peer, from_position: int) -> Ring:
        """The ring with another node in a place.

        Raises ValueError where nobody would be left who has been in the job from the beginning, and where the place
        has had `MAX_EXCHANGES`: that is a new job.
        """
        before = self.stages[stage]
        attempt = before[number].attempt + 1
        if attempt > self.attempt + MAX_EXCHANGES:
            raise ValueError(f"the place was another's {MAX_EXCHANGES} times: begin a new attempt")
        new = _with(before, Replica(peer=peer, number=number, attempt=attempt, from_position=from_position))
        changed = (*self.stages[:stage], new, *self.stages[stage + 1 :])
        ring = replace(self, stages=changed)
        if ring.attempt != self.attempt:
            raise ValueError("every node of the job was replaced: begin a new attempt")
        return ring


def new_ring(gateway: Peer, nodes: tuple[Peer, ...] | list[Peer], attempt: int) -> Ring:
    """A ring with one replica a stage; `nodes` in the order of the stages."""
    return Ring(gateway, tuple((Replica(peer=peer, attempt=attempt),) for peer in nodes))


def seal_replacement(change: Replacement, account: LocalAccount) -> Replaced:
    """The frame that tells of a change, signed with the gateway's signer key."""
    return Replaced(change.job, *change.signed_text(account))


def _with(replicas: Replicas, new: Replica) -> Replicas:
    """Replicas with another one in its place. Raises ValueError unless its attempt follows."""
    if new.number >= len(replicas) or new.attempt != replicas[new.number].attempt + 1:
        raise ValueError(f"attempt {new.attempt} follows on nobody in place {new.number}")
    return (*replicas[: new.number], new, *replicas[new.number + 1 :])
