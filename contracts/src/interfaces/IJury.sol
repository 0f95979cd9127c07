// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IExaminer} from "./IExaminer.sol";
import {INodeRegistry} from "./INodeRegistry.sol";

/// @title Who judges, what they measured, and who of them was right
/// @notice Auditors take seats. For each round of a dispute the hash of a block that was still to come draws jurors from the seats.
/// They rerun the disputed chunk, commit to the distance between the sketch that they got and the accused's output, and
/// reveal it. Honest reruns agree to rounding, so who guesses stands out. Money is none of this contract's business: the
/// court that made it opens disputes here, asks what was found, and draws the consequences.
///
/// A distance is in millionths of the slashing threshold that the model's manifest gives for the numeric profiles of accused and
/// juror. Bytes that do not hash to the accused's roots are no opening: their distance is 2**64 - 1, the largest there is.
/// Two thirds of the drawn jurors, the silent ones included, make a verdict. Nothing here waits for anybody: each step ends
/// by time, and a dispute can be closed when the last one has.
interface IJury {
    /// @notice Where a dispute stands: known, waiting for its draw, voting (and then open to an appeal), without enough jurors,
    /// over.
    enum Phase {
        None,
        Known,
        Drawing,
        Voting,
        Void,
        Closed
    }

    /// @notice What jurors found, or None while they did not, or where two thirds could not agree.
    enum Verdict {
        None,
        Acquitted,
        Warned,
        Convicted
    }

    /// @notice How far a drawn juror has come.
    enum Ballot {
        NotDrawn,
        Drawn,
        Committed,
        Revealed
    }

    /// @notice Periods in seconds, distances in millionths of the threshold.
    /// @param drawPeriod Time to draw a jury.
    /// @param commitPeriod The jurors' time to rerun the chunk.
    /// @param revealPeriod The jurors' time to show what they measured.
    /// @param appealPeriod Time to appeal after that.
    /// @param drawDelay Blocks between the beginning of a round and the block whose hash draws its jury.
    /// @param jurySize Jurors of the first round; each further round has twice as many and one.
    /// @param minJury Fewer do not judge. An appeal is heard by more jurors than the round before it.
    /// @param maxRounds The first round and its appeals.
    /// @param warningShare Distance from which work is not good enough to be paid.
    /// @param tolerance How far a juror may be from the median of those who were right; where that is above the threshold, as a
    /// share of it.
    struct Parameters {
        uint48 drawPeriod;
        uint48 commitPeriod;
        uint48 revealPeriod;
        uint48 appealPeriod;
        uint16 drawDelay;
        uint8 jurySize;
        uint8 minJury;
        uint8 maxRounds;
        uint32 warningShare;
        uint32 tolerance;
    }

    /// @notice An auditor's place among those from whom juries are drawn.
    /// @param operator Who sits there; zero: nobody.
    /// @param since Unix time, in seconds.
    struct Seat {
        address operator;
        uint48 since;
    }

    /// @notice A dispute as far as jurors are concerned.
    /// @param charge What the accused is accused of.
    /// @param challenger Who opened the dispute.
    /// @param openedAt Unix time, in seconds.
    /// @param numSeats Seats that there were then.
    /// @param phase Where it stands.
    /// @param round Round that is under way, from 0.
    /// @param phaseSince Unix time, in seconds, at which the phase began.
    struct Case {
        IExaminer.Charge charge;
        address challenger;
        uint48 openedAt;
        uint32 numSeats;
        Phase phase;
        uint8 round;
        uint48 phaseSince;
    }

    /// @notice One jury of a dispute.
    /// @param appellant Who asked for it: the challenger, then whoever appealed.
    /// @param drawBlock Block whose hash draws the jury.
    /// @param numGuilty Revealed distances above the threshold.
    /// @param numWarning Revealed distances from `warningShare` to the threshold.
    /// @param numClear Revealed distances below that.
    /// @param jurors Operators, in the order in which they were drawn; none before the draw.
    struct Round {
        address appellant;
        uint64 drawBlock;
        uint8 numGuilty;
        uint8 numWarning;
        uint8 numClear;
        address[] jurors;
    }

    /// @notice A juror's vote in one round.
    /// @param commitment See `commitVote`.
    /// @param distance Once revealed.
    /// @param ballot How far it has come.
    struct Vote {
        bytes32 commitment;
        uint64 distance;
        Ballot ballot;
    }

    event SeatTaken(address indexed operator, uint32 seat);
    event SeatLeft(address indexed operator, uint32 seat);
    /// @notice The hash of this block, once it is there, draws the jury.
    event DrawFixed(bytes32 indexed dispute, uint8 round, uint64 drawBlock);
    event JuryDrawn(bytes32 indexed dispute, uint8 round, address[] jurors);
    /// @notice There were fewer jurors than a jury needs: the round finds nothing.
    event JuryTooSmall(bytes32 indexed dispute, uint8 round, uint256 found, uint256 minimum);
    event VoteCommitted(bytes32 indexed dispute, uint8 round, address indexed juror, bytes32 commitment);
    event VoteRevealed(
        bytes32 indexed dispute, uint8 round, address indexed juror, uint64 distance, bytes32 sketchHash
    );

    error JuryNotCourt(address account);
    error JuryAlreadySeated(address operator);
    error JuryNotSeated(address operator);
    /// @notice The caller does not speak for the operator, which is an active auditor.
    error JuryNotYourSeat(address operator, address account);
    error JuryWrongPhase(bytes32 dispute, Phase phase);
    /// @notice The step is possible from `from` on and before `until`, Unix times in seconds.
    error JuryNotNow(bytes32 dispute, uint256 from, uint256 until);
    error JuryDrawNotReady(bytes32 dispute, uint256 drawBlock);
    /// @notice The hash of the block that draws can still be used.
    error JuryDrawStands(bytes32 dispute, uint256 drawBlock);
    /// @notice The chain forgot the block's hash: `fixDraw` names another.
    error JuryDrawMissed(bytes32 dispute, uint256 drawBlock);
    error JuryNotJuror(bytes32 dispute, address account);
    error JuryWrongBallot(bytes32 dispute, address juror, Ballot ballot);
    error JuryWrongReveal(bytes32 commitment, bytes32 revealed);
    error JuryLastRound(bytes32 dispute);

    /// @notice Takes a seat for the caller's node, an active auditor. It counts in disputes that are opened later.
    function takeSeat() external;

    /// @notice Gives a seat up. Its operator and its signer may always, anybody when the node is no active auditor any more.
    function leaveSeat(address operator) external;

    /// @notice Names another block for the draw when the last one's hash was not used in time. Anyone may.
    function fixDraw(bytes32 id) external;

    /// @notice Draws the jury. Anyone may. Are there too few jurors, the dispute can be closed at once.
    function drawJury(bytes32 id) external;

    /// @notice Commits a juror to keccak256(abi.encode(chain id, this, dispute, round, juror, distance, sketchHash, salt)). The
    /// juror is in it, so that a copy is worth nothing; the salt hides it, so that nobody finds the distance by trying.
    /// The juror's operator and its signer may.
    function commitVote(bytes32 id, bytes32 commitment) external;

    /// @notice Shows what a juror committed to.
    /// @param sketchHash sha256 of the sketch that it got; shown so that others can tell what it computed.
    function revealVote(bytes32 id, uint64 distance, bytes32 sketchHash, bytes32 salt) external;

    /// @notice Takes a dispute in. The court alone may, here and in the next three functions.
    function open(bytes32 id, IExaminer.Charge calldata charge, address challenger) external;

    /// @notice Begins the first round.
    function summon(bytes32 id) external;

    /// @notice Begins another round, with a jury of twice the size and one.
    /// @return round Its number.
    function summonAgain(bytes32 id, address appellant) external returns (uint8 round);

    /// @notice Closes a dispute whose time is over and says what was found. The last verdict stands: a jury that found none, or
    /// was never drawn, changes nothing, so nobody gains by an appeal that comes to nothing.
    /// @return verdict What stands.
    /// @return upheld Bit i is set when round i found what had been found before.
    /// @return right Jurors of all rounds near the median of those who made the verdict; without one, all who revealed.
    /// @return wrong The others. Who sat in several rounds may stand here several times.
    function close(bytes32 id)
        external
        returns (Verdict verdict, uint256 upheld, address[] memory right, address[] memory wrong);

    /// @notice Contract that opens and closes disputes here.
    function court() external view returns (address);

    function nodes() external view returns (INodeRegistry);

    function parameters() external view returns (Parameters memory);

    /// @notice Seats that were ever there, the empty ones included.
    function numSeats() external view returns (uint256);

    /// @notice Who sits on a seat.
    function seat(uint256 index) external view returns (Seat memory);

    /// @notice Whether an operator has a seat, and which.
    function seatOf(address operator) external view returns (bool seated, uint32 index);

    /// @notice A dispute; all zero when there is none of this id.
    function caseOf(bytes32 id) external view returns (Case memory);

    /// @notice A round of a dispute; all zero when it was not reached.
    function round(bytes32 id, uint8 number) external view returns (Round memory);

    function vote(bytes32 id, uint8 number, address juror) external view returns (Vote memory);

    /// @notice Unix time, in seconds, from which a dispute that is left alone can be closed.
    function closesAt(bytes32 id) external view returns (uint256);
}
