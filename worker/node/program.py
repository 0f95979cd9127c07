"""One node as a program: `python -m declai.worker.node` supervises a child that serves a stage until SIGTERM.

The parent loads neither torch nor any key. Killing it ends the child at once; SIGTERM lets running jobs finish.
"""

from __future__ import annotations

import argparse
import gc
import logging
import sys
import time

from pydantic import ValidationError

from declai.chain.errors import ChainError
from declai.chain.settings import explain
from declai.links.errors import LinkError
from declai.protocol.startup import explained
from declai.worker.errors import NodeStartError, WorkerError
from declai.worker.model.threads import use_passive_waiting
from declai.worker.node.logs import set_up_logging
from declai.worker.node.settings import NodeSettings
from declai.worker.node.supervisor import supervise

log = logging.getLogger(__name__)

EXIT_FAILED, EXIT_USAGE = 1, 2


def main(arguments: list[str] | None = None) -> int:
    """Exit codes: 0 stopped in order, 1 failed, 2 wrong settings."""
    parser = argparse.ArgumentParser(prog="python -m declai.worker.node", description=__doc__)
    parser.add_argument("--once", action="store_true", help="serve in this process, without a supervisor")
    parser.add_argument("--supervised-since", type=float, default=time.time(), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    set_up_logging()
    try:
        settings = NodeSettings()
    except ValidationError as error:
        log.error("wrong settings: %s", explain(error))
        return EXIT_USAGE
    except ValueError as error:
        log.error("wrong settings: %s", error)
        return EXIT_USAGE
    use_passive_waiting()  # before torch loads, in the child or here: stages that share cores must not spin
    if not options.once:
        since = f"--supervised-since={options.supervised_since:.0f}"
        return supervise([sys.executable, "-m", "declai.worker.node", "--once", since])
    return _serve(settings, options.supervised_since)


def _serve(settings: NodeSettings, supervised_since: float) -> int:
    gc.disable()  # a quarter of the time to import torch is spent looking for garbage that is not there
    from declai.worker.node.runtime import run_node  # here, for the supervisor must not load torch

    gc.freeze()
    gc.enable()
    try:
        run_node(settings, supervised_since)
    except NodeStartError as error:
        log.error("%s", explained(error))
        return EXIT_USAGE
    except (ChainError, LinkError, WorkerError) as error:
        log.error("%s", explained(error))
        return EXIT_FAILED
    return 0
