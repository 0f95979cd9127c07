// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {InferenceReceipt} from "../libraries/Messages.sol";
import {IInferenceLedger} from "./IInferenceLedger.sol";
import {INodeRegistry} from "./INodeRegistry.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";

/// @title What is proved against nodes and gateways, and what it costs them
/// @notice Two things are decided here by signatures and hashes alone. **Equivocation**: a node that signed two different receipts
/// for one assignment loses a share of its stake. **Payout challenges**: a gateway that signed the acceptance of a receipt
/// shows that it paid it, or pays it from its stake.
///
/// Who is owed something has a balance here and withdraws it. Always: token balance = sum of balances + bonds of open
/// challenges and disputes. Nobody owns this contract or can change it. Every challenge ends by itself: no silence keeps it open.
interface IDisputeCourt {
    /// @notice Periods in seconds, amounts in base units, shares in basis points.
    /// @param challengePeriod Between the end of the work and the last challenge of its payout.
    /// @param answerPeriod Between a challenge and its decision.
    /// @param evidencePeriod How long after its retirement a signer's words still count against its operator.
    /// @param jailPeriod How long who equivocated stays out of work.
    /// @param challengeBond Put up with a challenge; lost to who answers it by an earlier batch.
    /// @param equivocationBps Share of the stake that equivocation costs.
    /// @param rewardBps Share of what equivocation costs that goes to who proved it.
    /// @param fineBps What an unpaid receipt costs its gateway besides the receipt's cost, as a share of that.
    struct Parameters {
        uint48 challengePeriod;
        uint48 answerPeriod;
        uint48 evidencePeriod;
        uint48 jailPeriod;
        uint96 challengeBond;
        uint16 equivocationBps;
        uint16 rewardBps;
        uint16 fineBps;
    }

    /// @notice A challenge of a payout. It stays when it has ended, so that no receipt is paid twice.
    /// @param challenger Who put up the bond.
    /// @param decidedAt Unix time, in seconds, from which it can be decided; zero when it has ended.
    /// @param amount Cost of the receipt, less what a direct claim was paid of it.
    /// @param node Operator that made it.
    struct Challenge {
        address challenger;
        uint48 decidedAt;
        address node;
        uint96 amount;
    }

    event Withdrawn(address indexed account, uint256 amount);
    /// @param taken What was taken from the operator's stake.
    /// @param reward What of it went to the reporter.
    event EquivocationProved(
        address indexed operator, bytes32 indexed assignment, address indexed reporter, uint128 taken, uint128 reward
    );
    event PayoutChallenged(
        bytes32 indexed receipt,
        address indexed gateway,
        address indexed node,
        address challenger,
        uint96 amount,
        uint96 bond,
        uint48 decidedAt
    );
    /// @notice The receipt was paid; the bond went to `to`.
    event ChallengeAnswered(bytes32 indexed receipt, address indexed gateway, address indexed to);
    /// @notice The receipt was not paid; the gateway's stake did.
    /// @param taken What was taken from the gateway's stake.
    /// @param paid What of it went to the node: less than it is owed when there was not enough for its pay and the fine.
    event ChallengeUpheld(
        bytes32 indexed receipt, address indexed gateway, address indexed node, uint128 taken, uint128 paid
    );

    error DisputeCourtZeroAddress();
    error DisputeCourtParameterOutOfBounds(string parameter, uint256 value, uint256 minimum, uint256 maximum);
    error DisputeCourtNothingToWithdraw(address account);
    error DisputeCourtSameReceipt(bytes32 receipt);
    error DisputeCourtOtherAssignment(bytes32 first, bytes32 second);
    /// @notice The signature is not by the operator's signer, or by one that retired too long ago.
    error DisputeCourtNotSignedBy(address operator, address signer);
    error DisputeCourtAlreadyProved(address operator, bytes32 assignment);
    error DisputeCourtAlreadyChallenged(bytes32 receipt);
    error DisputeCourtNotNode(address node, address account);
    /// @notice The node claims the receipt from the session, or was paid all of it from there.
    error DisputeCourtClaimedDirectly(bytes32 receipt);
    error DisputeCourtNothingOwed(bytes32 receipt);
    error DisputeCourtTooLate(bytes32 receipt, uint256 until);
    error DisputeCourtNoChallenge(bytes32 receipt);
    error DisputeCourtNotIncluded(bytes32 receipt);
    error DisputeCourtStillOpen(bytes32 receipt, uint256 decidedAt);

    /// @notice Moves all that the caller is owed to its wallet.
    function withdraw() external;

    /// @notice Proves that a node signed two different receipts for one assignment. Counts once per node and assignment.
    function proveEquivocation(
        InferenceReceipt calldata first,
        bytes calldata firstSignature,
        InferenceReceipt calldata second,
        bytes calldata secondSignature
    ) external;

    /// @notice Asks a gateway to show that it paid a receipt that it accepted. The caller is the receipt's node or its
    /// signer: a challenge takes the place of a direct claim. The bond is pulled from the caller by allowance; what the gateway may have
    /// to pay goes to the node.
    /// @param acceptance Signature over the acceptance of the receipt, by the gateway's operator or its signer.
    function challengePayout(address gateway, InferenceReceipt calldata receipt, bytes calldata acceptance) external;

    /// @notice Ends a challenge by showing the receipt in a batch that the gateway settled. The bond goes to the caller, or back to
    /// the challenger when the batch came no earlier than the challenge.
    function answerChallenge(bytes32 receipt, IInferenceLedger.Inclusion calldata inclusion) external;

    /// @notice Decides a challenge that nobody answered in time: the gateway's stake pays. Anyone may call.
    function decideChallenge(address gateway, bytes32 receipt) external;

    /// @notice Token of bonds, rewards and stakes.
    function token() external view returns (IERC20);

    function nodes() external view returns (INodeRegistry);

    function ledger() external view returns (IInferenceLedger);

    /// @notice Where fines go.
    function treasury() external view returns (address);

    function parameters() external view returns (Parameters memory);

    /// @notice What an account is owed.
    function balanceOf(address account) external view returns (uint256);

    /// @notice Challenge of a receipt's payout (EIP-712 digest) by a gateway; all zero when there never was one.
    function challenge(address gateway, bytes32 receipt) external view returns (Challenge memory);

    /// @notice Whether a receipt's payout by a gateway was ever challenged: then no session of that gateway pays it to a direct
    /// claim.
    function isChallenged(address gateway, bytes32 receipt) external view returns (bool);

    /// @notice Whether an operator was proved to have equivocated over an assignment.
    function equivocated(address operator, bytes32 assignment) external view returns (bool);
}
