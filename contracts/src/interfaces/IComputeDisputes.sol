// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {InferenceRequest} from "../libraries/Messages.sol";
import {IDisputeCourt} from "./IDisputeCourt.sol";
import {IExaminer} from "./IExaminer.sol";
import {IJury} from "./IJury.sol";

/// @title The court with juries: who computed wrong, and what that costs
/// @notice Two things more are decided here. **Bad records**: a node whose own signed records contradict the assignment that
/// it accepted, or each other, loses a share of its stake; hashes alone decide. **Compute disputes**: whether a node computed one
/// chunk of 32 positions as its model says is measured by jurors, auditors who hold the layers (see IJury).
///
/// A dispute is narrowed by signatures alone. The node signed a chain of records; each has the root over the bytes that the
/// stage received and the root over those that it sent. The input is what the node itself committed to, so nobody disputes
/// it; whether the output follows from it, jurors rerun. That two neighbours committed to different bytes on the link
/// between them convicts nobody, since either may lie: it is what a dispute with one of them is opened on, and that one must then
/// publish the bytes behind its own roots.
///
/// Course of a dispute, with a period for each step; whatever nobody does in time, `finalize` goes on without it:
///   opening  the accused publishes the bytes of the chunk and of those before it; silence is as good as guilt
///   draw     the hash of a block that was to come when the opening was published draws the jurors
///   vote     jurors rerun the chunk, commit to the distance that they measured, and reveal it
///   appeal   anybody puts up twice the bond for a new jury of twice the size and one; the last verdict stands
/// No verdict is a draw: bonds go back. Always: token balance = sum of balances + bonds of open challenges + bonds of open
/// disputes.
interface IComputeDisputes is IDisputeCourt {
    /// @notice Where a dispute stands: waiting for the accused's bytes, before a jury, over.
    enum Phase {
        None,
        Opening,
        Trial,
        Ended
    }

    /// @notice Periods in seconds, amounts in base units, shares in basis points.
    /// @param disputePeriod Between the end of the work and the last dispute over it. Nodes must keep its bytes until the opening
    /// period after that is over.
    /// @param openingPeriod The accused's time to publish the bytes.
    /// @param capBps What a conviction costs: this share of the stake that the accused had when the dispute was opened. No
    /// dispute costs more.
    /// @param disputeBond The challenger's bond. It alone pays every juror of every round.
    /// @param jurorFee What a juror who was right earns.
    /// @param jurorPenalty What a juror who was wrong or silent loses of its stake.
    struct DisputeParameters {
        uint48 disputePeriod;
        uint48 openingPeriod;
        uint16 capBps;
        uint96 disputeBond;
        uint96 jurorFee;
        uint96 jurorPenalty;
    }

    /// @notice A dispute.
    /// @param accused Node that computed the chunk.
    /// @param openedAt Unix time, in seconds.
    /// @param phase Where it stands.
    /// @param verdict Once it has ended, what was found.
    /// @param challenger Who opened it.
    /// @param cap Most that it can cost the accused.
    /// @param payer Whose request it was.
    /// @param cost Of the receipt.
    /// @param assignment EIP-712 digest.
    struct Dispute {
        address accused;
        uint48 openedAt;
        Phase phase;
        IJury.Verdict verdict;
        address challenger;
        uint96 cap;
        address payer;
        uint96 cost;
        bytes32 assignment;
    }

    /// @notice What somebody put up for a round.
    struct Bond {
        address owner;
        uint96 amount;
    }

    /// @param index Record that is bad, where one is.
    /// @param taken What was taken from the operator's stake.
    /// @param reward What of it went to the reporter.
    event BadRecordProved(
        address indexed operator,
        bytes32 indexed assignment,
        address indexed reporter,
        IExaminer.Flaw flaw,
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
    event Appealed(bytes32 indexed dispute, uint8 round, address indexed appellant, uint96 bond);
    /// @param amount What was taken from the juror's stake.
    event JurorPenalized(bytes32 indexed dispute, address indexed juror, uint128 amount);
    /// @notice A balance grew by a refund, a bond that came back, a reward, a fee, or what was left over.
    event Awarded(bytes32 indexed dispute, address indexed account, uint256 amount);
    /// @param taken What was taken from the accused's stake.
    event DisputeEnded(bytes32 indexed dispute, address indexed accused, IJury.Verdict verdict, uint128 taken);

    /// @notice Record `index` agrees with the assignment and the receipt.
    error DisputeCourtNoFlaw(uint256 index);
    error DisputeCourtAlreadyDisputed(bytes32 dispute);
    error DisputeCourtAlreadyConvicted(bytes32 assignment);
    /// @notice Whoever has too little to pay for its trial is not tried: jurors would work for nothing.
    error DisputeCourtTooLittleStake(address operator, uint256 cap, uint256 minimum);
    error DisputeCourtWrongPhase(bytes32 dispute, Phase phase);
    error DisputeCourtNotAccused(bytes32 dispute, address account);
    /// @notice An earlier dispute against the same node is executed first.
    error DisputeCourtNotNext(bytes32 dispute, bytes32 earlier);
    /// @notice The step is possible from `from` on and before `until`, Unix times in seconds.
    error DisputeCourtNotNow(bytes32 dispute, uint256 from, uint256 until);

    /// @notice Proves that the records behind a receipt contradict the assignment, the receipt or each other. Once per node and
    /// assignment; it costs and rewards what equivocation does. All records must be shown and fold into the receipt's output
    /// head: a chain that does not is no evidence, since anybody can invent records. The network's limit on a transaction's
    /// size, usually 128 KiB, limits this and disputes to receipts of some 16,000 positions.
    /// @param index Record to look at; what is wrong with all of them together is found with any.
    function proveBadRecord(IExaminer.Evidence calldata evidence, uint256 index) external;

    /// @notice Opens a dispute over a chunk. The bond is pulled from the caller by allowance. A chunk is disputed once, unless
    /// there was no verdict; an assignment is convicted once.
    /// @param request Request of the assignment: it names the model and the payer, to whom the cost goes back.
    /// @return id Of the dispute.
    function openDispute(IExaminer.Evidence calldata evidence, InferenceRequest calldata request, uint32 chunk)
        external
        returns (bytes32 id);

    /// @notice Says where the accused's bytes lie. The accused's operator or its signer may.
    function publishOpening(bytes32 id, string calldata cid) external;

    /// @notice Asks for a larger jury, whatever the present one found. The bond, twice the last one, is pulled from the caller by
    /// allowance. It is lost to the jurors if the verdict is the same again.
    function appeal(bytes32 id) external;

    /// @notice Ends a dispute whose time is over, and executes the verdict. Anyone may. Disputes against one node end in the order in
    /// which they were opened, so that it can't have friends win its stake while it waits for a verdict; one that nobody ends is
    /// passed when it has lasted as long as any can.
    function finalize(bytes32 id) external;

    /// @notice What reads evidence for this court.
    function examiner() external view returns (IExaminer);

    /// @notice Where jurors sit and vote.
    function jury() external view returns (IJury);

    function disputeParameters() external view returns (DisputeParameters memory);

    /// @notice Whether an operator was proved to have signed bad records for an assignment.
    function hasBadRecords(address operator, bytes32 assignment) external view returns (bool);

    /// @notice Whether the cost of an assignment went back to its payer.
    function isRefunded(bytes32 assignment) external view returns (bool);

    /// @notice Whether somebody was convicted for an assignment.
    function isConvicted(bytes32 assignment) external view returns (bool);

    /// @notice Newest dispute over a chunk; zero when there never was one.
    function disputeOver(bytes32 assignment, uint32 chunk) external view returns (bytes32 id);

    function dispute(bytes32 id) external view returns (Dispute memory);

    /// @notice Dispute against the same node that was opened before this one; zero when there was none.
    function disputeBefore(bytes32 id) external view returns (bytes32);

    /// @notice What was put up for a round of a dispute.
    function bond(bytes32 id, uint8 round) external view returns (Bond memory);
}
