"""Checks a request's settlement from the chain and IPFS alone: nothing that a gateway says is believed.

The batch that holds the request is found among those on chain; its file is read by CID; then every signature, count,
price, commitment, sum tree, payout and debit is computed again.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

from declai.chain.messages import Domain, digest, signed_by
from declai.chain.state import ChainState, SettledBatch
from declai.ipfs.errors import IpfsError
from declai.ipfs.store import BlockStore
from declai.protocol.batches import (
    LINK_BYTES,
    MAX_BATCH_BYTES,
    MAX_NODES,
    SUBROOT_BYTES,
    BatchFile,
    Header,
    ReceiptEntry,
    header_cid,
    root_of,
    sum_tree,
)
from declai.protocol.errors import NotSettled
from declai.protocol.job_checks import Charge, JobPapers, verify_job
from declai.protocol.plan_checks import ChainFacts, StageOrder
from declai.protocol.problems import CHARGE_PROBLEMS, PLAN_PROBLEMS
from declai.protocol.receipts import SignedReceipt


@dataclass(frozen=True)
class LedgerFacts:
    """What the chain says of what was settled: `state` from an index, `max_fee_bps` as the ledger has it now."""

    domain: Domain
    max_fee_bps: int
    state: ChainState


@dataclass
class SettlementReport:
    """What was checked (one line each) and what does not hold. Amounts in base units."""

    request: str
    root: str
    block: int
    cid: str
    checks: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    cost: int = 0
    fee: int = 0
    earnings: dict[str, int] = field(default_factory=dict)
    payer: str = ""
    num_receipts_in_batch: int = 0

    @property
    def ok(self) -> bool:
        return not self.problems

    def require(self, holds: bool, text: str) -> None:
        (self.checks if holds else self.problems).append(text)


def verify_request(
    request: str, facts: LedgerFacts, store: BlockStore, fetch: Callable[[str], None] | None
) -> SettlementReport:
    """Verify one request (0x-hex digest).

    Raises:
        NotSettled: it is in no batch whose file can be read; the text tells of those that cannot.
    """
    unreadable = []
    for batch in sorted(facts.state.batches.values(), key=lambda found: -found.block):
        try:
            header, file = read_batch(batch, store, fetch)
        except (IpfsError, ValueError) as error:
            unreadable.append(f"{header_cid(batch.header)}: {error}")
            continue
        entries = [
            entry
            for payout in file.payouts
            for entry in payout.receipts
            if "0x" + digest(entry.request, facts.domain).hex() == request
        ]
        if entries and _may_settle(batch, entries[0], facts.state):
            return _verify(request, entries, batch, header, file, facts)
    hint = f" Batches that could not be read: {'; '.join(unreadable)}" if unreadable else ""
    raise NotSettled(f"request {request} is in none of {len(facts.state.batches)} settled batches.{hint}")


def _may_settle(batch: SettledBatch, entry: ReceiptEntry, state: ChainState) -> bool:
    """Whether the batch is by the session's gateway: any other one may put a stranger's request into its file."""
    session = state.sessions.get(entry.request.session)
    return session is None or session.gateway == batch.gateway


def read_batch(batch: SettledBatch, store: BlockStore, fetch: Callable[[str], None] | None) -> tuple[Header, BatchFile]:
    """The header and the file of a batch. Raises IpfsError or ValueError."""

    def read(cid: str, max_bytes: int) -> bytes:
        if fetch is not None:
            fetch(cid)
        return store.read_bytes(cid, max_bytes)

    header = Header.from_bytes(read(header_cid(batch.header), SUBROOT_BYTES * MAX_NODES + LINK_BYTES))
    return header, BatchFile.from_bytes(read(str(header.link), MAX_BATCH_BYTES))


def _verify(
    request: str,
    entries: list[ReceiptEntry],
    batch: SettledBatch,
    header: Header,
    file: BatchFile,
    facts: LedgerFacts,
) -> SettlementReport:
    verdict = SettlementReport(request, "0x" + batch.root.hex(), batch.block, header_cid(batch.header))
    verdict.num_receipts_in_batch = sum(len(payout.receipts) for payout in file.payouts)
    _check_file(verdict, batch, header, file, facts.domain)
    _check_request(verdict, entries[0], facts)
    _check_job(verdict, entries, batch, file, facts)
    _check_claims(verdict, entries[0], file, facts)
    _check_debits(verdict, batch, file, facts.state)
    verdict.require(
        any(debit.session == entries[0].request.session for debit in batch.debits),
        "the request's session was debited in this batch",
    )
    return verdict


def _check_file(
    verdict: SettlementReport, batch: SettledBatch, header: Header, file: BatchFile, domain: Domain
) -> None:
    """The file is what the chain anchored: same header, same payouts, same sums."""
    verdict.require(
        (file.chain_id, file.ledger, file.gateway) == (domain.chain_id, domain.ledger, batch.gateway),
        "the batch file is for this chain, this ledger and this gateway",
    )
    verdict.require(
        root_of(batch.payouts, batch.header) == batch.root,
        f"the root on chain commits to {len(batch.payouts)} payouts and to the header",
    )
    trees = [sum_tree(payout.receipts, domain) for payout in file.payouts]
    verdict.require(
        tuple(tree.root for tree in trees) == header.subroots, "every node's receipts give the subroot in the header"
    )
    recomputed = [(payout.node, tree.total) for payout, tree in zip(file.payouts, trees, strict=True)]
    verdict.require(
        recomputed == [(payout.node, payout.amount) for payout in batch.payouts],
        "every node's sum tree gives the payout it got on chain",
    )
    verdict.require(
        all(entry.receipt.node == payout.node for payout in file.payouts for entry in payout.receipts),
        "every receipt is paid to the node that made it",
    )


def _check_request(verdict: SettlementReport, entry: ReceiptEntry, facts: LedgerFacts) -> None:
    """The payer's session key signed the request."""
    session = facts.state.sessions.get(entry.request.session)
    if session is None:
        verdict.checks.append(
            "not checked again: the session is closed since, and its key gone from the ledger, which checked the "
            "claims' signatures when it settled"
        )
        return
    verdict.payer = session.payer
    verdict.require(
        signed_by(entry.request, facts.domain, entry.request_signature, session.key),
        "the request is signed by its session's key",
    )


def _check_job(
    verdict: SettlementReport,
    entries: list[ReceiptEntry],
    batch: SettledBatch,
    file: BatchFile,
    facts: LedgerFacts,
) -> None:
    """All stages are there, ordered, signed, priced, and what one sent is what the next received."""
    stages = sorted(entries, key=lambda entry: entry.assignment.stage)
    verdict.require(
        {entry.num_stages for entry in stages} == {len(stages)},
        f"the receipts of all {stages[0].num_stages} stages are in the batch, each once",
    )
    verdict.earnings = {entry.assignment.node: entry.receipt.cost for entry in entries}
    earned = sum(entry.receipt.cost for entry in stages)
    cost = next((claim.cost for claim in file.claims if claim.request == stages[0].request), None)
    verdict.cost, verdict.fee = (earned, 0) if cost is None else (cost, cost - earned)
    papers = JobPapers(
        request=stages[0].request,
        orders=[StageOrder(e.assignment, e.assignment_signature) for e in stages],
        receipts=[SignedReceipt(receipt=e.receipt, signature=e.signature, records=e.records) for e in stages],
        num_prompt_tokens=stages[0].receipt.prompt_tokens,
        num_output_tokens=stages[0].receipt.output_tokens,
        charge=None if cost is None else Charge(cost, verdict.fee),
    )
    problems = verify_job(papers, _facts_then(entries, batch, facts))
    verdict.problems += map(str, problems)
    kinds = {problem.kind for problem in problems}
    if not kinds & PLAN_PROBLEMS:
        end = stages[-1].assignment.end_layer
        verdict.checks.append(f"the gateway's signer ordered every stage, up to layer {end}, where the model ends")
    if not kinds - PLAN_PROBLEMS - CHARGE_PROBLEMS:
        verdict.checks.append(
            f"{len(stages)} receipts: signatures, counts, prices, commitments, and neighbours agree byte for byte"
        )
    if papers.charge is not None and not kinds & CHARGE_PROBLEMS:
        verdict.checks.append(
            f"the request's cost {cost} = earnings {earned} + fee {verdict.fee}, within the signed cap and the "
            "ledger's maximum"
        )


def _facts_then(entries: list[ReceiptEntry], batch: SettledBatch, facts: LedgerFacts) -> ChainFacts:
    """What the index knows. The offers may have changed since the request was served: they are not asked."""
    state = facts.state
    gateway, model = state.nodes.get(batch.gateway), state.models.get(entries[0].request.model)
    nodes = {entry.assignment.node for entry in entries} & set(state.nodes)
    return ChainFacts(
        domain=facts.domain,
        gateway_signer=gateway.signer if gateway is not None else None,
        node_signers={node: state.nodes[node].signer for node in nodes},
        num_layers={version.num_layers for version in model.versions} if model is not None else set(),
        max_fee_bps=facts.max_fee_bps,
    )


def _check_claims(verdict: SettlementReport, entry: ReceiptEntry, file: BatchFile, facts: LedgerFacts) -> None:
    """The claims on the request's session are what the ledger takes, and one of them covers the request."""
    request, session = entry.request, facts.state.sessions.get(entry.request.session)
    claims = [claim for claim in file.claims if claim.request.session == request.session]
    nonces = [claim.request.nonce for claim in claims]
    acked_below = claims[-1].request.acked_below if claims else 0
    verdict.require(
        request in [claim.request for claim in claims] or request.nonce < acked_below,
        "the request is claimed in this batch, or acknowledged by the newest one that is",
    )
    verdict.require(
        all(acked_below <= nonce for nonce in nonces) and all(a < b for a, b in itertools.pairwise(nonces)),
        f"the session's {len(claims)} claims are in order, each once, and none is acknowledged already",
    )
    verdict.require(
        all(claim.cost <= claim.request.max_cost for claim in claims), "every claim is within the cap that was signed"
    )
    if session is not None:
        verdict.require(
            all(signed_by(claim.request, facts.domain, claim.signature, session.key) for claim in claims),
            "every claim is signed by the session's key",
        )


def _check_debits(verdict: SettlementReport, batch: SettledBatch, file: BatchFile, state: ChainState) -> None:
    debits, payouts = sum(d.amount for d in batch.debits), sum(p.amount for p in batch.payouts)
    verdict.require(batch.fee >= 0, f"on chain the debits {debits} = payouts {payouts} + fee {batch.fee}, to the unit")
    verdict.require(
        _debits_of(batch, file, state) == {debit.session: debit.amount for debit in batch.debits},
        "every session's debit is what its signed claims add up to, less what was settled before",
    )


def _debits_of(batch: SettledBatch, file: BatchFile, state: ChainState) -> dict[bytes, int]:
    """Each session's debit, computed again from the file's claims and the batches before."""
    totals: dict[bytes, int] = {}
    spent: dict[bytes, int] = {}
    for claim in file.claims:
        session = claim.request.session
        spent[session] = claim.request.spent  # nonces rise: the newest one's stays
        totals[session] = totals.get(session, 0) + claim.cost
    settled = dict.fromkeys(totals, 0)
    for earlier in itertools.takewhile(lambda other: other is not batch, state.batches.values()):
        for debit in earlier.debits:
            if debit.session in settled:
                settled[debit.session] += debit.amount
    return {session: spent[session] + total - settled[session] for session, total in totals.items()}
