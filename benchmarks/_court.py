"""What claims, challenges, proofs and trials cost in gas: a part of `settlement.py`."""

from __future__ import annotations

import hashlib
from typing import Any

from _gas import Bench

from declai.chain.contracts.court import EquivocationProof
from declai.chain.contracts.jury import Vote
from declai.chain.contracts.ledger import Claim, Inclusion, Payout, SignedWork
from declai.chain.contracts.models import model_id
from declai.chain.contracts.nodes import Offer
from declai.chain.merkle import SumTree, header_block, payout_word
from declai.chain.messages import Acceptance, Assignment, InferenceReceipt, InferenceRequest, digest, new_account, sign
from declai.protocol.commitments import CHUNK_TOKENS, ChunkRecord, record_chain

MODEL = model_id("benchmark")


def claims_and_proofs(bench: Bench) -> dict[str, Any]:
    """Direct claim, payout challenge and its answer, equivocation."""
    chain, node, domain = bench.chain, bench.nodes[0], bench.chain.domain
    request = bench.request(0, 10_000, 0)
    assignment = assignment_of(bench, request)
    work = SignedWork(request, sign(request, domain, bench.keys[0]), assignment, sign(assignment, domain, bench.signer))
    receipt = evidence_of(bench, request, 1).receipt
    other = receipt.model_copy(update={"outputs": b"x" * 32})
    challenged = receipt.model_copy(update={"assignment": b"a" * 32})
    figures: dict[str, Any] = {}
    bench.warp(3_700)
    figures["open_claim_gas"] = bench.gas(node.address, chain.ledger.open_claim(work, receipt))
    bench.warp(86_400 // 2)
    assignment_digest = digest(assignment, domain)
    figures["pay_claim_gas"] = bench.gas(node.address, chain.ledger.pay_claim(request.session, assignment_digest))
    receipt_digest = digest(challenged, domain)
    acceptance = sign(Acceptance(receipt=receipt_digest), domain, bench.signer)
    call = chain.court.challenge_payout(bench.gateway.address, challenged, acceptance)
    figures["challenge_payout_gas"] = bench.gas(node.address, call)
    inclusion = settled_inclusion(bench, receipt_digest, challenged.cost)
    answer = chain.court.answer_challenge(receipt_digest, inclusion)
    figures["answer_challenge_gas"] = bench.gas(bench.gateway.address, answer)
    signer = bench.node_signers[node.address]
    proof = chain.court.prove_equivocation(receipt, sign(receipt, domain, signer), other, sign(other, domain, signer))
    figures["prove_equivocation_gas"] = bench.gas(bench.payer.address, proof)
    return figures


def settled_inclusion(bench: Bench, receipt: bytes, cost: int) -> Inclusion:
    """Settles a batch of 1,000 receipts of one node, this one among them, and gives its path."""
    tree = SumTree([(receipt, cost), *((index.to_bytes(32, "big"), 10**15) for index in range(999))])
    session = bench.sessions[0]
    settled = bench.chain.ledger.session(session).settled
    request = bench.request(0, 20_000, settled + tree.total)
    claim = Claim(request, sign(request, bench.chain.domain, bench.keys[0]), 0)
    link = b"\x01\x55\x12\x20" + bytes(32)
    header = hashlib.sha256(header_block([tree.root], link)).digest()
    payout = Payout(bench.nodes[0].address, tree.total)
    slot = 10_000
    call = bench.chain.ledger.settle(bench.gateway.address, [claim], [payout], header, slot)
    bench.gas(bench.signer.address, call)
    word = payout_word(payout.node, payout.amount)
    return Inclusion(
        gateway=bench.gateway.address,
        slot=slot,
        payouts=(word,),
        subroots=(tree.root,),
        link=link,
        payout_index=0,
        top=tree.top,
        num_receipts=tree.num_leaves,
        receipt=receipt,
        cost=cost,
        receipt_index=0,
        receipt_proof=tuple(tree.proof(0)),
    )


def assignment_of(bench: Bench, request: InferenceRequest) -> Assignment:
    """Four layers of the first node, as stage 0."""
    return Assignment(
        request=digest(request, bench.chain.domain),
        stage=0,
        first_layer=0,
        end_layer=4,
        numeric_profile=0,
        shard=bytes(32),
        node=bench.nodes[0].address,
        prompt_price=10**22,
        output_price=10**22,
        attempt=1,
        deadline=bench.chain.timestamp(),
    )


def evidence_of(bench: Bench, request: InferenceRequest, num_records: int) -> EquivocationProof:
    """A receipt over `num_records` full chunks, and its records."""
    domain, node = bench.chain.domain, bench.nodes[0]
    assignment = assignment_of(bench, request)
    job = hashlib.sha256(assignment.request + assignment.attempt.to_bytes(4)).digest()
    roots = [hashlib.sha256(index.to_bytes(4)).digest() for index in range(num_records)]
    records = [
        ChunkRecord(1, 0, 0, index, index * CHUNK_TOKENS, CHUNK_TOKENS, job[:16], bytes(32), root, root).pack()
        for index, root in enumerate(roots)
    ]
    receipt = InferenceReceipt(
        assignment=digest(assignment, domain),
        node=node.address,
        prompt_tokens=num_records * CHUNK_TOKENS,
        output_tokens=1,
        inputs=bytes(32),
        outputs=record_chain(digest(assignment, domain), records),
        cost=10**17,
        started_at=assignment.deadline,
        finished_at=assignment.deadline,
    )
    signature = sign(receipt, domain, bench.node_signers[node.address])
    return EquivocationProof(
        bench.gateway.address,
        assignment,
        sign(assignment, domain, bench.signer),
        receipt,
        signature,
        b"".join(records),
    )


def trial(bench: Bench) -> dict[str, Any]:
    """A compute dispute from its bond to the acquittal, over receipts of 256 and of 2,048 positions."""
    chain, figures = bench.chain, dict[str, Any]()
    jurors = bench.auditors(6, Offer(0, 64, 0, 0, 0, 0), MODEL)
    figures["take_seat_gas"] = [bench.gas(juror, chain.jury.take_seat()) for juror in jurors][-1]
    bench.warp(1)
    disputes = []
    for num_records in (8, 64):
        request = bench.request(0, 30_000 + num_records, 0).model_copy(update={"model": MODEL})
        evidence = evidence_of(bench, request, num_records)
        call = chain.court.open_dispute(evidence, request, 0)
        figures[f"open_dispute_{num_records}_chunks_gas"] = bench.gas(bench.payer.address, call)
        disputes.append(chain.court.dispute_over(digest(evidence.assignment, chain.domain), 0))
    dispute_id = disputes[0]
    opening = chain.court.publish_opening(dispute_id, "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku")
    figures["publish_opening_gas"] = bench.gas(bench.nodes[0].address, opening)
    for _ in range(5):
        bench.warp(1)
    figures["draw_jury_gas"] = bench.gas(bench.payer.address, chain.jury.draw_jury(dispute_id))
    drawn = chain.jury.round(dispute_id, 0).jurors
    votes = {juror: Vote(0, bytes(32), new_account().key) for juror in drawn}
    for juror, vote in votes.items():
        commitment = vote.commitment(chain.chain_id, chain.jury.address, dispute_id, 0, juror)
        figures["commit_vote_gas"] = bench.gas(juror, chain.jury.commit_vote(dispute_id, commitment))
    bench.warp(12 * 3_600)
    for juror, vote in votes.items():
        figures["reveal_vote_gas"] = bench.gas(juror, chain.jury.reveal_vote(dispute_id, vote))
    bench.warp(chain.jury.closes_at(dispute_id) - chain.timestamp())
    figures["finalize_5_jurors_gas"] = bench.gas(bench.payer.address, chain.court.finalize(dispute_id))
    return figures
