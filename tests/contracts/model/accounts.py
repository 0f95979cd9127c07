"""Credits and balances: minting, deposits, withdrawals, transfers, fees, compensation."""

from __future__ import annotations

from tests.contracts.model.reference import Reference, refuse_if

MAX_CREDITS = 2**96 - 1
NOBODY = "0x" + "00" * 20


def mint(model: Reference, sender: str, to: str, amount: int) -> None:
    """Total supply changes only by the minter, and fits 96 bits."""
    refuse_if(
        AccessControlUnauthorizedAccount=sender != model.parameters.treasury,
        ERC20ExceededCap=model.supply + amount > MAX_CREDITS,
    )
    model.supply += amount
    model.wallets[to] += amount


def deposit(model: Reference, sender: str, amount: int) -> None:
    refuse_if(
        InferenceLedgerZeroAmount=amount == 0,
        InferenceLedgerTooManyCredits=amount > MAX_CREDITS,
        ERC20InsufficientBalance=amount > model.wallets[sender],
    )
    model.move(sender, model.ledger, amount)
    model.balances[sender] += amount


def withdraw(model: Reference, sender: str, amount: int) -> None:
    refuse_if(
        InferenceLedgerZeroAmount=amount == 0,
        InferenceLedgerInsufficientBalance=amount > model.balances[sender],
    )
    model.balances[sender] -= amount
    model.move(model.ledger, sender, amount)


def transfer(model: Reference, sender: str, to: str, amount: int) -> None:
    refuse_if(
        InferenceLedgerZeroAddress=to == NOBODY,
        InferenceLedgerZeroAmount=amount == 0,
        InferenceLedgerInsufficientBalance=amount > model.balances[sender],
    )
    model.balances[sender] -= amount
    model.balances[to] += amount


def set_settler(model: Reference, sender: str, settler: str) -> None:
    model.settlers[sender] = settler


def collect_fees(model: Reference, sender: str, gateway: str) -> None:
    """Anyone may call: the fees go to the gateway."""
    refuse_if(InferenceLedgerZeroAmount=model.fees[gateway] == 0)
    model.balances[gateway] += model.fees.pop(gateway)


def settles_for(model: Reference, account: str, gateway: str) -> bool:
    return account in (gateway, model.settlers.get(gateway))


def compensate(model: Reference, sender: str, gateway: str, payer: str, amount: int) -> None:
    """A gateway gives part of a price back, from its own balance."""
    refuse_if(
        InferenceLedgerNotAuthorized=not settles_for(model, sender, gateway),
        InferenceLedgerZeroAddress=payer == NOBODY,
        InferenceLedgerInsufficientBalance=amount > model.balances[gateway],
    )
    model.balances[gateway] -= amount
    model.balances[payer] += amount
