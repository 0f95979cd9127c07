"""The settlement job: nets durable receipts into `InferenceLedger.settle`, one batch at a time, whatever happens.

States in the store: planned (requests bound, file in the block store), sent (a signed transaction is stored, then
broadcast), confirmed (at its depth). A process that dies between any two lines leaves a state from which the next run
goes on: the same stored transaction is broadcast again, and what a session paid once the ledger never debits again. A
reorganisation that undoes a confirmed batch opens it again.
"""

from __future__ import annotations

import fcntl
import logging
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from eth_account.signers.local import LocalAccount

from declai.api.settlement.batch import NettedBatch, build
from declai.api.settlement.claims import ClaimAnswers
from declai.api.settlement.plan import Room, SessionClaim, choose_claim
from declai.api.store.records import BatchState, StoredBatch
from declai.api.store.store import Store
from declai.chain.client import Chain
from declai.chain.contracts.binding import Call
from declai.chain.errors import ContractRevert, NonceTaken, TransactionFailed, TransactionUnconfirmed
from declai.chain.sender import TransactionSender
from declai.ipfs.store import BlockStore
from declai.protocol.batches import MAX_BATCH_BYTES

logger = logging.getLogger(__name__)
# How far back a confirmed batch is looked at again: deeper reorganisations do not happen where we settle.
REORG_BLOCKS = 64
# Slots are taken in turn from the smallest ring that has a free one.
SLOT_RINGS = (256, 1024, 4096, 16384)


@dataclass(frozen=True)
class Settled:
    """A confirmed batch in numbers. Amounts in base units."""

    batch: int
    root: bytes
    cid: str
    block: int
    transaction: str | None
    gas_used: int | None


class Settlement:
    """Settles for one gateway. `account` is its signer; blocking, and exclusive over processes by a lock file."""

    def __init__(
        self,
        store: Store,
        blocks: BlockStore,
        chain: Chain,
        account: LocalAccount,
        *,
        gateway: str,
        depth: int,
        max_claims: int,
        max_receipts: int,
        lock_path: Path,
        stuck_after_s: float = 120.0,
    ) -> None:
        """`stuck_after_s`: a transaction that nobody mined for so long is sent again with a higher fee."""
        self._store = store
        self._blocks = blocks
        self._chain = chain
        self._gateway = gateway
        self._depth = depth
        # Half of what a reader accepts: entries are measured by an estimate.
        self._room = Room(max_claims, max_receipts, MAX_BATCH_BYTES // 2)
        self._lock_path = lock_path
        self._sender = TransactionSender(chain, account, depth=depth, timeout_s=stuck_after_s)
        self._claims = ClaimAnswers(store, blocks, chain, self._sender, gateway)

    def run(self) -> list[Settled]:
        """Finish an open batch, settle all there is, answer direct claims. Safe at any time, any number of times."""
        done = []
        with self._exclusive():
            self._reopen_undone()
            while (batch := self._store.open_batch() or self._plan()) is not None:
                settled = self._drive(batch)
                if settled is None:
                    continue  # the contract refused it; its requests are free for the next plan
                done.append(settled)
            self._claims.run()
        return done

    def collect_fees(self) -> int:
        """Move what settling earned into the operator's balance on the ledger; returns the base units."""
        fees = self._chain.ledger.fees_of(self._gateway)
        if fees:
            self._sender.send(self._chain.ledger.collect_fees(self._gateway))
        return fees

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        with self._lock_path.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _reopen_undone(self) -> None:
        for batch in self._store.confirmed_since(self._chain.block_number() - REORG_BLOCKS):
            if not self._chain.ledger.is_settled(self._gateway, batch.root):
                logger.warning("batch %d was undone by a reorganisation, sending it again", batch.id)
                self._store.reopen_batch(batch.id)

    # Planning

    def _plan(self) -> StoredBatch | None:
        batch = self._build()
        if batch is None:
            return None
        header = batch.header
        self._blocks.add(header.to_bytes())
        call = self._chain.ledger.settle(self._gateway, batch.claims, batch.payouts, header.cid.digest, batch.file.slot)
        self._store.plan_batch(batch.root, str(header.cid), call.data, batch.members)
        return self._store.open_batch()

    def _build(self) -> NettedBatch | None:
        claims: list[SessionClaim] = []
        room = self._room
        for session in self._store.unsettled_sessions():
            rows = self._store.claimable(session, self._room.num_receipts)
            claim = choose_claim(rows, room, alone=not claims)
            if claim is None or not self._is_payable(session, claim):
                continue
            claims.append(claim)
            room = claim.taken_from(room)
            if min(room.num_claims, room.num_receipts) <= 0:
                break
        if not claims:
            return None
        # The file is kept first: a batch on chain whose receipts cannot be read would be worth nothing.
        return build(
            claims,
            self._store.request_stages,
            domain=self._chain.domain,
            gateway=self._gateway,
            slot=self._free_slot(),
            link_to=self._blocks.add,
        )

    def _free_slot(self) -> int:
        """A slot of the ledger that may be written again, an old one if there is: it costs 17,100 gas less.

        Slots are used in turn. When the next one's batch must still stand, the ring is too small for its time; when a
        larger one has no free slot either (the books were lost, say), any of the endless rest will do.
        """
        retention_s = self._chain.ledger.parameters().batch_retention_s
        turn, now = self._store.num_batches(), self._chain.timestamp()
        for size in SLOT_RINGS:
            slot = turn % size
            _, settled_at = self._chain.ledger.batch_in(self._gateway, slot)
            if not settled_at or settled_at + retention_s <= now:
                return slot
        return SLOT_RINGS[-1] + secrets.randbelow(2**48)

    def _is_payable(self, session: str, claim: SessionClaim) -> bool:
        """Whether the ledger stands where our books say; one session that does not must not hold up all others."""
        state = self._chain.ledger.session(bytes.fromhex(session[2:]))
        if not state.exists:
            num_lost = self._store.exclude_session(session)
            logger.error("session %s was closed before %d of its requests were settled", session, num_lost)
            return False
        if state.settled != claim.settled_before:
            logger.error(
                "session %s: the ledger settled %d, our books say %d; left out until they agree",
                session,
                state.settled,
                claim.settled_before,
            )
            return False
        return True

    # Sending

    def _drive(self, batch: StoredBatch) -> Settled | None:
        """Bring a batch on chain to its depth. None when the contract refuses it for good."""
        call = Call(self._chain.ledger.address, batch.call_data, "InferenceLedger.settle")
        for _ in range(5):
            if batch.state is BatchState.PLANNED:
                with self._sender.exclusive():
                    try:
                        transaction = self._sender.prepare(call)
                    except ContractRevert as refusal:
                        return self._refused(batch, refusal)
                    self._store.set_transactions(batch.id, [transaction.raw])
                    self._sender.broadcast(transaction)
                batch = self._reload(batch)
            try:
                return self._confirm(batch)
            except (NonceTaken, TransactionFailed) as error:
                logger.warning("batch %d must be signed anew: %s", batch.id, error)
                batch = self._as_planned(batch)
            except TransactionUnconfirmed:
                if self._sender.mined(self._hashes(batch), 1) is not None:
                    continue  # it only waits for its depth
                bumped = self._sender.bump(batch.transactions[-1])
                self._store.set_transactions(batch.id, [*batch.transactions, bumped.raw])
                batch = self._reload(batch)
        raise TransactionUnconfirmed(f"batch {batch.id} is not confirmed; the next run goes on with it")

    def _confirm(self, batch: StoredBatch) -> Settled:
        hashes = self._hashes(batch)
        if self._sender.mined(hashes, 1) is None:
            self._sender.broadcast(batch.transactions[-1])
        receipt = self._sender.confirm(hashes, depth=self._depth)
        block = int(receipt["blockNumber"])
        self._store.confirm_batch(batch.id, block)
        transaction = "0x" + receipt["transactionHash"].hex()
        return Settled(batch.id, batch.root, batch.cid, block, transaction, int(receipt["gasUsed"]))

    def _refused(self, batch: StoredBatch, refusal: ContractRevert) -> Settled | None:
        if self._chain.ledger.is_settled(self._gateway, batch.root):
            # An earlier transaction of ours is mined after all.
            block = self._chain.block_number()
            self._store.confirm_batch(batch.id, block)
            return Settled(batch.id, batch.root, batch.cid, block, None, None)
        session = refusal.values.get("session")
        if not isinstance(session, str):
            raise refusal
        logger.error("session %s cannot be settled and is left out: %s", session, refusal)
        self._store.refuse_batch(batch.id, session)
        return None

    def _hashes(self, batch: StoredBatch) -> list[bytes]:
        return [self._sender.hash_of(raw) for raw in batch.transactions]

    def _reload(self, batch: StoredBatch) -> StoredBatch:
        found = self._store.batch(batch.id)
        if found is None:
            raise RuntimeError(f"batch {batch.id} vanished from the store")
        return found

    @staticmethod
    def _as_planned(batch: StoredBatch) -> StoredBatch:
        return StoredBatch(**{**vars(batch), "state": BatchState.PLANNED})
