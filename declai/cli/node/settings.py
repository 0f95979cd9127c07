"""The settings of the node on this machine, for the commands that are about it."""

from __future__ import annotations

from pydantic import ValidationError

from declai.chain.settings import explain
from declai.errors import DeclaiError
from declai.worker.node.settings import NodeSettings


def node_settings() -> NodeSettings:
    """The settings of the node on this machine, from the file of --config and the environment.

    Raises:
        DeclaiError: they are none. Values stay out of the text.
    """
    try:
        return NodeSettings()
    except ValidationError as error:
        what = explain(error)
    except ValueError as error:
        what = str(error)
    raise DeclaiError(f"these are no settings of a node ({what}): name its file with --config")
