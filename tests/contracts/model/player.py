"""What all moves share: the play, what was signed so far, and how to choose."""

from __future__ import annotations

from collections.abc import Callable

from declai.chain.client import Chain
from declai.chain.messages import SignedMessage, digest
from tests.contracts.model.dice import Dice
from tests.contracts.model.jobs import Batch, Job, Stage
from tests.contracts.model.play import CREDIT, Play
from tests.contracts.model.reference import Place, Reference

PATIENCE_S = 40 * 86_400


class Player:
    """Begins each game at the same point, and remembers what is signed and not yet on chain."""

    def __init__(self, play: Play) -> None:
        self.play = play
        play.begin_again()
        self.jobs: dict[bytes, list[Job]] = {}
        self.batches: list[Batch] = []
        self.paid: set[bytes] = set()

    @property
    def model(self) -> Reference:
        return self.play.model

    @property
    def chain(self) -> Chain:
        return self.play.bench.chain

    @property
    def now(self) -> int:
        """The time of the next block."""
        return self.play.clock

    def who(self, name: str) -> str:
        return self.play.bench.address(name)

    def anybody(self, dice: Dice) -> str:
        return self.who(dice.pick(["payer", "friend", "worker", "rival", "gateway", "thief"]))

    def mostly(self, dice: Dice, right: str, *others: str) -> str:
        """An account, by name: mostly the one that may, else another of these or the thief."""
        return self.who(dice.pick([*others, "thief"])) if dice.seldom() else right

    def amount(self, dice: Dice, limit: int) -> int:
        """Mostly within the limit, often next to an edge."""
        return dice.pick([limit // 40, limit // 3, min(limit, CREDIT), 1, limit, limit + 1, 0])

    def wait_for(self, dice: Dice, moment: int) -> None:
        """Mostly until the moment has come, else until just before or after it, or not at all."""
        chosen = dice.pick([moment, moment, moment, moment - 1, moment + 1, self.now])
        self.wait_until(chosen)

    def wait_until(self, moment: int) -> None:
        """The next block is of this time, if that is still to come and not too far away."""
        if self.now < moment < self.now + PATIENCE_S:
            self.play.clock = moment

    def serve_more(self, dice: Dice) -> bool:
        """Often there is new work when somebody wants to be paid; whether there is any."""
        if dice.pick([True, False]):
            self.ask(dice)
        return any(self.jobs.values())

    def ask(self, dice: Dice) -> None:
        """See PayerMoves."""
        raise NotImplementedError

    def open_session(self, dice: Dice) -> None:
        """See PayerMoves."""
        raise NotImplementedError

    def settle(self, dice: Dice) -> None:
        """See GatewayMoves."""
        raise NotImplementedError

    def all_jobs(self) -> list[Job]:
        return [job for jobs in self.jobs.values() for job in jobs]

    def pick_stage(self, dice: Dice, is_good: Callable[[Job], bool] = lambda job: True) -> tuple[Job, Stage]:
        """A stage of a late job, mostly of a good one."""
        good = [job for job in self.all_jobs() if is_good(job) and not dice.seldom()]
        job = dice.pick((good or self.all_jobs())[-6:])
        return job, dice.pick(job.stages)

    def pick_session(self, dice: Dice, running: bool = False) -> bytes:
        """Mostly one that is open, and has not ended if that matters; else a closed one, or the next, which is none."""
        terms, sessions = self.model.opened, self.model.sessions
        late = [session for session in list(sessions)[-3:] if not running or self.now < sessions[session].ends_at]
        if sessions and not dice.seldom():
            return dice.pick(late or list(sessions))
        return dice.pick([terms[-1].session[:20] + (len(terms) + 1).to_bytes(12, "big"), terms[0].session])

    def place_of(self, dice: Dice, receipt: bytes, cost: int) -> Place | None:
        """Where batches paid a receipt, or seldom a wrong place; None when there are no batches."""
        right: list[Place] = []
        wrong: list[Place] = []
        for batch in self.batches:
            for index, leaves in enumerate(batch.receipts):
                place = Place(batch.gateway, batch.slot, batch.content, index, receipt, cost)
                (right if (receipt, cost) in leaves else wrong).append(place)
        places = right if right and not dice.seldom() else right + wrong
        return dice.pick(places) if places else None

    def gateway_of(self, session: bytes) -> str:
        return next(terms.gateway for terms in self.model.opened if terms.session == session)

    def hash_of(self, message: SignedMessage) -> bytes:
        return digest(message, self.model.domain)
