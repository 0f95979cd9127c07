"""Whether a node takes a task, or a change of one: all is checked against signatures, registry, offer and clock."""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable
from dataclasses import dataclass

from pydantic import ValidationError

from declai.chain.errors import BadSignature
from declai.chain.messages import Domain, recover, recover_text
from declai.protocol.errors import (
    BadTaskSignature,
    InconsistentTask,
    MalformedTask,
    Misaddressed,
    NotServed,
    PriceTooLow,
    TaskExpired,
    TaskRefused,
    TaskReplayed,
    UnknownGateway,
    WrongNetwork,
)
from declai.protocol.jobs import Envelope, StageJob
from declai.protocol.peers import Peer
from declai.protocol.ring import Replacement
from declai.protocol.wire import Replaced
from declai.worker.errors import WorkerError
from declai.worker.tasks.registry import PeerRegistry


@dataclass(frozen=True)
class Terms:
    """What a node serves and for how much. Prices in base units per million token-layers."""

    node: str
    link_key: bytes
    domain: Domain
    model: bytes
    model_name: str
    manifest_cid: str
    num_layers: int
    first_layer: int
    end_layer: int
    prompt_price: int
    output_price: int
    max_positions: int
    max_deadline_s: int = 6 * 3600


class Refused(WorkerError):
    """A task by an active gateway that this node will not run: the gateway should be told."""

    def __init__(self, job: StageJob, reason: TaskRefused) -> None:
        super().__init__(str(reason))
        self.job = job
        self.reason = reason


def open_envelope(
    envelope: Envelope,
    terms: Terms,
    registry: PeerRegistry,
    take: Callable[[bytes, int], bool],
    now: float | None = None,
) -> StageJob:
    """The job in an envelope, once all of it is believed.

    `take(job_id, deadline)` notes a job for good and says whether it is new.

    Raises:
        TaskRefused: not from an active gateway for this network; nobody is told.
        Refused: from an active gateway, but wrong, too late, too cheap, replayed, or not what this node serves.
    """
    try:
        job = StageJob.model_validate_json(envelope.job)
    except ValidationError as error:
        raise MalformedTask(
            f"the job has {error.error_count()} errors, the first at {error.errors()[0]['loc']}"
        ) from None
    _check_gateway(envelope, job, terms, registry)
    try:
        _check_address(job, terms)
        _check_consistency(job)
        _check_time(job, terms, time.time() if now is None else now)
        _check_signatures(job, registry)
        _check_peers(job, terms, registry)
        _check_offer(job, terms)
        if not take(job.job_id, job.assignment.deadline):
            raise TaskReplayed(f"job {job.job_id.hex()} was taken before")
    except TaskRefused as reason:
        raise Refused(job, reason) from reason
    return job


def check_replacement(
    change: Replacement, frame: Replaced, job: StageJob, terms: Terms, registry: PeerRegistry
) -> None:
    """Whether a change beside a running job, read from this frame, is its gateway's word and of a node that serves.

    Raises TaskRefused: not from the job's gateway, for another job, or with a node that the job could not have begun
    with.
    """
    _check_signer(frame.replacement, frame.signature, job, registry)
    if not change.job == frame.job == job.job_id:
        raise InconsistentTask("the replacement is for another job")
    if change.replica.from_position >= job.max_positions:
        raise InconsistentTask(f"the job has no position {change.replica.from_position}")
    if not job.may_be_reached(change.replica.peer):
        raise InconsistentTask("the job's gateway relays, and nobody else")
    _check_peer(change.replica.peer, terms, registry)


def _check_gateway(envelope: Envelope, job: StageJob, terms: Terms, registry: PeerRegistry) -> None:
    if (job.chain_id, job.ledger) != (terms.domain.chain_id, terms.domain.ledger):
        raise WrongNetwork(f"the task is for chain {job.chain_id}, ledger {job.ledger}")
    _check_signer(envelope.job, envelope.signature, job, registry)


def _check_signer(text: str, signature: bytes, job: StageJob, registry: PeerRegistry) -> None:
    try:
        signer = recover_text(text, signature)
    except BadSignature as error:
        raise UnknownGateway(f"the signature: {error}") from None
    if registry.gateway_of(signer) != job.gateway.address:
        raise UnknownGateway(f"{signer} does not sign for an active gateway {job.gateway.address}")


def _check_address(job: StageJob, terms: Terms) -> None:
    if job.assignment.node != terms.node:
        raise Misaddressed(f"the task is for {job.assignment.node}")


def _check_consistency(job: StageJob) -> None:
    if job.assignment.request != job.request_digest:
        raise InconsistentTask("the assignment is for another request")
    if job.assignment.attempt < job.attempt:
        raise InconsistentTask(f"attempt {job.attempt} with an assignment for attempt {job.assignment.attempt}")
    if job.ring.from_position >= job.max_positions:
        raise InconsistentTask(f"the job has no position {job.ring.from_position}")
    if job.max_tokens > job.request.max_tokens:
        raise InconsistentTask(f"{job.max_tokens} tokens, {job.request.max_tokens} were asked for")


def _check_time(job: StageJob, terms: Terms, now: float) -> None:
    left = job.assignment.deadline - now
    if left <= 0:
        raise TaskExpired(f"the deadline passed {-left:.0f} s ago")
    if left > terms.max_deadline_s:
        raise TaskExpired(f"the deadline is {left:.0f} s ahead, more than {terms.max_deadline_s}")


def _check_signatures(job: StageJob, registry: PeerRegistry) -> None:
    try:
        assigned_by = recover(job.assignment, job.domain, job.assignment_signature)
        asked_by = recover(job.request, job.domain, job.request_signature)
    except BadSignature as error:
        raise BadTaskSignature(str(error)) from None
    if registry.gateway_of(assigned_by) != job.gateway.address:
        raise BadTaskSignature(f"the assignment is signed by {assigned_by}, not for the gateway")
    if registry.session_key(job.request.session, job.gateway.address) != asked_by:
        raise BadTaskSignature(f"the request is signed by {asked_by}, not by the key of an open session")


def _check_peers(job: StageJob, terms: Terms, registry: PeerRegistry) -> None:
    for peer in (job.gateway, *job.ring.neighbours):
        _check_peer(peer, terms, registry)


def _check_peer(peer: Peer, terms: Terms, registry: PeerRegistry) -> None:
    # A relay is the job's gateway, which is checked itself. No gateway may send this node to an endpoint of its choice.
    key = peer.link_key
    holder = registry.holder_at(key, peer.endpoint) if peer.relay is None else registry.holder_of(key)
    if holder != peer.address:
        raise InconsistentTask(f"link key {key.hex()} at {peer.endpoint} does not belong to {peer.address}")
    if hmac.compare_digest(peer.link_key, terms.link_key):
        raise InconsistentTask("a peer of this node is this node")


def _check_offer(job: StageJob, terms: Terms) -> None:
    assignment = job.assignment
    if (job.request.model, job.model_name, job.manifest_cid) != (terms.model, terms.model_name, terms.manifest_cid):
        raise NotServed(f"this node serves {terms.model_name} ({terms.manifest_cid})")
    if not terms.first_layer <= assignment.first_layer < assignment.end_layer <= terms.end_layer:
        raise NotServed(f"this node serves layers [{terms.first_layer}, {terms.end_layer})")
    if job.is_first != (assignment.first_layer == 0) or job.is_last != (assignment.end_layer == terms.num_layers):
        raise InconsistentTask("the first stage begins with layer 0 and the last one ends with the model")
    if job.num_prompt_tokens + job.max_tokens > terms.max_positions:
        raise NotServed(f"this node's context holds {terms.max_positions} tokens")
    if assignment.prompt_price < terms.prompt_price or assignment.output_price < terms.output_price:
        raise PriceTooLow(f"this node asks {terms.prompt_price} and {terms.output_price}")
