"""Who a node is: its keys, its registration, its offer, its gateway, all checked against the chain before it serves."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field

import httpx
from eth_account.signers.local import LocalAccount
from eth_utils.address import is_address, to_checksum_address
from pydantic_core import from_json

from declai.chain.client import Chain, Deployment
from declai.chain.contracts.models import ModelVersion, model_id
from declai.chain.contracts.nodes import Offer, RegisteredNode, Role
from declai.chain.errors import ChainError, ChainUnreachable
from declai.chain.fields import NUMERIC_PROFILES
from declai.chain.keystore import open_keystore, read_password
from declai.links.errors import LinkKeyError
from declai.links.keys import LinkKeyPair
from declai.worker.errors import NodeStartError, WorkerError
from declai.worker.node.settings import NodeSettings

log = logging.getLogger(__name__)

TIMEOUT_S = 10.0
ASK_AGAIN_S = 0.5


@dataclass(frozen=True)
class Identity:
    """What `open_identity` found. `profile` is the offer's numeric profile; `version` the model's current version."""

    chain: Chain
    account: LocalAccount = field(repr=False)
    link_keys: LinkKeyPair
    operator: str
    node: RegisteredNode
    offer: Offer
    profile: str
    version: ModelVersion
    gateway: str
    gateway_url: str


def open_identity(settings: NodeSettings) -> Identity:
    """Open the keys and ask the chain.

    Raises:
        NodeStartError: keys, registry, offer and settings do not fit; the text says what to do.
        WorkerError: the chain or the gateway cannot be reached now.
    """
    try:
        account = open_keystore(settings.signer_keystore, read_password(settings.password_file))
        link_keys = LinkKeyPair.load(settings.link_key)
        chain = Chain(settings.rpc_url, Deployment.load(settings.deployment))
        chain.check()
        operator = settings.operator or _operator_of(chain, account.address)
        node = chain.nodes.node(operator)
        _check_keys(settings, operator, node, account, link_keys)
        gateway, url = _gateway(settings, chain)
        offer, profile = pick_offer(settings, operator, chain.nodes.offers(operator, model_id(settings.model)))
        _, version = chain.models.current(model_id(settings.model))
    except ChainUnreachable as error:
        raise WorkerError(str(error)) from error
    except (ChainError, LinkKeyError) as error:
        raise NodeStartError(str(error)) from error
    return Identity(chain, account, link_keys, operator, node, offer, profile, version, gateway, url)


def _operator_of(chain: Chain, signer: str) -> str:
    operator = chain.nodes.operator_of(signer)
    if not int(operator, 16):
        raise NodeStartError(f"the registry knows no node with signer {signer}: register it first")
    return operator


def _check_keys(
    settings: NodeSettings, operator: str, node: RegisteredNode, account: LocalAccount, link_keys: LinkKeyPair
) -> None:
    if node.signer != account.address:
        raise NodeStartError(
            f"the registry has signer {node.signer} for {operator}, but {settings.signer_keystore} holds "
            f"{account.address}: set the signer in the registry, or use its keystore"
        )
    if node.link_key != link_keys.public:
        raise NodeStartError(f"{settings.link_key} is not the link key in the registry: set the endpoint anew")


def pick_offer(settings: NodeSettings, operator: str, offers: list[Offer]) -> tuple[Offer, str]:
    """The offer to serve, and the name of its numeric profile. Raises NodeStartError when it is not clear which."""
    names = {number: name for name, number in NUMERIC_PROFILES.items()}
    known = {names[offer.numeric_profile]: offer for offer in offers if offer.numeric_profile in names}
    wanted = settings.numeric_profile or (next(iter(known)) if len(known) == 1 else None)
    if wanted in known:
        return known[wanted], wanted
    if wanted is None and known:
        raise NodeStartError(
            f"{operator} offers {settings.model} in {', '.join(known)}: say which with DECLAI_NUMERIC_PROFILE"
        )
    kind = f" in {wanted}" if wanted else ""
    raise NodeStartError(f"{operator} has no offer for {settings.model}{kind}: make one first")


def _gateway(settings: NodeSettings, chain: Chain) -> tuple[str, str]:
    """(address, url) of the gateway; whichever of the two the settings leave out comes from the other."""
    if settings.gateway is not None:
        url = settings.gateway_url or chain.nodes.node(settings.gateway).url
        gateway = settings.gateway
    else:
        assert settings.gateway_url is not None
        url, gateway = settings.gateway_url, _address_at(settings.gateway_url)
    if not url or not chain.nodes.is_active(gateway, Role.GATEWAY):
        raise NodeStartError(f"{gateway} is no active gateway in the registry")
    return gateway, url


def _address_at(url: str) -> str:
    """The address under which the gateway at this url says it is registered; waits while nobody answers there.

    It is believed no further than the registry bears out: the link key that signs in for it must be the registered one.
    """
    while True:
        try:
            response = httpx.get(f"{url}/v1/network", timeout=TIMEOUT_S)
            break
        except httpx.TransportError as error:
            log.warning("gateway %s does not answer yet: %s", url, type(error).__name__)
            time.sleep(ASK_AGAIN_S)
    try:
        address = from_json(response.raise_for_status().content)["gateway"]["address"]
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        raise WorkerError(f"{url} does not say which gateway it is: {type(error).__name__}") from error
    if not is_address(address):
        raise WorkerError(f"{url} says no address of its own")
    return to_checksum_address(address)
