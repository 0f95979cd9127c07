"""One deed on both sides: the model says what should come of it, the chain does it, and then all is compared."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from typing import Any

from eth_utils.crypto import keccak
from hypothesis import currently_in_test_context, note

from declai.chain.contracts.binding import Call
from declai.chain.contracts.nodes import Registration, Role
from declai.chain.pricing import UNITS_PER_CREDIT
from tests.contracts.model import accounts, stakes
from tests.contracts.model.bench import Bench
from tests.contracts.model.compare import compare_index, compare_views
from tests.contracts.model.reference import Reference, Refused

CREDIT = UNITS_PER_CREDIT
UNLIMITED = 2**256 - 1
SETTLING_IN_S = 1_000


class Play:
    """The model beside the chain. `clock` is the time of the next block; `misinformation` are parameters that the model
    takes to be others than they are."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        chain = bench.chain
        self.model = Reference(
            genesis=bench.genesis(),
            parameters=bench.parameters,
            domain=chain.domain,
            ledger=chain.ledger.address,
            registry=chain.nodes.address,
            court=chain.court.address,
        )
        self.clock = self.model.genesis + SETTLING_IN_S
        self.misinformation: dict[str, int] = {}
        self.seen: Counter[tuple[str, str]] = Counter()
        self._set_the_stage()
        bench.save()
        self._beginning = (copy.deepcopy(self.model), self.clock)

    def begin_again(self) -> None:
        """Both sides as they were after the setting of the stage."""
        self.bench.restore()
        model, self.clock = self._beginning
        self.model = copy.deepcopy(model)
        self.model.parameters = model.parameters.model_copy(update=self.misinformation)

    def do(self, sender: str, call: Call, rule: Callable[..., None], *arguments: Any) -> bool:
        """Whether it was allowed. `rule` is the model's, `call` the contracts' name for the same deed."""
        self.model.now = self.clock
        expected: frozenset[str] = frozenset()
        try:
            rule(self.model, sender, *arguments)
        except Refused as refused:
            expected = refused.errors
        error = self.bench.attempt(sender, call, self.clock)
        if currently_in_test_context():
            at = self.clock - self.model.genesis
            note(f"# {at} s: {self.bench.names[sender]}: {call.label}: {error or 'done'}")
        self.seen[call.label, error or ""] += 1
        assert error in (expected or {None}), f"{call.label}: the chain says {error}, the model {sorted(expected)}"
        self.clock += 1
        self.check()
        return error is None

    def check(self) -> None:
        """Model, views and index tell the same."""
        self.model.check_conservation()
        views = compare_views(self.model, self.bench)
        compare_index(self.model, self.bench, views)

    def _set_the_stage(self) -> None:
        """Everybody has credits and has approved the contracts; a gateway, a worker, and a rival who is both."""
        bench, chain, treasury = self.bench, self.bench.chain, self.bench.address("treasury")
        for person in bench.keys:
            for spender in (chain.ledger.address, chain.nodes.address, chain.court.address):
                assert bench.attempt(person, chain.token.approve(spender, UNLIMITED), self.clock) is None
                self.clock += 1
            amount = 5_000 * CREDIT
            self.do(treasury, chain.token.mint(person, amount), accounts.mint, person, amount)
        for name, roles in (("gateway", Role.GATEWAY), ("worker", Role.WORKER), ("rival", Role.WORKER | Role.GATEWAY)):
            self.register(bench.address(name), bench.address(f"{name}'s signer"), roles, 1_500 * CREDIT)
        for name in ("payer", "friend", "worker", "rival"):
            amount = 1_000 * CREDIT
            self.do(bench.address(name), chain.ledger.deposit(amount), accounts.deposit, amount)
        gateway, signer = bench.address("gateway"), bench.address("gateway's signer")
        self.do(gateway, chain.ledger.set_settler(signer), accounts.set_settler, signer)

    def register(self, operator: str, signer: str, roles: int, stake: int) -> None:
        """With a link key and addresses of its own."""
        registration = Registration(
            signer=signer,
            roles=int(roles),
            link_key=keccak(text=f"link key of {operator}"),
            endpoint="tcp://127.0.0.1:9",
            url="http://127.0.0.1:9",
        )
        call = self.bench.chain.nodes.register(registration, stake)
        self.do(operator, call, stakes.register, signer, int(roles), stake)
