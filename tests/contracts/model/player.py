"""What all moves share: the play, what was signed so far, and how to choose."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine

from chain.client import Chain
from chain.messages import Message, digest
from tests.contracts.model.jobs import Batch, Job, Stage
from tests.contracts.model.play import CREDIT, Play
from tests.contracts.model.reference import Place, Reference

Item = TypeVar("Item")
ONCE_IN = 10
PATIENCE_S = 40 * 86_400


class Player(RuleBasedStateMachine):
    """Begins each game at the same point. Choices come from Hypothesis, so that it can replay and shrink them."""

    def __init__(self, play: Play) -> None:
        super().__init__()
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

    def pick(self, data: st.DataObject, options: Sequence[Item]) -> Item:
        return data.draw(st.sampled_from(options))

    def seldom(self, data: st.DataObject) -> bool:
        """Once in ten times."""
        return data.draw(st.integers(0, ONCE_IN - 1)) == ONCE_IN - 1

    def mostly(self, data: st.DataObject, right: str, *others: str) -> str:
        """An account, by name: mostly the one that may, else another of these or the thief."""
        return self.who(self.pick(data, [*others, "thief"])) if self.seldom(data) else right

    def amount(self, data: st.DataObject, limit: int) -> int:
        """Mostly within the limit, often next to an edge."""
        return self.pick(data, [limit // 40, limit // 3, min(limit, CREDIT), 1, limit, limit + 1, 0])

    def wait_for(self, data: st.DataObject, moment: int) -> None:
        """Mostly until the moment has come, else until just before or after it, or not at all."""
        chosen = self.pick(data, [moment, moment, moment, moment - 1, moment + 1, self.now])
        self.wait_until(chosen)

    def wait_until(self, moment: int) -> None:
        """The next block is of this time, if that is still to come and not too far away."""
        if self.now < moment < self.now + PATIENCE_S:
            self.play.clock = moment

    def all_jobs(self) -> list[Job]:
        return [job for jobs in self.jobs.values() for job in jobs]

    def pick_stage(self, data: st.DataObject) -> tuple[Job, Stage]:
        """A stage of a late job."""
        job = self.pick(data, self.all_jobs()[-6:])
        return job, self.pick(data, job.stages)

    def pick_session(self, data: st.DataObject) -> bytes:
        """Mostly one that is open; else one that is closed, or the next one, which is none yet."""
        terms = self.model.opened
        if self.model.sessions and not self.seldom(data):
            return self.pick(data, list(self.model.sessions)[-3:])
        return self.pick(data, [terms[-1].session[:20] + (len(terms) + 1).to_bytes(12, "big"), terms[0].session])

    def place_of(self, data: st.DataObject, receipt: bytes, cost: int) -> Place | None:
        """Where batches paid a receipt, or seldom a wrong place; None when there are no batches."""
        right, wrong = [], []
        for batch in self.batches:
            for index, leaves in enumerate(batch.receipts):
                place = Place(batch.gateway, batch.slot, batch.content, index, receipt, cost)
                (right if (receipt, cost) in leaves else wrong).append(place)
        places = right if right and not self.seldom(data) else right + wrong
        return self.pick(data, places) if places else None

    def gateway_of(self, session: bytes) -> str:
        return next(terms.gateway for terms in self.model.opened if terms.session == session)

    def hash_of(self, message: Message) -> bytes:
        return digest(message, self.model.domain)
