"""What payers do: move credits, open and end sessions, sign requests; honestly or not."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from chain.contracts.ledger import session_id
from chain.messages import Assignment, InferenceReceipt, InferenceRequest, SessionClose, digest
from tests.contracts.model import accounts, sessions
from tests.contracts.model.accounts import NOBODY
from tests.contracts.model.claims import price
from tests.contracts.model.jobs import Job, Stage, signature
from tests.contracts.model.play import CREDIT
from tests.contracts.model.player import Player

PAYERS = ("payer", "friend", "worker")
ENTRIES = st.sampled_from(["payer", "friend", "worker", "rival", "gateway", "thief"])
HOUR_S = 3600
FEE_BPS = 500
PRICE = 777 * CREDIT


class PayerMoves(Player):
    @rule(who=ENTRIES, data=st.data())
    def deposit(self, who: str, data: st.DataObject) -> None:
        amount = self.amount(data, self.model.wallets[self.who(who)])
        self.play.do(self.who(who), self.chain.ledger.deposit(amount), accounts.deposit, amount)

    @rule(who=ENTRIES, data=st.data())
    def withdraw(self, who: str, data: st.DataObject) -> None:
        amount = self.amount(data, self.model.balances[self.who(who)])
        self.play.do(self.who(who), self.chain.ledger.withdraw(amount), accounts.withdraw, amount)

    @rule(who=ENTRIES, to=ENTRIES, data=st.data())
    def transfer(self, who: str, to: str, data: st.DataObject) -> None:
        amount = self.amount(data, self.model.balances[self.who(who)])
        receiver = NOBODY if self.seldom(data) else self.who(to)
        self.play.do(self.who(who), self.chain.ledger.transfer(receiver, amount), accounts.transfer, receiver, amount)

    @initialize(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        """A game without a session would be short."""
        self._open("payer", "gateway", "session key", 300 * CREDIT, 20 * HOUR_S)
        self.ask(data)

    @rule(who=st.sampled_from(PAYERS), data=st.data())
    def open_session(self, who: str, data: st.DataObject) -> None:
        gateway = "worker" if self.seldom(data) else self.pick(data, ["gateway", "rival"])
        key = None if self.seldom(data) else self.pick(data, ["session key", "other session key"])
        budget = self.amount(data, self.model.balances[self.who(who)])
        self._open(who, gateway, key, budget, self.pick(data, [20 * HOUR_S, HOUR_S, 5, 50 * HOUR_S, 0]))

    def _open(self, who: str, gateway: str, key: str | None, budget: int, duration_s: int) -> None:
        parties = (self.who(gateway), self.who(key) if key else NOBODY)
        call = self.chain.ledger.open_session(*parties, budget, duration_s)
        self.play.do(self.who(who), call, sessions.open_session, *parties, budget, duration_s)

    @rule(data=st.data())
    def top_up(self, data: st.DataObject) -> None:
        session = self.pick_session(data)
        payer = self.mostly(data, self.payer_of(session), *PAYERS)
        amount = self.amount(data, self.model.balances[payer])
        self.play.do(payer, self.chain.ledger.top_up(session, amount), sessions.top_up, session, amount)

    @rule(data=st.data())
    def close_session(self, data: st.DataObject) -> None:
        session = self.pick_session(data)
        payer = self.mostly(data, self.payer_of(session), *PAYERS, "gateway")
        self.play.do(payer, self.chain.ledger.close_session(session), sessions.close_session, session)

    @rule(data=st.data())
    def finalize_close(self, data: st.DataObject) -> None:
        session = self.pick_session(data)
        if session in self.model.sessions:
            self.wait_for(data, self.model.sessions[session].ends_at + self.model.parameters.session_thaw_s)
        self.play.do(
            self.mostly(data, self.payer_of(session), "gateway"),
            self.chain.ledger.finalize_close(session),
            sessions.finalize_close,
            session,
        )

    @rule(data=st.data())
    def close_together(self, data: st.DataObject) -> None:
        """Brought by one of the two, or by anybody, with one signature too few at times."""
        session = self.pick_session(data)
        open_ = self.model.sessions.get(session)
        payer, gateway = self.payer_of(session), open_.terms.gateway if open_ else self.who("gateway")
        sender = self.pick(data, [payer, gateway, self.who("friend"), self.who("gateway's signer")])
        settled = (open_.settled if open_ else 0) + self.seldom(data)
        consent = SessionClose(session=session, settled=settled, deadline=self.now - self.seldom(data))
        by = (
            self.mostly(data, payer, "friend"),
            self.mostly(data, self.model.nodes[gateway].signer or gateway, "gateway", "worker's signer"),
        )
        signatures = [signature(consent, self.model.domain, who, self.play.bench.keys) for who in by]
        call = self.chain.ledger.close_together(consent, *signatures)
        self.play.do(sender, call, sessions.close_together, session, settled, consent.deadline, *by)

    @precondition(lambda self: self.model.sessions)
    @rule(data=st.data())
    def ask(self, data: st.DataObject) -> None:
        """Signs a request, and has it served: nothing of that is on chain yet."""
        session = self.pick(data, list(self.model.sessions)[-3:])
        terms = self.model.sessions[session].terms
        jobs = self.jobs.setdefault(session, [])
        nonce = len(jobs) - (self.seldom(data) and len(jobs) > 0)
        acked_below = max(nonce - self.pick(data, [0, 1, 2, 3]), 0)
        spent = sum(job.cost for job in jobs if job.request.nonce < acked_below)
        if self.seldom(data):
            spent = self.pick(data, [0, spent + 1, 2 * spent + CREDIT, 2**127])
        nodes = self.pick(data, [("worker",), ("worker", "rival"), ("rival",)])
        request = InferenceRequest(
            session=session,
            nonce=nonce,
            model=bytes(32),
            body=len(self.all_jobs()).to_bytes(32, "big"),
            max_tokens=1_000,
            tier=self.pick(data, [0, 1, 2]),
            max_cost=self.pick(data, [60, 60, 60, 9, 0]) * CREDIT,
            acked_below=acked_below,
            spent=spent,
            deadline=self.now + 60,
        )
        by = self.mostly(data, terms.key, "session key", "payer")
        stages = tuple(self._serve(data, request, self.who(node), terms.gateway) for node in nodes)
        fee = sum(stage.receipt.cost for stage in stages) * FEE_BPS // 10_000
        jobs.append(Job(request, by, stages, fee))

    def _serve(self, data: st.DataObject, request: InferenceRequest, node: str, gateway: str) -> Stage:
        signer = self.model.nodes[gateway].signer or gateway
        assignment = Assignment(
            request=digest(request, self.model.domain),
            stage=0,
            first_layer=2,
            end_layer=8,
            numeric_profile=0,
            shard=bytes(32),
            node=node,
            prompt_price=PRICE,
            output_price=3 * PRICE,
            attempt=0,
            deadline=self.now + 600,
        )
        receipt = InferenceReceipt(
            assignment=digest(assignment, self.model.domain),
            node=node,
            prompt_tokens=self.pick(data, [333, 1]),
            output_tokens=self.pick(data, [77, 777, 1_000]) + self.seldom(data),
            inputs=bytes(32),
            outputs=bytes(32),
            cost=0,
            started_at=self.now,
            finished_at=self.now,
        )
        cost = price(assignment, request.tier, receipt)
        if self.seldom(data):
            cost = self.pick(data, [0, 1, cost + 1])
        receipt = receipt.model_copy(update={"cost": cost})
        return Stage(assignment, self.mostly(data, signer, "gateway"), receipt, self.mostly(data, signer, "gateway"))

    def payer_of(self, session: bytes) -> str:
        return next(t.payer for t in self.model.opened if session_id(t.payer, 0)[:20] == session[:20])
