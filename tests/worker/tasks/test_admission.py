"""Which tasks a node takes: every lie in an envelope is refused with a type of its own, and nothing is taken twice."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from eth_utils.crypto import keccak
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from declai.chain.messages import Assignment, new_account, sign
from declai.protocol import errors
from declai.protocol.jobs import Envelope, StageJob, seal
from declai.protocol.options import GenerationOptions, Grammar, Sampling
from declai.protocol.peers import Peer
from declai.protocol.ring import Replica, RingView
from declai.worker.errors import StoreError
from declai.worker.job.store import NodeStore
from declai.worker.tasks.envelopes import Refused, Terms, open_envelope
from tests.support.parties import (
    DOMAIN,
    MANIFEST,
    MODEL_NAME,
    OUTPUT_PRICE,
    PROMPT_PRICE,
    FakeRegistry,
    Party,
    make_jobs,
)

GATEWAY, OTHER_GATEWAY = Party(), Party()
NODES = [Party() for _ in range(3)]
REGISTRY = FakeRegistry([GATEWAY, OTHER_GATEWAY], NODES)
TERMS = Terms(
    node=NODES[1].address,
    link_key=NODES[1].link[0],
    domain=DOMAIN,
    model=keccak(text=MODEL_NAME),
    model_name=MODEL_NAME,
    manifest_cid=MANIFEST,
    num_layers=6,
    first_layer=2,
    end_layer=4,
    prompt_price=PROMPT_PRICE,
    output_price=OUTPUT_PRICE,
    max_positions=100,
)
JOB = make_jobs(GATEWAY, NODES)[1]


def opened(envelope: Envelope, terms: Terms = TERMS, take: Callable[[bytes, int], bool] = lambda *_: True) -> StageJob:
    return open_envelope(envelope, terms, REGISTRY, take)


def changed(job: StageJob, **fields: object) -> StageJob:
    return StageJob.model_validate(job.model_dump() | fields)


def beside(**peers: Peer) -> StageJob:
    """The job with other neighbours."""
    sides = {side: (Replica(peer=peer),) for side, peer in peers.items()}
    return changed(JOB, ring=RingView.model_validate(JOB.ring.model_dump() | sides))


def reassigned(**fields: object) -> StageJob:
    assignment = Assignment.model_validate(JOB.assignment.model_dump() | fields)
    return changed(JOB, assignment=assignment, assignment_signature=sign(assignment, DOMAIN, GATEWAY.signer))


def test_an_honest_task_is_taken_and_keeps_every_field() -> None:
    sampling = Sampling(seed=2**64 - 1, logit_bias={7: -3.5}, grammar=Grammar(kind="regex", text="x*"))
    options = GenerationOptions(sampling=sampling, stop=("x",), logprobs=True, top_logprobs=2)
    _, middle, last = make_jobs(GATEWAY, NODES, options=options)
    assert opened(seal(middle, GATEWAY.signer)) == middle
    assert StageJob.model_validate_json(seal(last, GATEWAY.signer).job) == last


@pytest.mark.parametrize(
    ("job", "signer", "error"),
    [
        (JOB, new_account(), errors.UnknownGateway),
        (JOB, OTHER_GATEWAY.signer, errors.UnknownGateway),
        (JOB, NODES[1].signer, errors.UnknownGateway),
        (changed(JOB, chain_id=1), GATEWAY.signer, errors.WrongNetwork),
        (changed(JOB, ledger="0x" + "22" * 20), GATEWAY.signer, errors.WrongNetwork),
    ],
)
def test_tasks_of_strangers_are_dropped(job: StageJob, signer: object, error: type[Exception]) -> None:
    with pytest.raises(error):
        opened(seal(job, signer))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("job", "error"),
    [
        (make_jobs(GATEWAY, NODES)[0], errors.Misaddressed),
        (reassigned(node=NODES[2].address), errors.Misaddressed),
        (reassigned(request=bytes(32)), errors.InconsistentTask),
        (changed(JOB, attempt=1), errors.InconsistentTask),
        (changed(JOB, max_tokens=9), errors.InconsistentTask),
        (make_jobs(GATEWAY, NODES, lifetime_s=-5)[1], errors.TaskExpired),
        (make_jobs(GATEWAY, NODES, lifetime_s=10**6)[1], errors.TaskExpired),
        (changed(JOB, assignment_signature=JOB.request_signature), errors.BadTaskSignature),
        (changed(JOB, assignment_signature=bytes(65)), errors.BadTaskSignature),
        (changed(JOB, request_signature=JOB.assignment_signature), errors.BadTaskSignature),
        (make_jobs(OTHER_GATEWAY, NODES)[1].model_copy(update={"gateway": GATEWAY.peer}), errors.BadTaskSignature),
        (beside(upstream=Party().peer), errors.InconsistentTask),
        (beside(downstream=NODES[1].peer), errors.InconsistentTask),
        (changed(JOB, model_name="other"), errors.NotServed),
        (changed(JOB, manifest_cid="bafyother"), errors.NotServed),
        (reassigned(first_layer=1), errors.NotServed),
        (reassigned(end_layer=5), errors.NotServed),
        (reassigned(end_layer=2), errors.NotServed),
        (changed(JOB, num_prompt_tokens=93), errors.NotServed),
        (reassigned(prompt_price=PROMPT_PRICE - 1), errors.PriceTooLow),
        (reassigned(output_price=OUTPUT_PRICE - 1), errors.PriceTooLow),
    ],
)
def test_wrong_tasks_of_a_gateway_are_refused_with_their_reason(job: StageJob, error: type[Exception]) -> None:
    with pytest.raises(Refused) as refusal:
        opened(seal(job, GATEWAY.signer))
    assert type(refusal.value.reason) is error
    assert refusal.value.job == job


def test_a_part_of_the_layers_held_is_served_but_the_ends_must_be_ends() -> None:
    wide = replace(TERMS, first_layer=0, end_layer=6)
    assert opened(seal(JOB, GATEWAY.signer), wide) == JOB
    for cut in ((0, 4), (2, 6)):
        with pytest.raises(Refused) as refusal:
            opened(seal(reassigned(first_layer=cut[0], end_layer=cut[1]), GATEWAY.signer), wide)
        assert type(refusal.value.reason) is errors.InconsistentTask


def test_a_request_of_a_closed_session_is_refused() -> None:
    registry = FakeRegistry([GATEWAY], NODES)
    registry.session = None
    with pytest.raises(Refused) as refusal:
        open_envelope(seal(JOB, GATEWAY.signer), TERMS, registry, lambda *_: True)
    assert type(refusal.value.reason) is errors.BadTaskSignature


def test_a_task_replayed_is_refused_also_after_a_restart(tmp_path: Path) -> None:
    envelope = seal(make_jobs(GATEWAY, NODES, salt=b"replay")[1], GATEWAY.signer)
    store = NodeStore(tmp_path / "node.db")
    opened(envelope, take=store.take)
    for _ in range(2):
        with pytest.raises(Refused) as refusal:
            opened(envelope, take=store.take)
        assert type(refusal.value.reason) is errors.TaskReplayed
        store.close()
        store = NodeStore(tmp_path / "node.db")
    store.close()


def test_a_task_not_taken_may_come_again(tmp_path: Path) -> None:
    store = NodeStore(tmp_path / "node.db")
    envelope = seal(JOB, GATEWAY.signer)
    with pytest.raises(Refused):
        opened(envelope, replace(TERMS, prompt_price=10**30), store.take)
    assert opened(envelope, take=store.take) == JOB
    store.close()


def test_the_store_forgets_jobs_long_past_and_keeps_one_receipt_a_job(tmp_path: Path) -> None:
    store = NodeStore(tmp_path / "node.db")
    now = int(time.time())
    assert store.take(b"old", now - 7200)
    assert store.take(b"new", now + 60)
    assert store.take(b"old", now + 60)
    assert not store.take(b"new", now + 60)
    assert (tmp_path / "node.db").stat().st_mode & 0o077 == 0
    store.close()
    with pytest.raises(StoreError):
        store.take(b"x", 1)
    (tmp_path / "broken.db").write_bytes(b"no database" * 1000)
    with pytest.raises(StoreError):
        NodeStore(tmp_path / "broken.db")


@given(st.text(max_size=300), st.binary(min_size=65, max_size=65))
def test_an_envelope_of_noise_is_malformed(text: str, signature: bytes) -> None:
    with pytest.raises(errors.MalformedTask):
        opened(Envelope(job=text, signature=signature))


@given(st.data())
def test_a_flipped_character_is_never_taken(data: st.DataObject) -> None:
    envelope = ENVELOPE
    at = data.draw(st.integers(0, len(envelope.job) - 1))
    other = data.draw(st.characters(codec="ascii").filter(lambda c: c != envelope.job[at]))
    text = envelope.job[:at] + other + envelope.job[at + 1 :]
    with pytest.raises((errors.TaskRefused, Refused)):
        opened(Envelope(job=text, signature=envelope.signature))


@pytest.mark.parametrize(
    "fields",
    [
        {"num_stages": 1},
        {"num_stages": 2},
        {"ring": JOB.ring.model_copy(update={"upstream": ()})},
        {"ring": JOB.ring.model_copy(update={"downstream": (Replica(peer=NODES[2].peer, number=1),)})},
        {"ring": JOB.ring.model_copy(update={"from_position": 3})},
        {"options": GenerationOptions()},
        {"eos_token_ids": (1,)},
        {"prompt_token_ids": (1, 2, 3)},
        {"version": 1},
        {"surprise": 1},
    ],
)
def test_jobs_of_impossible_shape_do_not_parse(fields: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="StageJob"):
        changed(JOB, **fields)


ENVELOPE = seal(JOB, GATEWAY.signer)


def relayed(party: Party, by: Party) -> Peer:
    return Peer.model_validate(party.peer.model_dump() | {"endpoint": by.endpoint, "relay": by.link[0]})


def test_a_neighbour_is_relayed_by_the_jobs_gateway_and_by_nobody_else() -> None:
    job = beside(upstream=relayed(NODES[0], GATEWAY), downstream=relayed(NODES[2], GATEWAY))
    assert opened(seal(job, GATEWAY.signer)) == job
    assert job.ring.upstream[0].peer.hop == job.gateway.hop
    elsewhere = relayed(NODES[0], GATEWAY).model_copy(update={"endpoint": "tcp://127.0.0.1:2"})
    for wrong in (
        lambda: beside(upstream=relayed(NODES[0], OTHER_GATEWAY)),
        lambda: beside(downstream=relayed(NODES[2], NODES[0])),
        lambda: beside(upstream=elsewhere),
        lambda: changed(JOB, gateway=relayed(GATEWAY, GATEWAY)),
    ):
        with pytest.raises(ValidationError):
            wrong()
