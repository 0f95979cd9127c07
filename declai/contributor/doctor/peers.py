"""The gateway and the peers that a node's shards come from; and the clock, which the gateway's answers show.

Of URLs only the host is told: the rest may be a password or a paid key.
"""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime

import httpx

from declai.chain.contracts.nodes import Role
from declai.chain.errors import host_of
from declai.contributor.doctor.case import TIMEOUT_S, Case, Check
from declai.contributor.doctor.finding import Finding, Unknown, ok, problem, warning

# A gateway takes a join for 120 s, and tasks have deadlines.
MAX_SKEW_S, GOOD_SKEW_S = 60.0, 5.0


def health(case: Case) -> Finding:
    url = case.gateway_url
    host = host_of(url)
    try:
        status = httpx.get(f"{url}/healthz", timeout=TIMEOUT_S).status_code
    except httpx.HTTPError as error:
        return problem(
            f"{host} does not answer: {type(error).__name__}", "is gateway_url right? The node waits until it is up"
        )
    if status != 200:
        return problem(f"{host} answers /healthz with {status}", "ask its operator, or join another gateway")
    return ok(f"{host} answers")


def standing(case: Case) -> Finding:
    """That the registry knows it: a node trusts no other."""
    gateway = case.gateway
    if not case.chain.nodes.is_active(gateway.address, Role.GATEWAY):
        return problem(f"{gateway.address} is no active gateway in the registry", "join another gateway")
    return ok(f"{gateway.address} is active in the registry")


def clock(case: Case) -> Finding:
    """Against the gateway's, else the chain's: a block of now or of the future tells, an old one does not."""
    try:
        source, behind_s = "the gateway", _behind_gateway_s(case.gateway_url)
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        source, behind_s = "the chain's latest block", case.chain.timestamp() - time.time()
        if behind_s < -GOOD_SKEW_S:
            raise Unknown("the gateway is silent, and the chain's latest block is old") from None
    value = f"{abs(behind_s):.0f} s {'behind' if behind_s > 0 else 'ahead of'} {source}"
    if abs(behind_s) > MAX_SKEW_S:
        return problem(value, "set the clock, and keep it right with NTP: gateways refuse what seems old")
    if abs(behind_s) > GOOD_SKEW_S:
        return warning(value, "keep the clock right with NTP")
    return ok(value)


def _behind_gateway_s(url: str) -> float:
    began = time.time()
    answer = httpx.get(f"{url}/healthz", timeout=TIMEOUT_S)
    here = (began + time.time()) / 2
    there = parsedate_to_datetime(answer.headers["date"]).timestamp() + 0.5  # it is cut to whole seconds
    return there - here if abs(there - here) > 1 else 0.0


def ipfs(case: Case) -> Finding:
    """Which peers have the model's manifest now."""
    cid = case.version.manifest_cid
    peers = [case.gateway_url, *case.settings.ipfs_peers]
    silent = [problem for problem in (_missing(peer, cid) for peer in peers) if problem]
    if len(silent) == len(peers):
        here = case.blocks is not None and case.blocks.has(cid)
        value, advice = "; ".join(silent), "name peers that have the model in ipfs_peers"
        return warning(f"{value}, but the manifest is here", advice) if here else problem(value, advice)
    if silent:
        return warning("; ".join(silent), "the others suffice while they are up")
    return ok(f"{len(peers)} of {len(peers)} have the model's manifest")


def _missing(peer: str, cid: str) -> str | None:
    try:
        status = httpx.get(f"{peer.rstrip('/')}/ipfs/{cid}?format=raw", timeout=TIMEOUT_S).status_code
    except httpx.HTTPError as error:
        return f"{host_of(peer)} does not answer: {type(error).__name__}"
    return None if status == 200 else f"{host_of(peer)} answers {status} for {cid}"


CHECKS: dict[str, Check] = {"health": health, "clock": clock, "standing": standing, "ipfs": ipfs}
