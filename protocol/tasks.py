"""The task queues of nodes as the gateway keeps them: an account per node that can pop its own queue, and dispatch.

A node joins with a signed request and gets an account whose only powers are PING and BRPOP on its own keys. The gateway
alone writes: one LPUSH of a Celery message (protocol 2, JSON) per stage. Torch-free.
"""

from __future__ import annotations

import base64
import json
import uuid
from typing import Any

from pydantic_core import from_json

from declai.protocol.errors import MalformedTask
from declai.protocol.jobs import MAX_ENVELOPE_BYTES, Envelope

QUEUE = "tasks"
TASK_NAME = "declai.run_stage"
MAX_MESSAGE_BYTES = 2 * MAX_ENVELOPE_BYTES


def key_prefix(operator: str) -> str:
    """Prefix of all keys of a node's account."""
    return f"node:{operator.lower()}:"


def queue_key(operator: str) -> str:
    """The Redis list that a node consumes."""
    return key_prefix(operator) + QUEUE


def username(operator: str) -> str:
    """Name of a node's Redis account."""
    return f"node-{operator.lower()}"


def task_message(envelope: Envelope, task_id: str) -> bytes:
    """The queue item (a Celery message, protocol 2, JSON) that asks a node to run a stage."""
    return json.dumps(task_fields(envelope, task_id)).encode()


def task_fields(envelope: Envelope, task_id: str) -> dict[str, Any]:
    """The form that kombu and Celery expect around a task's JSON arguments."""
    arguments = [[envelope.model_dump(mode="json")], {}, {}]
    return {
        "body": base64.b64encode(json.dumps(arguments).encode()).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"lang": "py", "task": TASK_NAME, "id": task_id, "root_id": task_id, "ignore_result": True},
        "properties": {
            "correlation_id": task_id,
            "delivery_mode": 2,
            "delivery_tag": task_id,
            "delivery_info": {"exchange": "", "routing_key": QUEUE},
            "priority": 0,
            "body_encoding": "base64",
        },
    }


def parse_task_message(item: bytes | str) -> tuple[str, Envelope]:
    """(task id, envelope) of a queue item.

    Raises:
        MalformedTask: it is not what `task_message` makes, in whatever way.
    """
    if len(item) > MAX_MESSAGE_BYTES:
        raise MalformedTask(f"{len(item)} bytes are too many")
    try:
        # pydantic's parser bounds the nesting; that of the standard library can crash the process.
        fields = from_json(item)
        if fields["headers"]["task"] != TASK_NAME:
            raise MalformedTask("another task")
        [[envelope], keyword_arguments, embedded] = from_json(base64.b64decode(fields["body"], validate=True))
        if keyword_arguments != {} or embedded != {}:
            raise MalformedTask("a task has one argument and no callbacks")
        return str(uuid.UUID(fields["headers"]["id"])), Envelope.model_validate(envelope)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise MalformedTask(f"no task message: {type(error).__name__}") from None
