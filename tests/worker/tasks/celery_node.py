"""A node's Celery worker in a process of its own: prints a line per task. Arguments: redis URL, operator, join pipe."""

from __future__ import annotations

import json
import os
import sys

from declai.protocol.jobs import Envelope
from declai.protocol.tasks import key_prefix, username
from declai.worker.errors import BrokerError
from declai.worker.tasks.app import build_app, consume
from declai.worker.tasks.transport import BrokerAccount


def main(redis_url: str, operator: str, password_file: str) -> None:
    def rejoin() -> tuple[str, str]:
        try:
            with open(password_file) as file:
                return username(operator), json.load(file)
        except (OSError, ValueError) as error:
            raise BrokerError(str(error)) from error

    def run_stage(envelope: Envelope) -> None:
        os.write(1, f"ran {envelope.job}\n".encode())

    account = BrokerAccount(*rejoin(), rejoin)
    print("starting", flush=True)
    consume(build_app(redis_url, key_prefix(operator), account, run_stage), num_threads=2)
    print("drained", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
