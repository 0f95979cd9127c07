"""The chain, and what its contracts say of this node."""

from __future__ import annotations

from eth_utils.address import to_checksum_address

from declai.chain.client import Deployment, Rpc
from declai.chain.contracts.models import model_id
from declai.chain.contracts.nodes import Role
from declai.chain.errors import ChainError, host_of
from declai.chain.fields import to_hex
from declai.chain.pricing import format_credits
from declai.contributor.doctor.case import Case, Check
from declai.contributor.doctor.finding import Finding, Unknown, ok, problem, warning
from declai.contributor.operator import local_time
from declai.worker.errors import NodeStartError


def rpc(case: Case) -> Finding:
    """That it answers, and is the deployment's chain. Of its URL only the host is told: the rest may be a paid key."""
    settings = case.settings
    host = host_of(settings.rpc_url)
    try:
        found = Rpc(settings.rpc_url)
        chain_id, block = found.chain_id, found.block_number()
    except (ChainError, ValueError) as error:
        return problem(f"{host} does not answer: {error}", "is rpc_url right, and the chain's node up?")
    try:
        expected = Deployment.load(settings.deployment).chain_id
    except ChainError as error:
        return problem(str(error), "set deployment to the file that the network's operator gives out")
    if chain_id != expected:
        return problem(
            f"{host} is chain {chain_id}, the deployment is on {expected}", "set rpc_url to the deployment's chain"
        )
    return ok(f"chain {chain_id} at {host}, block {block}")


def contracts(case: Case) -> Finding:
    chain = case.chain
    addresses = chain.deployment.contracts
    empty = [
        f"{name} ({address})"
        for name, address in addresses.items()
        if not chain.w3.eth.get_code(to_checksum_address(address))
    ]
    if empty:
        return problem(
            f"no code for {', '.join(empty)}", f"{case.settings.deployment} is not this chain's: get the right one"
        )
    return ok(f"{len(addresses)} contracts are there")


def registration(case: Case) -> Finding:
    chain, signer = case.chain, _signer_if_known(case)
    try:
        operator, node = case.operator, case.node
    except Unknown:
        who = case.settings.operator or signer or "this signer"
        return problem(f"{who} is not registered", "register it with the operator's wallet: `declai node register`")
    if signer is not None and node.signer.lower() != signer.lower():
        advice = "use the signer's keystore that was registered, or register anew"
        return problem(f"{operator} is registered with signer {node.signer}, the keystore has {signer}", advice)
    if not node.roles & Role.WORKER:
        return problem(
            f"{operator} is registered, but not as a worker", "`declai node deregister`, then register --role worker"
        )
    return ok(f"{operator}, reputation {chain.nodes.reputation(operator) / 10**18:.2f}")


def _signer_if_known(case: Case) -> str | None:
    try:
        return case.signer
    except Unknown:
        return None


def stake(case: Case) -> Finding:
    minimum = case.chain.nodes.minimum_stake(case.node.roles)
    value = f"{format_credits(case.node.stake)} credits, {format_credits(minimum)} needed"
    if case.node.stake < minimum:
        return problem(
            value, f"`declai node stake {format_credits(minimum - case.node.stake)}`: without it there is no work"
        )
    return ok(value)


def jail(case: Case) -> Finding:
    until, now = case.chain.nodes.jailed_until(case.operator), case.chain.timestamp()
    if until > now:
        return problem(f"in jail until {local_time(until)}", "wait; `declai node faults` says why")
    return ok("not in jail")


def registered_link_key(case: Case) -> Finding:
    registered, own = case.node.link_key, case.link_keys.public
    if registered != own:
        return problem(
            f"the registry has {to_hex(registered)}, {case.settings.link_key} holds {to_hex(own)}",
            "bring the file whose key was registered, or register anew with this one",
        )
    return ok("the file's key is the registry's")


def model(case: Case) -> Finding:
    name = case.settings.model
    if not case.chain.models.num_versions(model_id(name)):
        return problem(f"the registry has no model {name!r}", "is model right? `declai market` lists what is served")
    if case.version.deprecated:
        return warning(
            f"{name}: {case.version.manifest_cid} is deprecated", "expect requests to move to another version"
        )
    return ok(f"{name}, {case.version.num_layers} layers, {case.version.manifest_cid}")


def offer(case: Case) -> Finding:
    settings, found = case.settings, case.chain.nodes.offers(case.operator, model_id(case.settings.model))
    try:
        terms, profile = case.offer
    except Unknown as error:
        if not isinstance(error.__cause__, NodeStartError):
            raise
        advice = "set numeric_profile" if found else f"`declai node offer {settings.model} --layers A-B ...`"
        return problem(str(error), advice)
    value = (
        f"layers {terms.first_layer}-{terms.end_layer - 1} in {profile}, {format_credits(terms.prompt_price)} and "
        f"{format_credits(terms.output_price)} credits per million token-layers"
    )
    running = case.running
    if running and running.get("layers") != [terms.first_layer, terms.end_layer]:
        return warning(value, "start the node again: it serves the offer that it found when it started")
    if terms.term != case.node.term:
        return problem(f"{value}: of an earlier registration", "make it anew with `declai node offer`")
    return ok(value)


CHECKS: dict[str, Check] = {
    "rpc": rpc,
    "contracts": contracts,
    "registration": registration,
    "stake": stake,
    "jail": jail,
    "registered_link_key": registered_link_key,
    "model": model,
    "offer": offer,
}
