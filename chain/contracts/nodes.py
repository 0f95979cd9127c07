"""NodeRegistry: who may serve, with what stake, where, and at which price."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag

from declai.chain.contracts.binding import Binding, Call
from declai.chain.fields import NUMERIC_PROFILES


class Role(IntFlag):
    """What a node stakes for."""

    WORKER = 1
    GATEWAY = 2
    AUDITOR = 4


@dataclass(frozen=True)
class RegisteredNode:
    """A node as the registry has it. Stakes in base units; `link_key` is the 32-byte public CURVE key."""

    signer: str
    roles: int
    term: int
    thaw_ends_at: int
    stake: int
    thawing: int
    link_key: bytes
    endpoint: str
    url: str
    region: str
    profile: str


@dataclass(frozen=True)
class Offer:
    """What a worker serves of a model: layers [first_layer, end_layer), prices per million token-layers."""

    first_layer: int
    end_layer: int
    numeric_profile: int
    term: int
    prompt_price: int
    output_price: int


@dataclass(frozen=True)
class Registration:
    """What an operator says about a node when it registers; gateways need a url."""

    signer: str
    roles: int
    link_key: bytes
    endpoint: str
    url: str = ""
    region: str = ""
    profile: str = ""


class NodeRegistry(Binding):
    """Reads by operator address."""

    name = "NodeRegistry"

    def node(self, operator: str) -> RegisteredNode:
        return self._read_row(RegisteredNode, "node", operator)

    def offer(self, operator: str, model: bytes, numeric_profile: int) -> Offer:
        """All zero when there is none."""
        return self._read_row(Offer, "offer", operator, model, numeric_profile)

    def offers(self, operator: str, model: bytes) -> list[Offer]:
        """An operator's offers for a model in the numeric profiles known here."""
        found = (self.offer(operator, model, profile) for profile in NUMERIC_PROFILES.values())
        return [offer for offer in found if offer.end_layer]

    def reputation(self, operator: str) -> int:
        """In [0, 10**18]; half of that for a newcomer."""
        return int(self._read("reputation", operator))

    def locked_stake(self, operator: str) -> int:
        """Stake that recent earnings keep from being withdrawn."""
        return int(self._read("lockedStake", operator))

    def jailed_until(self, operator: str) -> int:
        """Unix seconds; 0 when it never was."""
        return int(self._read("jailedUntil", operator))

    def operator_of(self, account: str) -> str:
        return str(self._read("operatorOf", account))

    def holder_of_signer(self, signer: str) -> str:
        """The operator that an address signs or once signed for, which it does for good; zero when there is none."""
        return str(self._read("signerRecord", signer)[0])

    def operator_of_link_key(self, link_key: bytes) -> str:
        return str(self._read("operatorOfLinkKey", link_key))

    def is_active(self, operator: str, role: Role) -> bool:
        return bool(self._read("isActive", operator, int(role)))

    def minimum_stake(self, roles: int) -> int:
        return int(self._read("minimumStake", int(roles)))

    def thaw_period_s(self) -> int:
        return int(self._read("thawPeriod"))

    def register(self, registration: Registration, stake: int) -> Call:
        r = registration
        params = (r.signer, r.roles, r.link_key, r.endpoint, r.url, r.region, r.profile)
        return self._call("register", params, stake)

    def deregister(self) -> Call:
        return self._call("deregister")

    def set_signer(self, signer: str) -> Call:
        return self._call("setSigner", signer)

    def set_endpoint(self, endpoint: str, url: str, link_key: bytes) -> Call:
        return self._call("setEndpoint", endpoint, url, link_key)

    def add_stake(self, amount: int) -> Call:
        return self._call("addStake", amount)

    def begin_unstake(self, amount: int) -> Call:
        return self._call("beginUnstake", amount)

    def withdraw(self) -> Call:
        return self._call("withdraw")

    def set_offer(self, model: bytes, offer: Offer) -> Call:
        layers = (offer.first_layer, offer.end_layer)
        return self._call("setOffer", model, *layers, offer.numeric_profile, offer.prompt_price, offer.output_price)

    def remove_offer(self, model: bytes, numeric_profile: int) -> Call:
        return self._call("removeOffer", model, numeric_profile)

    def token_address(self) -> str:
        return str(self._read("token"))

    def ledger_address(self) -> str:
        return str(self._read("ledger"))

    def court_address(self) -> str:
        return str(self._read("court"))
