"""Hands the stages of a job to their nodes' queues: one round trip to Redis, whatever their number."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from redis.asyncio import Redis
from redis.exceptions import RedisError

from declai.api.errors import NoCapacity
from declai.protocol.jobs import Envelope
from declai.protocol.tasks import queue_key, task_message

# A task that its node did not take by then would run for nobody: the queue forgets it.
QUEUE_TTL_S = 60


async def dispatch(redis: Redis, tasks: Sequence[tuple[str, Envelope]]) -> None:
    """Put each envelope into the queue of its node (operator address).

    Raises:
        NoCapacity: the broker cannot take them.
    """
    batch = redis.pipeline(transaction=False)
    for operator, envelope in tasks:
        key = queue_key(operator)
        batch.lpush(key, task_message(envelope, str(uuid.uuid4())))
        batch.expire(key, QUEUE_TTL_S)
    try:
        await batch.execute()
    except RedisError as error:
        raise NoCapacity(f"the task queue does not take the job ({type(error).__name__}): try again soon") from None
