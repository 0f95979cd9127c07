"""What a node keeps on disk: the jobs it has taken, and its receipts with all that is needed to claim them."""

from declai.worker.job.store.records import StoredJob, StoredReceipt
from declai.worker.job.store.store import Earnings, NodeStore

__all__ = ["Earnings", "NodeStore", "StoredJob", "StoredReceipt"]
