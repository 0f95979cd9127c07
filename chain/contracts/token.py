"""CreditToken: the ERC-20 in which everything is paid."""

from __future__ import annotations

from declai.chain.contracts.binding import Binding, Call


class CreditToken(Binding):
    """Amounts in base units, 10**18 a credit."""

    name = "CreditToken"

    def balance_of(self, account: str) -> int:
        return int(self._read("balanceOf", account))

    def allowance(self, owner: str, spender: str) -> int:
        return int(self._read("allowance", owner, spender))

    def approve(self, spender: str, amount: int) -> Call:
        return self._call("approve", spender, amount)

    def transfer(self, to: str, amount: int) -> Call:
        return self._call("transfer", to, amount)

    def mint(self, to: str, amount: int) -> Call:
        return self._call("mint", to, amount)
