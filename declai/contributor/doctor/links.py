"""Where this node's link listens, and whether others can get there: by the handshake that they would make."""

from __future__ import annotations

import ipaddress
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from urllib.parse import urlsplit

import zmq
from zmq.utils.monitor import recv_monitor_message

from declai.chain.contracts.nodes import Role
from declai.contributor.doctor.case import Case, Check
from declai.contributor.doctor.finding import Finding, Unknown, ok, problem, warning
from declai.links.errors import LinkError
from declai.links.keys import LinkKeyPair
from declai.links.node_links import NodeLinks
from declai.protocol.peers import RELAY
from declai.worker.tasks.registry import UNKNOWN_FOR_S

HANDSHAKE_S = 5.0
TRIES = 4
FAILURES = (
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL,
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL,
    zmq.EVENT_HANDSHAKE_FAILED_AUTH,
)


class Handshake(Enum):
    """What came of a handshake. `OTHER`: somebody is there who does not hold the key, or turns this node away."""

    HOLDER = 1
    OTHER = 2
    NOBODY = 3


def shake_hands(endpoint: str, keys: LinkKeyPair, holder: bytes | None = None) -> Handshake:
    """Connect as this node to whoever holds a link key there, by default its own. No frame is sent."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    context.linger = 0
    try:
        with context.socket(zmq.DEALER) as sock:
            sock.ipv6 = endpoint.startswith("tcp://[")
            sock.curve_serverkey = holder or keys.public
            sock.curve_publickey, sock.curve_secretkey = keys.public, keys.secret
            monitor = sock.get_monitor_socket()
            sock.connect(_connectable(endpoint))
            answer = _watch(monitor, HANDSHAKE_S)
            sock.disable_monitor()
            monitor.close()
            return answer
    except zmq.ZMQError:  # a name that nobody knows
        return Handshake.NOBODY
    finally:
        context.term()


def _watch(monitor: zmq.Socket[bytes], timeout_s: float) -> Handshake:
    has_connected = False
    while monitor.poll(int(timeout_s * 1000)):
        event = recv_monitor_message(monitor)["event"]
        if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            return Handshake.HOLDER
        if event in FAILURES or (event == zmq.EVENT_DISCONNECTED and has_connected):
            return Handshake.OTHER
        has_connected = has_connected or event == zmq.EVENT_CONNECTED
        if event == zmq.EVENT_CONNECT_RETRIED:
            return Handshake.NOBODY
    return Handshake.OTHER if has_connected else Handshake.NOBODY


def _connectable(bind: str) -> str:
    """An endpoint on this machine for a bind to all of its addresses."""
    for any_address, own in (("tcp://*:", "tcp://127.0.0.1:"), ("tcp://0.0.0.0:", "tcp://127.0.0.1:")):
        bind = bind.replace(any_address, own)
    return bind.replace("tcp://[::]:", "tcp://[::1]:")


def port(case: Case) -> Finding:
    """Free, or in use by this very node: who listens there can prove to hold its key."""
    if _is_relayed(case):
        return ok("none is needed: this node is reached through its gateway")
    bind, keys = case.settings.link_bind, case.link_keys
    try:
        NodeLinks(keys, bind, lambda key: False).close()
    except LinkError as error:
        if case.running is not None or shake_hands(bind, keys) is Handshake.HOLDER:
            return ok(f"this node listens at {bind}")
        return problem(f"{error}", "end the program that has the port, or choose another link_bind")
    if case.running is not None:
        return warning(f"{bind} is free, though a node runs here", "wait until it serves, or read its log")
    return ok(f"{bind} is free")


def endpoint(case: Case) -> Finding:
    """The registered one, from here: a router may keep its own network from what it lets in from outside."""
    if _is_relayed(case):
        return ok("relay: others reach this node through its gateway (an open port would bring more work)")
    registered, keys = case.node.endpoint, case.link_keys
    host = urlsplit(registered).hostname or ""
    scope = _scope(host)
    if scope == "unknown":
        return problem(f"{registered}: no such host", "register anew with an endpoint whose name others can look up")
    if scope != "public" and _scope(urlsplit(case.gateway_url).hostname or "") == "public":
        return problem(f"{registered} is a {scope} address", "register anew with an endpoint that others can reach")
    with _listening(case, keys):
        answer = shake_hands(registered, keys)
    if answer is Handshake.HOLDER:
        return ok(f"{registered} leads here" + ("" if scope == "public" else f" (a {scope} address, as the gateway's)"))
    if answer is Handshake.OTHER:
        if case.running is not None and not case.chain.nodes.is_active(case.operator, Role.WORKER):
            raise Unknown("the running node turns all inactive nodes away, itself too")
        return problem(
            f"somebody else answers at {registered}",
            f"let its port lead to {case.settings.link_bind} on this machine, or register anew with the right endpoint",
        )
    advice = f"open its port in firewalls and routers towards {case.settings.link_bind}; "
    advice += "if that is done, try from outside: some routers do not let their own network in"
    return (problem if scope != "public" else warning)(f"nobody answers at {registered}", advice)


def _is_relayed(case: Case) -> bool:
    try:
        return case.node.endpoint == RELAY
    except Unknown:  # not registered yet
        return False


def gateway_link(case: Case) -> Finding:
    """The gateway's own link, over which every node sends what it computed, and a relayed one receives."""
    gateway = case.chain.nodes.node(case.gateway.address)
    for _ in range(TRIES):
        answer = shake_hands(gateway.endpoint, case.link_keys, gateway.link_key)
        if answer is not Handshake.OTHER:
            break
        time.sleep(UNKNOWN_FOR_S)  # a gateway may not have seen the block of a new registration
    if answer is Handshake.HOLDER:
        return ok(f"{gateway.endpoint} answers")
    if answer is Handshake.NOBODY:
        return problem(f"nobody answers at {gateway.endpoint}", "let connections to it out of your network")
    return problem(f"{gateway.endpoint} turns this node away", "is the node registered and active, with this link key?")


@contextmanager
def _listening(case: Case, keys: LinkKeyPair) -> Iterator[None]:
    """Listen as the node would, where it does not."""
    try:
        own = NodeLinks(keys, case.settings.link_bind, lambda key: key == keys.public)
    except LinkError:
        own = None  # the node listens itself, or `port` says who does
    try:
        yield
    finally:
        if own is not None:
            own.close()


def _scope(host: str) -> str:
    """`loopback`, `private`, `public` or `unknown`, by the first address of a name."""
    try:
        address = ipaddress.ip_address(socket.getaddrinfo(host, None)[0][4][0])
    except (OSError, ValueError):
        return "unknown"
    if address.is_loopback:
        return "loopback"
    return "private" if address.is_private else "public"


CHECKS: dict[str, Check] = {"port": port, "endpoint": endpoint, "gateway_link": gateway_link}
