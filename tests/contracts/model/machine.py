"""Everybody who plays, in one machine: any of their moves may follow any other."""

from __future__ import annotations

from tests.contracts.model.claim_moves import ClaimMoves
from tests.contracts.model.court_moves import CourtMoves
from tests.contracts.model.gateway_moves import GatewayMoves
from tests.contracts.model.node_moves import NodeMoves
from tests.contracts.model.payer_moves import PayerMoves
from tests.contracts.model.thief_moves import ThiefMoves


class Market(PayerMoves, GatewayMoves, ClaimMoves, CourtMoves, NodeMoves, ThiefMoves):
    """Payers, a gateway, a worker, a rival who is both, and a thief; each move is made on model and chain."""
