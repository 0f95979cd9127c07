"""The development chain is the one that was asked for."""

from __future__ import annotations

import pytest

from declai.chain.client import Rpc
from declai.devnet.processes import ChainKind

pytestmark = pytest.mark.every_chain


def test_the_chain_is_of_the_kind_that_was_asked_for(chain_url: str, chain_kind: ChainKind) -> None:
    assert Rpc(chain_url).w3.client_version.lower().startswith(chain_kind)
