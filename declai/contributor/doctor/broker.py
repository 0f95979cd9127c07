"""The way into the gateway's task queue. A join ends the account of who joined before, so none while a node runs."""

from __future__ import annotations

import redis

from declai.chain.errors import ChainError
from declai.chain.keystore import open_keystore, read_password
from declai.contributor.doctor.case import TIMEOUT_S, Case, Check
from declai.contributor.doctor.finding import Finding, Unknown, ok, problem, warning
from declai.protocol.joining import JoinAnswer
from declai.worker.errors import BrokerError
from declai.worker.node.membership import Membership
from declai.worker.tasks.registry import ChainPeerRegistry


def join(case: Case) -> Finding:
    """Join and knock at the queue, or see that the node which runs is heard."""
    running, live = case.running, case.live
    if live is not None:
        value = f"the gateway hears this node, {live['running']} of {live['capacity']} jobs running"
        if running is None:
            return warning(
                f"{value}; none runs with these settings", "is it another machine's, or does data_dir differ?"
            )
        return ok(value)
    if running is not None:
        advice = "read its log; if it serves, look at the links above"
        return warning(f"a node runs here ({running['state']}), and the gateway does not hear it", advice)
    try:
        answer = _membership(case).join()
    except BrokerError as error:
        return problem(str(error), "mend what the gateway says, then try again")
    try:
        _knock(answer)
    except (redis.RedisError, OSError) as error:
        host = answer.redis_url.rpartition("/")[0]
        return problem(
            f"no way to the queue at {host}: {type(error).__name__}", "let connections to it out of your network"
        )
    return ok("the gateway lets this node in, and its queue answers")


def _membership(case: Case) -> Membership:
    settings, gateway = case.settings, case.gateway
    try:
        account = open_keystore(settings.signer_keystore, read_password(settings.password_file))
    except ChainError:
        raise Unknown("the signer's keystore does not open") from None
    chain_id = case.chain.deployment.chain_id
    return Membership(gateway.url, gateway.address, chain_id, case.operator, account, ChainPeerRegistry(case.chain))


def _knock(answer: JoinAnswer) -> None:
    client = redis.Redis.from_url(
        answer.redis_url,
        username=answer.username,
        password=answer.password.get_secret_value(),
        socket_timeout=TIMEOUT_S,
        socket_connect_timeout=TIMEOUT_S,
    )
    try:
        client.ping()
    finally:
        client.close()


CHECKS: dict[str, Check] = {"join": join}
