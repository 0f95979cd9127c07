"""A serving node: started step by step, run until SIGTERM, stopped in reverse order."""

from __future__ import annotations

import logging
import time

from declai.protocol.startup import started
from declai.worker.job.engine_thread import EngineThread
from declai.worker.node.settings import NodeSettings
from declai.worker.node.startup import STEPS, NodeParts
from declai.worker.tasks.app import consume

log = logging.getLogger(__name__)

# Above the engine's sequences, so that a job too many is refused at once instead of waiting for a thread.
SPARE_TASK_THREADS = 4
RECEIPTS_LEAVE_S = 5.0


def run_node(settings: NodeSettings, supervised_since: float) -> None:
    """Serve until SIGTERM; running jobs are finished first. To be called from the main thread.

    `supervised_since`: Unix seconds since when starts are tried again.

    Raises:
        NodeStartError: the node cannot start with these settings; the text says what to do.
        ChainError, LinkError, WorkerError: something that another start may mend, as an address that is taken.
    """
    with started(NodeParts(settings, supervised_since), STEPS) as node:

        def ready() -> None:
            log.info("serving %s layers [%d, %d)", settings.model, *node.layers)
            node.status.follow(node.engine_thread, node.store)
            node.engine_thread.beat_to([node.joined.gateway])
            node.service.send_waiting_receipts()

        num_threads = settings.max_jobs + SPARE_TASK_THREADS
        try:
            consume(node.tasks, num_threads, on_ready=ready, on_shutdown=node.engine_thread.drain)
            _let_receipts_leave(node.engine_thread)
        finally:
            node.status.follow_nothing()


def _let_receipts_leave(engine_thread: EngineThread) -> None:
    deadline = time.monotonic() + RECEIPTS_LEAVE_S
    while engine_thread.status().num_receipts_waiting and time.monotonic() < deadline:
        time.sleep(0.05)
