"""Jury: auditors' seats, draws by a later block, and votes that are committed before they are shown."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from eth_abi.abi import encode
from eth_utils.crypto import keccak

from declai.chain.contracts.binding import Binding, Call


class JuryPhase(IntEnum):
    """Where a dispute stands before the jury."""

    NONE = 0
    KNOWN = 1
    DRAWING = 2
    VOTING = 3
    VOID = 4
    CLOSED = 5


@dataclass(frozen=True)
class Round:
    """One jury of a dispute; see IJury.Round."""

    appellant: str
    draw_block: int
    num_guilty: int
    num_warning: int
    num_clear: int
    jurors: list[str]


@dataclass(frozen=True)
class Vote:
    """What a juror measured: `distance` in millionths of the slashing threshold, `sketch_hash` sha256 of its sketch."""

    distance: int
    sketch_hash: bytes
    salt: bytes

    def commitment(self, chain_id: int, jury: str, dispute_id: bytes, round_number: int, juror: str) -> bytes:
        """What the juror commits to before anybody shows anything; the salt must not be guessable."""
        types = ["uint256", "address", "bytes32", "uint8", "address", "uint64", "bytes32", "bytes32"]
        values = [chain_id, jury, dispute_id, round_number, juror, self.distance, self.sketch_hash, self.salt]
        return keccak(encode(types, values))


class Jury(Binding):
    """Disputes are named by the ids that the court gives them."""

    name = "Jury"

    def num_seats(self) -> int:
        """Seats that were ever there, the empty ones included."""
        return int(self._read("numSeats"))

    def phase(self, dispute_id: bytes) -> tuple[JuryPhase, int]:
        """Where a dispute stands, and which round is under way, from 0."""
        *_, phase, number, _ = self._read("caseOf", dispute_id)
        return JuryPhase(phase), int(number)

    def round(self, dispute_id: bytes, number: int) -> Round:
        return self._read_row(Round, "round", dispute_id, number)

    def closes_at(self, dispute_id: bytes) -> int:
        """Unix time from which a dispute that is left alone can be closed. Raises ContractRevert when there is none."""
        return int(self._read("closesAt", dispute_id))

    def take_seat(self) -> Call:
        return self._call("takeSeat")

    def draw_jury(self, dispute_id: bytes) -> Call:
        return self._call("drawJury", dispute_id)

    def commit_vote(self, dispute_id: bytes, commitment: bytes) -> Call:
        return self._call("commitVote", dispute_id, commitment)

    def reveal_vote(self, dispute_id: bytes, vote: Vote) -> Call:
        return self._call("revealVote", dispute_id, vote.distance, vote.sketch_hash, vote.salt)
