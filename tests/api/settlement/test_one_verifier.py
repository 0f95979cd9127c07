"""Gateway, payer and `receipt verify` hold a job's papers to one rule: what is changed in them, all three find."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
from eth_account.signers.local import LocalAccount
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from declai.api.errors import AttemptFailed
from declai.api.http.receipts import read_receipts
from declai.api.serving.checking import checked_stages
from declai.api.store.records import StoredStage
from declai.chain.contracts.models import model_id
from declai.chain.contracts.nodes import Offer
from declai.chain.messages import Assignment, InferenceRequest, SignedMessage, new_account, sign
from declai.chain.pricing import gateway_fee
from declai.client.checks import ReceiptBundle, check_bundle, facts_now, parse_bundle
from declai.devnet.processes import RedisAddress
from declai.errors import ReceiptError
from declai.protocol.batches import BatchFile, Header, ReceiptEntry
from declai.protocol.errors import NotSettled
from declai.protocol.jobs import StageJob
from declai.protocol.options import GenerationOptions, Sampling
from declai.protocol.plan_checks import ChainFacts
from declai.protocol.receipt_checks import Transcript
from declai.protocol.receipts import SignedReceipt
from tests.support.books import FEE_BPS, LAYERS_PER_STAGE, MODEL, Books, Market
from tests.support.parties import OUTPUT_PRICE, PROMPT_PRICE, Party, make_jobs
from tests.support.settled import Case
from tests.support.stage_work import signed_receipts

PROMPT, OUTPUT, SAMPLING = [5, 6, 7, 8, 9], [40, 41, 42], Sampling(seed=7)
NUM_STAGES = 3
STRANGER = new_account()


@dataclass(frozen=True, repr=False)
class Papers:
    """An honest job as each of the three gets it."""

    case: Case
    jobs: list[StageJob]
    receipts: list[SignedReceipt]
    bundle: ReceiptBundle
    facts: ChainFacts
    payers_facts: ChainFacts

    @property
    def market(self) -> Market:
        return self.case.books.market

    def signer_of(self, part: str, stage: int) -> LocalAccount:
        return self.market.gateway.signer if part == "assignment" else self.market.nodes[stage].signer

    def gateway_accepts(self, jobs: list[StageJob], receipts: list[SignedReceipt]) -> list[StoredStage] | None:
        try:
            return checked_stages(jobs, receipts, Transcript(PROMPT, OUTPUT, SAMPLING), self.facts, FEE_BPS)
        except AttemptFailed:
            return None

    def payer_accepts(self, bundle: ReceiptBundle) -> bool:
        try:
            return check_bundle(bundle, self.payers_facts, None) == self.bundle.cost
        except ReceiptError:
            return False

    def anyone_accepts(self, file: BatchFile) -> bool:
        """Even when the chain anchored what the file says."""
        try:
            return self.case.verify(self.case.newest, self.case.anchored(file), file).ok
        except NotSettled:
            return False


@pytest.fixture(scope="module")
def papers(market: Market, tmp_path_factory: pytest.TempPathFactory, redis_server: RedisAddress) -> Iterator[Papers]:
    folder = tmp_path_factory.mktemp("one-verifier")
    books = Books(market, folder, f"sqlite:///{folder / 'gateway.db'}", redis_server.url)
    offer = Offer(0, NUM_STAGES * LAYERS_PER_STAGE, 0, 0, PROMPT_PRICE, OUTPUT_PRICE)
    for node in market.nodes:
        market.world.send(node.operator, market.chain.nodes.set_offer(model_id(MODEL), offer))
    facts = ChainFacts(
        domain=market.chain.domain,
        gateway_signer=market.gateway.signer.address,
        node_signers={node.address: node.signer.address for node in market.nodes},
        num_layers={NUM_STAGES * LAYERS_PER_STAGE},
        max_fee_bps=FEE_BPS,
        offers={node.address: [offer] for node in market.nodes},
    )
    session = market.open_session()
    books.serve(session)
    (earlier,) = books.settlement.run()
    admitted = books.admit(session)
    jobs = make_jobs(
        Party(market.gateway.operator, market.gateway.signer),
        [Party(node.operator, node.signer) for node in market.nodes],
        num_prompt_tokens=len(PROMPT),
        options=GenerationOptions(sampling=SAMPLING),
        session=market.session_account,
        domain=market.chain.domain,
        request=admitted.message,
    )
    receipts = signed_receipts(jobs, [node.signer for node in market.nodes], PROMPT, OUTPUT, SAMPLING)
    stages = checked_stages(jobs, receipts, Transcript(PROMPT, OUTPUT, SAMPLING), facts, FEE_BPS)
    books.admission.finish(
        admitted,
        finish_reason="stop",
        num_prompt_tokens=len(PROMPT),
        num_output_tokens=len(OUTPUT),
        fee=gateway_fee([stage.cost for stage in stages], FEE_BPS),
        stages_done=stages,
    )
    bundle = parse_bundle(json.loads(json.dumps(read_receipts(books.store, admitted.request))))
    (row,) = books.settlement.run()
    state = books.index.sync()
    batches = {batch.root: batch for batch in state.batches.values()}
    link = Header.from_bytes(books.blocks.read_bytes(row.cid, 2**20)).link
    file = BatchFile.from_bytes(books.blocks.read_bytes(str(link), 2**20))
    case = Case(books, state, batches[row.root], file, batches[earlier.root], "", admitted.request)
    yield Papers(case, jobs, receipts, bundle, facts, facts_now(bundle, market.chain, market.gateway.address))
    books.close()


def test_all_three_accept_the_honest_papers(papers: Papers) -> None:
    assert papers.gateway_accepts(papers.jobs, papers.receipts) is not None
    assert papers.payer_accepts(papers.bundle)
    assert papers.anyone_accepts(papers.case.file)


def changed(value: Any, data: st.DataObject) -> Any:
    """Another value of the same type."""
    if isinstance(value, int):
        return data.draw(st.integers(0, 255) | st.sampled_from([value + 1, max(0, value - 1)]))
    if isinstance(value, bytes):
        at, bit = data.draw(st.integers(0, len(value) - 1)), data.draw(st.integers(0, 7))
        return bytes(byte ^ (1 << bit) if index == at else byte for index, byte in enumerate(value))
    assert isinstance(value, str)
    return STRANGER.address


def with_field(message: SignedMessage, field: str, value: Any) -> SignedMessage:
    return message.model_copy(update={field: value})


# Where else a message stands with its signature: on a job or on a receipt, on a payer's stage, in a batch.
SIGNATURES = {"assignment": "assignment_signature", "receipt": "signature"}


def change_message(papers: Papers, part: str, stage: int, update: dict[str, Any]) -> list[bool]:
    """Who accepts the papers with a stage's assignment, receipt or a signature of theirs replaced."""
    jobs, receipts, bundle = list(papers.jobs), list(papers.receipts), papers.bundle
    if part == "assignment":
        jobs[stage] = jobs[stage].model_copy(update=update)
    else:
        receipts[stage] = receipts[stage].model_copy(update=update)
    stages = [s.model_copy(update=update) if s.stage == stage else s for s in bundle.stages]
    file = change_entries(papers.case.file, stage, update)
    return [
        papers.gateway_accepts(jobs, receipts) is not None,
        papers.payer_accepts(bundle.model_copy(update={"stages": stages})),
        papers.anyone_accepts(file),
    ]


def change_entries(file: BatchFile, stage: int, update: dict[str, Any]) -> BatchFile:
    def entry_of(entry: ReceiptEntry) -> ReceiptEntry:
        return entry.model_copy(update=update) if entry.assignment.stage == stage else entry

    payouts = [p.model_copy(update={"receipts": list(map(entry_of, p.receipts))}) for p in file.payouts]
    return file.model_copy(update={"payouts": payouts})


MESSAGE_FIELDS = [
    *(("assignment", field) for field in Assignment.model_fields),
    *(("receipt", field) for field in ("assignment", "node", "prompt_tokens", "output_tokens", "inputs", "outputs")),
    *(("receipt", field) for field in ("cost", "started_at", "finished_at")),
]
UNHURRIED = settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@UNHURRIED
@given(field=st.sampled_from(MESSAGE_FIELDS), stage=st.integers(0, NUM_STAGES - 1), data=st.data())
def test_one_changed_field_of_a_signed_message_is_found_by_all(
    papers: Papers, field: tuple[str, str], stage: int, data: st.DataObject
) -> None:
    part, name = field
    honest = getattr(papers.bundle.stages[stage], part)
    value = changed(getattr(honest, name), data)
    if value == getattr(honest, name):
        return
    assert change_message(papers, part, stage, {part: with_field(honest, name, value)}) == [False] * 3


@UNHURRIED
@given(field=st.sampled_from(MESSAGE_FIELDS), stage=st.integers(0, NUM_STAGES - 1), data=st.data())
def test_so_it_is_when_who_signed_it_signs_the_lie_too(
    papers: Papers, field: tuple[str, str], stage: int, data: st.DataObject
) -> None:
    part, name = field
    honest = getattr(papers.bundle.stages[stage], part)
    value = changed(getattr(honest, name), data)
    if value == getattr(honest, name) or name in ("started_at", "finished_at"):  # a node's own word, within bounds
        return
    lie = with_field(honest, name, value)
    update = {part: lie, SIGNATURES[part]: sign(lie, papers.market.chain.domain, papers.signer_of(part, stage))}
    accepted = change_message(papers, part, stage, update)
    if (name, stage) == ("outputs", NUM_STAGES - 1):
        accepted = accepted[:1]  # the head over the output's tokens: only who saw these can compute it
    assert not any(accepted)


@UNHURRIED
@given(
    field=st.sampled_from([("assignment", "assignment_signature"), ("receipt", "signature"), ("receipt", "records")]),
    stage=st.integers(0, NUM_STAGES - 1),
    data=st.data(),
)
def test_a_changed_signature_or_record_is_found_by_all(
    papers: Papers, field: tuple[str, str], stage: int, data: st.DataObject
) -> None:
    part, name = field
    value = changed(getattr(papers.bundle.stages[stage], name), data)
    accepted = change_message(papers, part, stage, {name: value})
    if (name, stage) == ("records", NUM_STAGES - 1):
        accepted = accepted[:1]  # they hold the output's tokens, too: only who saw these can check them
    assert not any(accepted)


@UNHURRIED
@given(name=st.sampled_from(sorted(InferenceRequest.model_fields)), data=st.data())
def test_a_changed_field_of_the_request_is_found_by_all(papers: Papers, name: str, data: st.DataObject) -> None:
    honest = papers.bundle.message
    value = changed(getattr(honest, name), data)
    if value == getattr(honest, name):
        return
    lie = with_field(honest, name, value)
    jobs = [job.model_copy(update={"request": lie}) for job in papers.jobs]
    assert papers.gateway_accepts(jobs, papers.receipts) is None
    assert not papers.payer_accepts(papers.bundle.model_copy(update={"message": lie}))
    for stage in range(NUM_STAGES):
        assert not papers.anyone_accepts(change_entries(papers.case.file, stage, {"request": lie}))


@pytest.mark.parametrize("change", [-1, 1, 10**6])
def test_another_cost_is_found_by_who_pays_and_by_anyone(papers: Papers, change: int) -> None:
    bundle, file = papers.bundle, papers.case.file
    assert not papers.payer_accepts(bundle.model_copy(update={"cost": bundle.cost + change}))
    assert not papers.payer_accepts(bundle.model_copy(update={"fee": bundle.fee + change}))
    claims = [claim.model_copy(update={"cost": claim.cost + change}) for claim in file.claims]
    assert not papers.anyone_accepts(file.model_copy(update={"claims": claims}))


def test_a_dear_fee_a_broken_cap_and_a_broken_offer_are_found(papers: Papers) -> None:
    bundle, earned = papers.bundle, papers.bundle.cost - papers.bundle.fee
    dear = {"fee": earned // 2, "cost": earned + earned // 2}
    assert not papers.payer_accepts(bundle.model_copy(update=dear))
    assert papers.gateway_accepts(papers.jobs, papers.receipts) is not None
    for facts in (
        replace(papers.facts, max_fee_bps=FEE_BPS - 1),
        replace(papers.facts, gateway_signer=None),
        replace(papers.facts, num_layers={5}),
        replace(papers.facts, offers={}),
        replace(
            papers.facts,
            offers={address: [Offer(0, 6, 1, 0, 10**18, 10**18)] for address in papers.facts.node_signers},
        ),
        replace(
            papers.facts,
            offers={
                address: [Offer(0, 6, 0, 0, PROMPT_PRICE, OUTPUT_PRICE - 1)] for address in papers.facts.node_signers
            },
        ),
    ):
        assert replace(papers, facts=facts).gateway_accepts(papers.jobs, papers.receipts) is None


@pytest.mark.parametrize("field", ["stage", "num_output_tokens"])
def test_what_stands_beside_the_messages_is_held_to_them(papers: Papers, field: str) -> None:
    bundle = papers.bundle
    if field == "stage":
        stages = [stage.model_copy(update={"stage": stage.stage + 1}) for stage in bundle.stages]
        assert not papers.payer_accepts(bundle.model_copy(update={"stages": stages}))
        assert not papers.anyone_accepts(change_entries(papers.case.file, 1, {"num_stages": 2}))
    else:
        assert not papers.payer_accepts(bundle.model_copy(update={"num_output_tokens": 4}))
