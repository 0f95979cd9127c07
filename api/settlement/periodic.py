"""The gateway's Celery app: beat asks for a settlement every so often, a worker of the gateway's own runs it.

celery -A declai.api.settlement.periodic worker -B
"""

from __future__ import annotations

import logging
from typing import Any

from celery import Celery

from declai.api.services import open_settlement
from declai.api.settings import GatewaySettings

logger = logging.getLogger(__name__)
QUEUE = "gateway-settlement"
TASK = "gateway.settle"


def make_app(settings: GatewaySettings) -> Celery:
    """The app for these settings. JSON only; a lost task does not matter, the next one does its work."""
    app = Celery("gateway", broker=settings.redis_url.get_secret_value())
    app.conf.update(
        accept_content=["json"],
        task_serializer="json",
        task_ignore_result=True,
        task_default_queue=QUEUE,
        worker_prefetch_multiplier=1,
        worker_enable_remote_control=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        beat_schedule_filename=str(settings.data_dir / "beat"),
        # A task that waited for a whole interval is of no use beside the next one.
        beat_schedule={
            "settle": {
                "task": TASK,
                "schedule": settings.settle_every_s,
                "options": {"expires": settings.settle_every_s},
            }
        },
    )

    def settle() -> None:
        run_settlement(settings)

    app.task(settle, name=TASK)
    return app


def run_settlement(settings: GatewaySettings) -> list[dict[str, Any]]:
    """Settle everything that is durable now; what `declai gateway settle` calls. Returns one row a batch."""
    with open_settlement(settings) as settlement:
        settled = settlement.run()
    for batch in settled:
        logger.info("batch %d settled in block %d, gas %s", batch.batch, batch.block, batch.gas_used)
    return [
        {
            "batch": batch.batch,
            "root": "0x" + batch.root.hex(),
            "cid": batch.cid,
            "block": batch.block,
            "transaction": batch.transaction,
            "gas_used": batch.gas_used,
        }
        for batch in settled
    ]


def collect_fees(settings: GatewaySettings) -> int:
    """Move the gateway's fees into its operator's balance; returns how much, in base units."""
    with open_settlement(settings) as settlement:
        return settlement.collect_fees()


def __getattr__(name: str) -> Celery:
    """`celery -A` asks for `app`; settings are read then, not when the module is imported."""
    if name in ("app", "celery"):
        return make_app(GatewaySettings())
    raise AttributeError(name)
