"""What settled batches did with a node's receipts. Each batch is read once, its outcomes noted in the node's store.

The chain commits to every node's receipts by a sum tree; a batch file counts only as far as it bears that out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from declai.chain.errors import BadSignature
from declai.chain.messages import Domain, InferenceRequest, digest, recover
from declai.chain.state import ChainState, SettledBatch
from declai.ipfs.errors import IpfsError
from declai.protocol.batches import BatchFile, Header, sum_tree
from declai.worker.job.store import NodeStore, StoredReceipt

Read = Callable[[SettledBatch], tuple[Header, BatchFile]]


def receipts_here(store: NodeStore, domain: Domain, operator: str) -> list[StoredReceipt]:
    """The operator's unpaid receipts of this deployment, oldest first."""
    return [kept for kept in store.unpaid() if kept.job.domain == domain and kept.job.assignment.node == operator]


def note_batches(store: NodeStore, state: ChainState, domain: Domain, operator: str, read: Read) -> list[SettledBatch]:
    """Read the batches that may pay or leave out unpaid receipts; returns those that cannot be read now.

    These are their gateways' batches that pay the operator, from whatever session, or debit the receipts' sessions.
    """
    for root in store.batches() - {root for _, root in state.batches}:
        store.forget_batch(root)
    unpaid, known = receipts_here(store, domain, operator), store.batches()
    gateways = {kept.job.gateway.address for kept in unpaid}
    sessions = {kept.job.request.session for kept in unpaid}
    unreadable = []
    for batch in state.batches.values():
        pays = any(payout.node == operator for payout in batch.payouts)
        concerns = pays or any(debit.session in sessions for debit in batch.debits)
        if batch.root in known or batch.gateway not in gateways or not concerns:
            continue
        try:
            header, file = read(batch)
            included = included_receipts(batch, header, file, domain, operator)
        except (IpfsError, ValueError, OverflowError):
            unreadable.append(batch)
            continue
        paid = [kept for kept in unpaid if _digest(kept) in included]
        left_out = [kept for kept in unpaid if _digest(kept) not in included and is_charged(kept, batch, file)]
        store.note_batch(batch.root, _jobs(paid), _jobs(left_out))
    return unreadable


def included_receipts(
    batch: SettledBatch, header: Header, file: BatchFile, domain: Domain, operator: str
) -> set[bytes]:
    """Digests of the receipts for which a batch pays the operator.

    Raises:
        ValueError, OverflowError: the file shows other receipts than those that the chain commits to.
    """
    if len(header.subroots) != len(batch.payouts):
        return set()  # without a subroot for each payout, a batch proves no payment
    found: set[bytes] = set()
    for index, payout in enumerate(batch.payouts):
        if payout.node != operator:
            continue
        # HAZARD: a node may have several payouts in a batch, and whatever one of them pays is paid.
        entries = file.payouts[index].receipts if index < len(file.payouts) else []
        tree = sum_tree(entries, domain)
        if tree.root != header.subroots[index]:
            raise ValueError("the batch file shows other receipts than the batch commits to")
        if tree.total == payout.amount:  # or the ledger takes it as no proof, whatever it lists
            found |= {digest(entry.receipt, domain) for entry in entries}
    return found


def may_pay(batch: SettledBatch, kept: StoredReceipt) -> bool:
    """Whether a batch that nobody can read may hold a receipt. Only its gateway's count, as the ledger sees it."""
    receipt = kept.receipt.receipt
    pays_enough = any(payout.node == receipt.node and payout.amount >= receipt.cost for payout in batch.payouts)
    return pays_enough and batch.gateway == kept.job.gateway.address


def is_charged(kept: StoredReceipt, batch: SettledBatch, file: BatchFile) -> bool:
    """Whether the batch's claims cover the receipt's request: by listing it, or by a later acknowledgement.

    Only claims count that the session's key signed: the chain does not commit to the file's claims, and a gateway that
    wrote others into it could keep nodes from claiming what it owes them.
    """
    request, domain = kept.job.request, kept.job.domain
    if all(debit.session != request.session for debit in batch.debits):
        return False
    signers = (
        _signer(claim.request, domain, claim.signature)
        for claim in file.claims
        if claim.request.session == request.session
        and (claim.request.nonce == request.nonce or claim.request.acked_below > request.nonce)
    )
    return any(signer and signer == _signer(request, domain, kept.job.request_signature) for signer in signers)


def _signer(request: InferenceRequest, domain: Domain, signature: bytes) -> str | None:
    try:
        return recover(request, domain, signature)
    except BadSignature:
        return None


def _digest(kept: StoredReceipt) -> bytes:
    return digest(kept.receipt.receipt, kept.job.domain)


def _jobs(found: Iterable[StoredReceipt]) -> list[bytes]:
    return [kept.job.job_id for kept in found]
