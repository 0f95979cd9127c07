// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Assignment, InferenceReceipt, InferenceRequest} from "../libraries/Messages.sol";
import {IDisputeCourt} from "./IDisputeCourt.sol";

/// @title The court with juries: who computed wrong, and what that costs
/// @notice Two things more are decided here. **Bad records**: a node whose own signed records contradict the assignment that
/// it accepted, or each other, loses a share of its stake; hashes alone decide. **Compute disputes**: whether a node computed one
/// chunk of 32 positions as its model says is measured by jurors, auditors who hold the layers.
///
/// A dispute is narrowed by signatures alone. The node signed a chain of records; each has the root over the bytes that the
/// stage received and the root over those that it sent. The input is what the node itself committed to, so nobody disputes
/// it; whether the output follows from it, jurors rerun. That two neighbours committed to different bytes on the link
/// between them convicts nobody, since either may lie: it is what a dispute with one of them is opened on, and that one must then
/// publish the bytes behind its own roots.
///
/// Course of a dispute, with a period for each step; whatever nobody does in time, `finalize` goes on without it:
///   opening  the accused publishes the bytes of the chunk and of those before it; silence is as good as guilt
///   draw     the hash of a block that was to come when the opening was published draws the jurors from the seats
///   commit   jurors rerun the chunk and commit to the distance that they measured and to the sketch that they got
///   reveal   they show both
///   appeal   anybody puts up twice the bond for a new jury of twice the size and one; the last verdict stands
/// The distance is in millionths of the slashing threshold that the model's manifest gives for the two numeric profiles. Bytes
/// that do not hash to the node's roots are no opening: their distance is `UNAVAILABLE`, the largest there is.
/// Two thirds of the drawn jurors, the silent ones included, make a verdict. No verdict is a draw: bonds go back.
/// Always: token balance = sum of balances + bonds of open challenges + bonds of open disputes.
interface IJuryCourt is IDisputeCourt {
    /// @notice What of a receipt's records is wrong: in the order in which it is looked for.
    /// @param None Nothing is.
    /// @param NumRecords There are not as many as the receipt's tokens fill.
    /// @param Version Of a format that is not version 1.
    /// @param Stage Of another stage than the assignment's.
    /// @param ChunkIndex Not at its place.
    /// @param FirstPosition Not 32 times its index.
    /// @param NumTokens Not 32, or in the last record not what is left.
    /// @param Job Of another request or attempt than the assignment's.
    /// @param NumericProfile Not the one of the first record: no stage changes its number format within a job.
    /// @param Shard Not the weights of the first record.
    /// @param Inputs The records' input roots do not make the head that the receipt names.
    enum Flaw {
        None,
        NumRecords,
        Version,
        Stage,
        ChunkIndex,
        FirstPosition,
        NumTokens,
        Job,
        NumericProfile,
        Shard,
        Inputs
    }

    /// @notice Where a dispute stands.
    enum Phase {
        None,
        Opening,
        Drawing,
        Voting,
        Ended
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

    /// @notice Periods in seconds, amounts in base units, shares in basis points, distances in millionths of the threshold.
    /// @param disputePeriod Between the end of the work and the last dispute over it: as long as nodes must keep its bytes.
    /// @param openingPeriod The accused's time to publish the bytes.
    /// @param drawPeriod Time to draw a jury.
    /// @param commitPeriod The jurors' time to rerun the chunk.
    /// @param revealPeriod The jurors' time to show what they measured.
    /// @param appealPeriod Time to appeal after that.
    /// @param drawDelay Blocks between an opening, or an appeal, and the block whose hash draws the jury.
    /// @param jurySize Jurors of the first round; each further round has twice as many and one.
    /// @param minJury Fewer do not judge. An appeal is heard by more jurors than the round before it.
    /// @param maxRounds The first round and its appeals.
    /// @param capBps What a conviction costs: this share of the stake that the accused had when the dispute was opened. Nothing
    /// costs more.
    /// @param warningShare Distance from which work is not good enough to be paid.
    /// @param tolerance How far a juror may be from the median of those who were right; where that is above the threshold, as a
    /// share of it.
    /// @param disputeBond The challenger's bond. It alone pays every juror of every round.
    /// @param jurorFee What a juror who was right earns.
    /// @param jurorPenalty What a juror who was wrong or silent loses of its stake.
    struct JuryParameters {
        uint48 disputePeriod;
        uint48 openingPeriod;
        uint48 drawPeriod;
        uint48 commitPeriod;
        uint48 revealPeriod;
        uint48 appealPeriod;
        uint16 drawDelay;
        uint8 jurySize;
        uint8 minJury;
        uint8 maxRounds;
        uint16 capBps;
        uint32 warningShare;
        uint32 tolerance;
        uint96 disputeBond;
        uint96 jurorFee;
        uint96 jurorPenalty;
    }

    /// @notice An assignment, the receipt for it, and all records behind the receipt.
    /// @param gateway Operator that signed the assignment, itself or by its signer.
    /// @param assignmentSignature 65 bytes.
    /// @param receiptSignature By the node's operator or its signer, 65 bytes.
    /// @param records All records of the receipt, 254 bytes each.
    /// @param tail What the last stage of a pipeline appends to its record chain; zero for every other stage.
    struct Evidence {
        address gateway;
        Assignment assignment;
        bytes assignmentSignature;
        InferenceReceipt receipt;
        bytes receiptSignature;
        bytes records;
        bytes32 tail;
    }

    /// @notice An auditor's place among those from whom juries are drawn.
    /// @param operator Who sits there; zero: nobody.
    /// @param since Unix time, in seconds.
    struct Seat {
        address operator;
        uint48 since;
    }

    /// @notice A dispute.
    /// @param accused Node that computed the chunk.
    /// @param phaseSince Unix time, in seconds, at which the phase began.
    /// @param phase Where it stands.
    /// @param verdict Once it has ended, what was found.
    /// @param round Round that is under way, from 0.
    /// @param numericProfile Number format of the work, as the accused signed it.
    /// @param challenger Who opened the dispute.
    /// @param cost Of the receipt.
    /// @param gateway Who assigned the work.
    /// @param cap Most that the dispute can cost the accused.
    /// @param payer Whose request it was.
    /// @param chunk Which 32 positions are disputed: those from 32 * chunk.
    /// @param numSeats Seats that there were when the dispute was opened.
    /// @param openedAt Unix time, in seconds.
    /// @param firstLayer First layer of the stage.
    /// @param endLayer Layer after its last one.
    /// @param model As in the request.
    /// @param assignment EIP-712 digest.
    /// @param receipt EIP-712 digest.
    struct Dispute {
        address accused;
        uint48 phaseSince;
        Phase phase;
        Verdict verdict;
        uint8 round;
        uint8 numericProfile;
        address challenger;
        uint96 cost;
        address gateway;
        uint96 cap;
        address payer;
        uint32 chunk;
        uint32 numSeats;
        uint48 openedAt;
        uint16 firstLayer;
        uint16 endLayer;
        bytes32 model;
        bytes32 assignment;
        bytes32 receipt;
    }

    /// @notice One jury of a dispute.
    /// @param appellant Who put up the bond: the challenger, then whoever appealed.
    /// @param bond In base units.
    /// @param drawBlock Block whose hash draws the jury.
    /// @param numGuilty Revealed distances above the threshold.
    /// @param numWarning Revealed distances from `warningShare` to the threshold.
    /// @param numClear Revealed distances below that.
    /// @param jurors Operators, in the order in which they were drawn; none before the draw.
    struct Round {
        address appellant;
        uint96 bond;
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
    /// @param index Record that is bad, where one is.
    /// @param taken What was taken from the operator's stake.
    /// @param reward What of it went to the reporter.
    event BadRecordProved(
        address indexed operator,
        bytes32 indexed assignment,
        address indexed reporter,
        Flaw flaw,
        uint256 index,
        uint128 taken,
        uint128 reward
    );
    event DisputeOpened(
        bytes32 indexed dispute,
        address indexed accused,
        address indexed challenger,
        bytes32 assignment,
        bytes32 receipt,
        uint32 chunk,
        uint96 cap,
        uint96 bond
    );
    /// @param cid Where the wire bytes of both sides lie, from the first position to the end of the disputed chunk.
    event OpeningPublished(bytes32 indexed dispute, string cid);
    /// @notice The hash of this block, once it is there, draws the jury.
    event DrawFixed(bytes32 indexed dispute, uint8 round, uint64 drawBlock);
    event JuryDrawn(bytes32 indexed dispute, uint8 round, address[] jurors);
    event VoteCommitted(bytes32 indexed dispute, uint8 round, address indexed juror, bytes32 commitment);
    event VoteRevealed(
        bytes32 indexed dispute, uint8 round, address indexed juror, uint64 distance, bytes32 sketchHash
    );
    event Appealed(bytes32 indexed dispute, uint8 round, address indexed appellant, uint96 bond);
    /// @param amount What was taken from the juror's stake.
    event JurorPenalized(bytes32 indexed dispute, uint8 round, address indexed juror, uint128 amount);
    /// @notice A balance grew by a refund, a bond that came back, a reward, a fee, or what was left over.
    event Awarded(bytes32 indexed dispute, address indexed account, uint256 amount);
    /// @param taken What was taken from the accused's stake.
    event DisputeEnded(bytes32 indexed dispute, address indexed accused, Verdict verdict, uint128 taken);

    error JuryCourtAlreadySeated(address operator);
    error JuryCourtNotSeated(address operator);
    /// @notice The caller does not speak for an operator that still is an active auditor.
    error JuryCourtNotYourSeat(address operator, address account);
    error JuryCourtUnrelated(bytes32 expected, bytes32 given);
    /// @notice The records do not make the receipt's output head. That speaks against who brought them: anyone can invent some.
    error JuryCourtNotTheRecords(bytes32 expected, bytes32 given);
    /// @notice The records are of the length of no number of records.
    error JuryCourtInvalidRecords(uint256 length);
    error JuryCourtNoSuchRecord(uint256 index, uint256 numRecords);
    /// @notice Record `index` agrees with the assignment, the receipt and the first record.
    error JuryCourtNoFlaw(uint256 index);
    error JuryCourtAlreadyDisputed(bytes32 dispute);
    error JuryCourtAlreadyConvicted(bytes32 assignment);
    error JuryCourtTooLate(bytes32 dispute, uint256 until);
    error JuryCourtWrongPhase(bytes32 dispute, Phase phase);
    error JuryCourtNotAccused(bytes32 dispute, address account);
    /// @notice The step is possible from `from` on and before `until`, Unix times in seconds.
    error JuryCourtNotNow(bytes32 dispute, uint256 from, uint256 until);
    error JuryCourtDrawNotReady(bytes32 dispute, uint256 drawBlock);
    /// @notice The chain forgot the block's hash: `fixDraw` names another.
    error JuryCourtDrawMissed(bytes32 dispute, uint256 drawBlock);
    error JuryCourtNotJuror(bytes32 dispute, address account);
    error JuryCourtWrongBallot(bytes32 dispute, address juror, Ballot ballot);
    error JuryCourtWrongReveal(bytes32 commitment, bytes32 revealed);
    error JuryCourtLastRound(bytes32 dispute);

    /// @notice Takes a seat for the caller's node, an active auditor. It counts in disputes that are opened later.
    function takeSeat() external;

    /// @notice Gives a seat up. Its operator and its signer may always, anybody when the node is no active auditor any more.
    function leaveSeat(address operator) external;

    /// @notice Proves that the records behind a receipt contradict the assignment, the receipt or each other. Once per node and
    /// assignment; it costs and rewards what equivocation does. All records must be shown and fold into the receipt's output
    /// head: a chain that does not is no evidence, since anybody can invent records. The network's limit on a transaction's
    /// size, usually 128 KiB, limits this and disputes to receipts of some 16,000 positions.
    /// @param index Record to look at; what is wrong with all of them together is found with any.
    function proveBadRecord(Evidence calldata evidence, uint256 index) external;

    /// @notice Opens a dispute over a chunk. The bond is pulled from the caller by allowance. A chunk is disputed once, unless
    /// there was no verdict; an assignment is convicted once.
    /// @param request Request of the assignment: it names the model and the payer, to whom the cost goes back.
    /// @return id Of the dispute.
    function openDispute(Evidence calldata evidence, InferenceRequest calldata request, uint32 chunk)
        external
        returns (bytes32 id);

    /// @notice Says where the accused's bytes lie. The accused's operator or its signer may.
    function publishOpening(bytes32 id, string calldata cid) external;

    /// @notice Names another block for the draw when the last one's hash was not used in time. Anyone may.
    function fixDraw(bytes32 id) external;

    /// @notice Draws the jury. Anyone may. Are there too few jurors, the dispute ends.
    function drawJury(bytes32 id) external;

    /// @notice Commits a juror to keccak256(abi.encode(chain id, court, dispute, round, juror, distance, sketchHash, salt)). The
    /// juror is in it, so that a copy is worth nothing; the salt hides it, so that nobody finds the distance by trying.
    function commitVote(bytes32 id, bytes32 commitment) external;

    /// @notice Shows what a juror committed to.
    /// @param sketchHash sha256 of the sketch that it got; shown so that others can tell what it computed.
    function revealVote(bytes32 id, uint64 distance, bytes32 sketchHash, bytes32 salt) external;

    /// @notice Asks for a larger jury, whatever the present one found. The bond, twice the last one, is pulled from the caller by
    /// allowance. It is lost to the jurors if the verdict is the same again.
    function appeal(bytes32 id) external;

    /// @notice Ends a dispute whose time is over, and executes the verdict. Anyone may.
    function finalize(bytes32 id) external;

    function juryParameters() external view returns (JuryParameters memory);

    /// @notice Seats that were ever there, the empty ones included.
    function numSeats() external view returns (uint256);

    /// @notice Who sits on a seat.
    function seat(uint256 index) external view returns (Seat memory);

    /// @notice Whether an operator has a seat, and which.
    function seatOf(address operator) external view returns (bool seated, uint32 index);

    /// @notice Whether an operator was proved to have signed bad records for an assignment.
    function hasBadRecords(address operator, bytes32 assignment) external view returns (bool);

    /// @notice Whether the cost of an assignment went back to its payer.
    function isRefunded(bytes32 assignment) external view returns (bool);

    /// @notice Whether somebody was convicted for an assignment.
    function isConvicted(bytes32 assignment) external view returns (bool);

    /// @notice Newest dispute over a chunk; zero when there never was one.
    function disputeOver(bytes32 assignment, uint32 chunk) external view returns (bytes32 id);

    function dispute(bytes32 id) external view returns (Dispute memory);

    /// @notice A round of a dispute; all zero when it was not reached.
    function round(bytes32 id, uint8 number) external view returns (Round memory);

    function vote(bytes32 id, uint8 number, address juror) external view returns (Vote memory);
}
