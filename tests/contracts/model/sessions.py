"""Sessions: a budget that a payer locks for one gateway and one key, until the thaw after its end."""

from __future__ import annotations

from declai.chain.contracts.ledger import SessionTerms
from declai.chain.contracts.nodes import Role
from tests.contracts.model import stakes
from tests.contracts.model.accounts import NOBODY
from tests.contracts.model.reference import Reference, Session, refuse_if


def open_session(model: Reference, sender: str, gateway: str, key: str, budget: int, duration_s: int) -> None:
    refuse_if(
        InferenceLedgerGatewayNotActive=not stakes.is_active(model, gateway, Role.GATEWAY),
        InferenceLedgerZeroKey=key == NOBODY,
        InferenceLedgerZeroAmount=budget == 0,
        InferenceLedgerZeroDuration=duration_s == 0,
        InferenceLedgerInsufficientBalance=budget > model.balances[sender],
    )
    model.balances[sender] -= budget
    terms = SessionTerms(sender, gateway, key, len(model.opened) + 1)
    model.opened.append(terms)
    model.sessions[terms.session] = Session(terms, budget, model.now + duration_s)


def top_up(model: Reference, sender: str, session: bytes, amount: int) -> None:
    self = _running(model, sender, session, InferenceLedgerZeroAmount=amount == 0)
    refuse_if(InferenceLedgerInsufficientBalance=amount > model.balances[sender])
    model.balances[sender] -= amount
    self.budget += amount


def close_session(model: Reference, sender: str, session: bytes) -> None:
    """Begins the thaw: work that was done can still be settled."""
    _running(model, sender, session).ends_at = model.now


def finalize_close(model: Reference, sender: str, session: bytes) -> None:
    """Anyone may call."""
    self = existing(model, session)
    thawed_at = self.ends_at + model.parameters.session_thaw_s
    refuse_if(
        InferenceLedgerStillThawing=model.now < thawed_at,
        InferenceLedgerClaimsOpen=bool(model.open_claims(session)),
    )
    _close(model, session)


def close_together(
    model: Reference,
    sender: str,
    session: bytes,
    settled: int,
    deadline: int,
    payer_signed: str | None,
    gateway_signed: str | None,
) -> None:
    """At once, at exactly this settled total, when payer and gateway both consent: by calling or by signing."""
    self = existing(model, session)
    payer, gateway = self.terms.payer, self.terms.gateway
    payer_consents = payer in (sender, payer_signed)
    gateway_consents = gateway in (sender, gateway_signed) or any(
        model.acts_for(account, gateway) for account in (sender, gateway_signed) if account
    )
    refuse_if(
        InferenceLedgerConsentExpired=model.now > deadline,
        InferenceLedgerConsentToOtherTotal=settled != self.settled,
        InferenceLedgerNoConsent=not (payer_consents and gateway_consents),
        InferenceLedgerClaimsOpen=bool(model.open_claims(session)),
    )
    _close(model, session)


def existing(model: Reference, session: bytes, **reasons: bool) -> Session:
    """A session that is open, unless this or one of the other reasons forbids."""
    refuse_if(InferenceLedgerUnknownSession=session not in model.sessions, **reasons)
    return model.sessions[session]


def _running(model: Reference, sender: str, session: bytes, **reasons: bool) -> Session:
    self = existing(model, session, **reasons)
    refuse_if(
        InferenceLedgerNotPayer=sender != self.terms.payer,
        InferenceLedgerSessionOver=model.now >= self.ends_at,
    )
    return self


def _close(model: Reference, session: bytes) -> None:
    closed = model.sessions.pop(session)
    model.balances[closed.terms.payer] += closed.budget - closed.settled
