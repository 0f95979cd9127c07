"""A settled batch that can be told otherwise: in its file alone, or so well that the chain anchored the lie itself."""

from __future__ import annotations

from dataclasses import dataclass, replace

from declai.chain.contracts.ledger import Payout
from declai.chain.state import ChainState, SettledBatch
from declai.ipfs.cid import Cid
from declai.protocol.batch_checks import SettlementReport, verify_request
from declai.protocol.batches import BatchFile, Header, root_of, sum_tree
from tests.support.books import Books


@dataclass
class Case:
    """An honest batch: an old request that was acknowledged later, and the newest one; and another batch before it."""

    books: Books
    state: ChainState
    batch: SettledBatch
    file: BatchFile
    other: SettledBatch
    acknowledged: str
    newest: str

    def verify(
        self, request: str, batch: SettledBatch, file: BatchFile | bytes, header: bytes | None = None
    ) -> SettlementReport:
        """What anyone finds when the chain says `batch`, its payouts apart, and its header links to `file`."""
        link = Cid.parse(self.books.blocks.add(file if isinstance(file, bytes) else file.to_bytes()))
        subroots = self.subroots(file) if isinstance(file, BatchFile) else (bytes(32),)
        cid = Cid.parse(self.books.blocks.add(header or Header(subroots, link).to_bytes()))
        found = replace(batch, header=cid.digest, root=root_of(batch.payouts, cid.digest))
        state = self.state.copy()
        state.batches = {key: row for key, row in state.batches.items() if row.root != self.batch.root}
        state.batches[found.gateway, found.root] = found
        return verify_request(request, self.books.facts(state), self.books.blocks, None)

    def subroots(self, file: BatchFile) -> tuple[bytes, ...]:
        return tuple(sum_tree(payout.receipts, self.books.market.chain.domain).root for payout in file.payouts)

    def anchored(self, file: BatchFile) -> SettledBatch:
        """The batch that the ledger would have anchored for this file, debits as they were."""
        domain = self.books.market.chain.domain
        payouts = tuple(Payout(p.node, sum_tree(p.receipts, domain).total) for p in file.payouts)
        return replace(self.batch, payouts=payouts)
