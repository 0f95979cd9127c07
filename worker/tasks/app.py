"""The Celery app of a node: one task, `declai.run_stage`, which lives as long as the node's part of a job."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from celery import Celery, signals
from celery.apps.worker import Worker
from kombu.entity import Queue

from declai.protocol.jobs import Envelope
from declai.protocol.tasks import QUEUE, TASK_NAME
from declai.worker.tasks.transport import BrokerAccount, transport_for

log = logging.getLogger(__name__)

RunStage = Callable[[Envelope], None]


def build_app(redis_url: str, key_prefix: str, account: BrokerAccount, run_stage: RunStage) -> Celery:
    """The app that consumes a node's queue. `redis_url` names host, port and database, never a password.

    `run_stage` is called in a pool thread, with an envelope of the right form and nothing about it believed.
    """
    app = Celery("declai-node", broker=redis_url, set_as_current=False, loader="default")
    app.conf.update(
        broker_transport=transport_for(account),
        broker_transport_options={
            "global_keyprefix": key_prefix,
            "ack_emulation": False,
            "priority_steps": [0],
            "socket_keepalive": True,
            "health_check_interval": 10,
        },
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        accept_content=["json"],
        result_accept_content=["json"],
        task_serializer="json",
        task_ignore_result=True,
        task_queues=[Queue(QUEUE)],  # type: ignore[no-untyped-call]
        task_default_queue=QUEUE,
        task_create_missing_queues=False,
        task_store_errors_even_if_ignored=False,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        worker_prefetch_multiplier=1,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
    )

    def task(envelope: dict[str, Any]) -> None:
        try:
            run_stage(Envelope.model_validate(envelope))
        except Exception:  # a task has no caller to tell; one that fails must leave the worker as it was
            log.exception("a task failed")

    app.task(task, name=TASK_NAME, ignore_result=True)
    return app


def _nothing() -> None:
    return


def consume(
    app: Celery,
    num_threads: int,
    *,
    on_ready: Callable[[], None] = _nothing,
    on_shutdown: Callable[[], None] = _nothing,
) -> None:
    """Call `on_ready` and run tasks until SIGTERM; then call `on_shutdown` and finish those running.

    Blocks; to be called from the main thread, which gets the signals.
    """

    def keep_logging(**_: Any) -> None:
        """Celery sets up logging of its own unless someone is connected to this signal."""

    def ready(**_: Any) -> None:
        on_ready()

    def shutting_down(**_: Any) -> None:
        on_shutdown()

    signals.setup_logging.connect(keep_logging)
    signals.worker_ready.connect(ready)
    signals.worker_shutting_down.connect(shutting_down)
    worker: Worker = app.Worker(
        pool="threads",
        concurrency=num_threads,
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        loglevel=logging.getLogger().getEffectiveLevel(),
        quiet=True,
    )
    worker.start()
