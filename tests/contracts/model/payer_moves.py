"""What payers do: move credits, open and end sessions, sign requests; honestly or not."""

from __future__ import annotations

from declai.chain.contracts.ledger import session_id
from declai.chain.messages import Assignment, InferenceReceipt, InferenceRequest, SessionClose, digest
from tests.contracts.model import accounts, sessions
from tests.contracts.model.accounts import NOBODY
from tests.contracts.model.claims import price
from tests.contracts.model.dice import Dice
from tests.contracts.model.jobs import Job, Stage, signature
from tests.contracts.model.play import CREDIT
from tests.contracts.model.player import Player

PAYERS = ("payer", "friend", "worker")
HOUR_S = 3600
FEE_BPS = 500
PRICE = 777 * CREDIT


class PayerMoves(Player):
    def move_credits(self, dice: Dice) -> None:
        """Into the ledger, out of it, or to somebody else in it."""
        sender, ledger = self.anybody(dice), self.chain.ledger
        amount = self.amount(dice, self.model.balances[sender])
        more = self.amount(dice, self.model.wallets[sender])
        receiver = NOBODY if dice.seldom() else self.anybody(dice)
        deeds = [
            (ledger.deposit(more), accounts.deposit, more),
            (ledger.withdraw(amount), accounts.withdraw, amount),
            (ledger.transfer(receiver, amount), accounts.transfer, receiver, amount),
        ]
        self.play.do(sender, *dice.pick(deeds))

    def open_first_session(self) -> None:
        self._open("payer", "gateway", "session key", 300 * CREDIT, 20 * HOUR_S)

    def open_session(self, dice: Dice) -> None:
        who = dice.pick(PAYERS)
        gateway = "worker" if dice.seldom() else dice.pick(["gateway", "rival"])
        key = None if dice.seldom() else dice.pick(["session key", "other session key"])
        budget = self.amount(dice, self.model.balances[self.who(who)])
        self._open(who, gateway, key, budget, dice.pick([20 * HOUR_S, HOUR_S, 5, 50 * HOUR_S, 0]))

    def _open(self, who: str, gateway: str, key: str | None, budget: int, duration_s: int) -> None:
        parties = (self.who(gateway), self.who(key) if key else NOBODY)
        call = self.chain.ledger.open_session(*parties, budget, duration_s)
        self.play.do(self.who(who), call, sessions.open_session, *parties, budget, duration_s)

    def top_up(self, dice: Dice) -> None:
        session = self.pick_session(dice, running=True)
        payer = self.mostly(dice, self.payer_of(session), *PAYERS)
        amount = self.amount(dice, self.model.balances[payer])
        self.play.do(payer, self.chain.ledger.top_up(session, amount), sessions.top_up, session, amount)

    def close_session(self, dice: Dice) -> None:
        session = self.pick_session(dice, running=True)
        payer = self.mostly(dice, self.payer_of(session), *PAYERS, "gateway")
        self.play.do(payer, self.chain.ledger.close_session(session), sessions.close_session, session)

    def finalize_close(self, dice: Dice) -> None:
        session = self.pick_session(dice)
        if session in self.model.sessions:
            self.wait_for(dice, self.model.sessions[session].ends_at + self.model.parameters.session_thaw_s)
        self.play.do(
            self.mostly(dice, self.payer_of(session), "gateway"),
            self.chain.ledger.finalize_close(session),
            sessions.finalize_close,
            session,
        )

    def close_together(self, dice: Dice) -> None:
        """Brought by one of the two, or by anybody, with one signature too few at times."""
        session = self.pick_session(dice)
        open_ = self.model.sessions.get(session)
        payer, gateway = self.payer_of(session), open_.terms.gateway if open_ else self.who("gateway")
        sender = dice.pick([payer, gateway, self.who("friend"), self.who("gateway's signer")])
        settled = (open_.settled if open_ else 0) + dice.seldom()
        consent = SessionClose(session=session, settled=settled, deadline=self.now - dice.seldom())
        by = (
            self.mostly(dice, payer, "friend"),
            self.mostly(dice, self.model.nodes[gateway].signer or gateway, "gateway", "worker's signer"),
        )
        signatures = [signature(consent, self.model.domain, who, self.play.bench.keys) for who in by]
        call = self.chain.ledger.close_together(consent, *signatures)
        self.play.do(sender, call, sessions.close_together, session, settled, consent.deadline, *by)

    def ask(self, dice: Dice) -> None:
        """Payers who have sessions sign requests, and are served: nothing of that is on chain yet."""
        late = list(self.model.sessions)[-3:]
        running = [session for session in late if self.now < self.model.sessions[session].ends_at and not dice.seldom()]
        for _ in range(dice.pick([1, 2, 3])):
            if late:
                self._ask(dice, dice.pick(running or late))

    def _ask(self, dice: Dice, session: bytes) -> None:
        terms = self.model.sessions[session].terms
        jobs = self.jobs.setdefault(session, [])
        nonce = len(jobs) - (dice.seldom() and len(jobs) > 0)
        acked_below = max(nonce - dice.pick([0, 1, 2, 3]), 0)
        spent = sum(job.cost for job in jobs if job.request.nonce < acked_below)
        if dice.seldom():
            spent = dice.pick([0, spent + 1, 2 * spent + CREDIT, 2**127])
        nodes = dice.pick([("worker",), ("worker", "rival"), ("rival",)])
        request = InferenceRequest(
            session=session,
            nonce=nonce,
            model=bytes(32),
            body=len(self.all_jobs()).to_bytes(32, "big"),
            max_tokens=1_000,
            tier=dice.pick([0, 1, 2]),
            max_cost=dice.pick([60, 60, 60, 9, 0]) * CREDIT,
            acked_below=acked_below,
            spent=spent,
            deadline=self.now + 60,
        )
        by = self.mostly(dice, terms.key, "session key", "payer")
        stages = tuple(self._serve(dice, request, self.who(node), terms.gateway) for node in nodes)
        fee = sum(stage.receipt.cost for stage in stages) * FEE_BPS // 10_000
        jobs.append(Job(request, by, stages, fee))

    def _serve(self, dice: Dice, request: InferenceRequest, node: str, gateway: str) -> Stage:
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
            prompt_tokens=dice.pick([333, 1]),
            output_tokens=dice.pick([77, 777, 1_000]) + dice.seldom(),
            inputs=bytes(32),
            outputs=bytes(32),
            cost=0,
            started_at=self.now,
            finished_at=self.now,
        )
        cost = price(assignment, request.tier, receipt)
        if dice.seldom():
            cost = dice.pick([0, 1, cost + 1])
        receipt = receipt.model_copy(update={"cost": cost})
        return Stage(assignment, self.mostly(dice, signer, "gateway"), receipt, self.mostly(dice, signer, "gateway"))

    def payer_of(self, session: bytes) -> str:
        return next(t.payer for t in self.model.opened if session_id(t.payer, 0)[:20] == session[:20])
