"""What a node keeps of its work, as gateways, nodes and payers sign it; and batches that pay it, or do not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256

from eth_account.signers.local import LocalAccount

from declai.chain.contracts.ledger import Payout, session_id
from declai.chain.messages import Assignment, Domain, InferenceReceipt, InferenceRequest, digest, new_account, sign
from declai.chain.state import ChainState, Debit, SettledBatch
from declai.ipfs.cid import RAW, Cid
from declai.protocol.batches import BatchFile, ClaimEntry, Header, PayoutEntry, ReceiptEntry, root_of, sum_tree
from declai.protocol.jobs import StageJob
from declai.protocol.options import GenerationOptions
from declai.protocol.peers import Peer
from declai.protocol.receipts import SignedReceipt, acceptance_of, cost_of
from declai.worker.job.store import NodeStore, StoredReceipt

DOMAIN = Domain(chain_id=31337, ledger="0x" + "11" * 20)
FINISHED_AT, DEADLINE = 1_000_000, 1_000_600


@dataclass
class Papers:
    """One session of a payer with a gateway, and one node that works for it, alone. Times in Unix seconds."""

    domain: Domain = DOMAIN
    gateway: str = field(default_factory=lambda: str(new_account().address))
    gateway_signer: LocalAccount = field(default_factory=new_account)
    node: str = field(default_factory=lambda: str(new_account().address))
    signer: LocalAccount = field(default_factory=new_account)
    key: LocalAccount = field(default_factory=new_account)
    session: bytes = session_id("0x" + "22" * 20, 1)
    deadline: int = DEADLINE
    finished_at: int = FINISHED_AT

    def request(self, nonce: int = 1, acked_below: int = 1, spent: int = 0) -> InferenceRequest:
        return InferenceRequest(
            session=self.session,
            nonce=nonce,
            model=bytes(32),
            body=bytes(32),
            max_tokens=100,
            tier=0,
            max_cost=10**18,
            acked_below=acked_below,
            spent=spent,
            deadline=self.deadline,
        )

    def job(self, request: InferenceRequest, price: int = 10**18) -> StageJob:
        """The job of the only stage."""
        assignment = Assignment(
            request=digest(request, self.domain),
            stage=0,
            first_layer=0,
            end_layer=6,
            numeric_profile=0,
            shard=bytes(32),
            node=self.node,
            prompt_price=price,
            output_price=price,
            attempt=0,
            deadline=self.deadline,
        )
        return StageJob(
            chain_id=self.domain.chain_id,
            ledger=self.domain.ledger,
            request=request,
            request_signature=sign(request, self.domain, self.key),
            assignment=assignment,
            assignment_signature=sign(assignment, self.domain, self.gateway_signer),
            model_name="test/papers",
            manifest_cid="bafkpapers",
            num_stages=1,
            attempt=0,
            gateway=Peer(address=self.gateway, link_key=bytes(32), endpoint="tcp://127.0.0.1:9"),
            num_prompt_tokens=5,
            max_tokens=100,
            options=GenerationOptions(),
        )

    def keep(
        self, store: NodeStore, request: InferenceRequest, *, accepted: bool = False, price: int = 10**18
    ) -> StoredReceipt:
        """Work done: the receipt lies in the node's store."""
        job = self.job(request, price)
        receipt = InferenceReceipt(
            assignment=job.assignment_digest,
            node=self.node,
            prompt_tokens=5,
            output_tokens=7,
            inputs=bytes(32),
            outputs=bytes(32),
            cost=cost_of(job.assignment, request, 5, 7),
            started_at=self.finished_at - 1,
            finished_at=self.finished_at,
        )
        store.save(job, SignedReceipt(receipt=receipt, signature=sign(receipt, self.domain, self.signer), records=b""))
        if accepted:
            acceptance = sign(acceptance_of(receipt, self.domain), self.domain, self.gateway_signer)
            store.accept(job.job_id, acceptance)
        kept = store.get(job.job_id)
        assert kept is not None
        return kept


def entry(kept: StoredReceipt) -> ReceiptEntry:
    """A receipt as a batch file lists it."""
    job = kept.job
    return ReceiptEntry(
        request=job.request,
        request_signature=job.request_signature,
        num_stages=1,
        assignment=job.assignment,
        assignment_signature=job.assignment_signature,
        receipt=kept.receipt.receipt,
        signature=kept.receipt.signature,
        records=b"",
    )


@dataclass
class Settled:
    """A batch as the chain has it, and the header and file that are given out for it."""

    batch: SettledBatch
    header: Header
    file: BatchFile


def settle(papers: Papers, claims: Sequence[InferenceRequest], paid: Sequence[StoredReceipt]) -> Settled:
    """A batch whose claims are these requests, and which pays these receipts."""
    payouts = [PayoutEntry(node=papers.node, receipts=[entry(kept) for kept in paid])] if paid else []
    trees = [sum_tree(payout.receipts, papers.domain) for payout in payouts]
    file = BatchFile(
        chain_id=papers.domain.chain_id,
        ledger=papers.domain.ledger,
        gateway=papers.gateway,
        slot=0,
        claims=[ClaimEntry(request=r, signature=sign(r, papers.domain, papers.key), cost=1) for r in claims],
        payouts=payouts,
    )
    header = Header(tuple(tree.root for tree in trees), Cid(RAW, sha256(file.to_bytes()).digest()))
    amounts = tuple(Payout(papers.node, tree.total) for tree in trees)
    root = root_of(amounts, header.cid.digest)
    debits = (Debit(papers.session, 1),)
    return Settled(SettledBatch(root, papers.gateway, debits, amounts, header.cid.digest, 7), header, file)


def state_of(*settled: Settled) -> ChainState:
    return ChainState(block=7, batches={(s.batch.gateway, s.batch.root): s.batch for s in settled})
