// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Assignment, InferenceReceipt, InferenceRequest, SessionClose} from "../libraries/Messages.sol";
import {SumNode} from "../libraries/SumTree.sol";
import {INodeRegistry} from "./INodeRegistry.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";

/// @title Who owns how many credits, who may spend them, and what was spent
/// @notice Accounts hold balances. A payer locks part of a balance in a **session** with one gateway and one session key.
/// Requests are signed by that key; each carries a cap and acknowledges what earlier ones cost. A gateway settles many
/// receipts at once: debits of sessions on one side, payouts to nodes and its own fee on the other, equal to the unit.
///
/// EIP-712 domain: name "DeCLAI", version "1", the chain id, this contract. Amounts are base units of the credit. Nobody
/// owns this contract or can change it. Always: token balance = sum of balances + sum over sessions of (budget - settled).
interface IInferenceLedger {
    /// @notice A session. All zero when there is none: never opened, or closed for good.
    /// @param key Signs requests. A plain key, never a contract.
    /// @param settled Taken from the budget so far.
    /// @param gateway Operator that may settle.
    /// @param budget Locked in total. Amounts of sessions fit 96 bits: 79 billion credits of 18 decimals.
    /// @param payer Who locked it and gets back the rest.
    /// @param endsAt Unix time, in seconds, until which requests are served; the budget stays locked for the thaw after it.
    struct Session {
        address key;
        uint96 settled;
        address gateway;
        uint96 budget;
        address payer;
        uint48 endsAt;
    }

    /// @notice A signed request and what it cost.
    /// @param request As signed by the session's key.
    /// @param cost What it cost, at most its `maxCost`; zero when it failed or is not finished.
    /// @param r First half of the signature.
    /// @param vs Second half, compact (EIP-2098): s with the parity of v in its top bit.
    struct Claim {
        InferenceRequest request;
        uint128 cost;
        bytes32 r;
        bytes32 vs;
    }

    /// @notice What a node earned in a batch.
    /// @param node Operator that is paid.
    /// @param amount Sum of the costs of its receipts.
    /// @param receipts Number of its receipts.
    /// @param faults Number of its faults.
    /// @param top Hash of the top of its receipts' sum tree (see SumTree); zero when it has none.
    struct Payout {
        address node;
        uint128 amount;
        uint32 receipts;
        uint32 faults;
        bytes32 top;
    }

    /// @notice What a session paid in a batch.
    struct Debit {
        bytes32 session;
        uint128 amount;
    }

    /// @notice Path from a receipt to the root of a batch.
    /// @param gateway Operator that settled the batch.
    /// @param root Root of the batch.
    /// @param payout Payout of the node that made the receipt.
    /// @param payoutIndex Place of the payout in the batch.
    /// @param numPayouts Number of payouts in the batch.
    /// @param payoutProof Siblings from the payout to the root.
    /// @param receipt EIP-712 digest of the receipt.
    /// @param cost Its cost.
    /// @param receiptIndex Place of the receipt in the node's tree.
    /// @param receiptProof Siblings from the receipt to the top of the node's tree.
    struct Inclusion {
        address gateway;
        bytes32 root;
        Payout payout;
        uint32 payoutIndex;
        uint32 numPayouts;
        bytes32[] payoutProof;
        bytes32 receipt;
        uint128 cost;
        uint32 receiptIndex;
        SumNode[] receiptProof;
    }

    event Deposited(address indexed account, uint256 amount);
    event Withdrawn(address indexed account, uint256 amount);
    event Transferred(address indexed from, address indexed to, uint256 amount);
    event SessionOpened(
        bytes32 indexed session,
        address indexed payer,
        address indexed gateway,
        address key,
        uint96 budget,
        uint48 endsAt
    );
    /// @param budget Budget after the event.
    event SessionToppedUp(bytes32 indexed session, uint96 amount, uint96 budget);
    /// @notice The payer ended the session; it can be closed for good at `endsAt` plus the thaw.
    event SessionEnded(bytes32 indexed session, uint48 endsAt);
    /// @param returned What went back to the payer's balance.
    /// @param settled What the session paid in its life.
    event SessionClosed(bytes32 indexed session, address indexed payer, uint96 returned, uint96 settled);
    /// @notice A batch was settled: every debit left its session's budget, every payout and the fee reached a balance.
    /// @param root Merkle root over the payouts (see SumTree).
    /// @param cid Where the receipts lie, in full.
    event BatchSettled(
        bytes32 indexed root, address indexed gateway, uint128 fee, Debit[] debits, Payout[] payouts, string cid
    );

    error InferenceLedgerZeroAddress();
    error InferenceLedgerThawPeriodOutOfBounds(uint256 period, uint256 minimum, uint256 maximum);
    error InferenceLedgerMaxFeeOutOfBounds(uint256 bps, uint256 maximum);
    error InferenceLedgerZeroAmount();
    error InferenceLedgerInsufficientBalance(address account, uint256 balance, uint256 amount);
    error InferenceLedgerZeroKey();
    error InferenceLedgerZeroDuration();
    error InferenceLedgerGatewayNotActive(address gateway);
    error InferenceLedgerUnknownSession(bytes32 session);
    error InferenceLedgerNotPayer(bytes32 session, address account);
    error InferenceLedgerSessionOver(bytes32 session, uint256 endsAt);
    error InferenceLedgerStillThawing(bytes32 session, uint256 closesAt);
    /// @notice Consent is by the caller himself or by a valid signature over `SessionClose`.
    error InferenceLedgerNoConsent(bytes32 session, address party);
    error InferenceLedgerConsentExpired(bytes32 session, uint256 deadline);
    error InferenceLedgerConsentToOtherTotal(bytes32 session, uint256 settled, uint256 consented);
    error InferenceLedgerNotGatewayOfSession(bytes32 session, address gateway);
    error InferenceLedgerInvalidSignature(bytes32 session, uint64 nonce);
    error InferenceLedgerCostAboveCap(bytes32 session, uint64 nonce, uint128 cost, uint128 maxCost);
    /// @notice Nonces of a session's claims rise strictly.
    error InferenceLedgerNonceNotRising(bytes32 session, uint64 nonce);
    /// @notice The newest claim of the session already acknowledges this one.
    error InferenceLedgerAlreadyAcknowledged(bytes32 session, uint64 nonce, uint64 ackedBelow);
    /// @notice The claims add up to less than what was settled before.
    error InferenceLedgerBelowSettled(bytes32 session, uint256 total, uint256 settled);
    error InferenceLedgerBudgetExceeded(bytes32 session, uint256 total, uint256 budget);
    error InferenceLedgerNoPayouts();
    /// @notice Payouts are listed in strictly rising order of their nodes' addresses, without zero.
    error InferenceLedgerPayoutsNotRising(address node);
    error InferenceLedgerPayoutsExceedDebits(uint256 payouts, uint256 debits);
    error InferenceLedgerFeeTooHigh(uint256 fee, uint256 maximum);
    error InferenceLedgerBatchAnchored(address gateway, bytes32 root);

    /// @notice Moves `amount` credits from the caller's wallet, by allowance, to the caller's balance.
    function deposit(uint256 amount) external;

    /// @notice Like `deposit`, with an ERC-2612 permit. A permit that someone else submitted first does no harm.
    function depositWithPermit(uint256 amount, uint256 deadline, uint8 v, bytes32 r, bytes32 s) external;

    /// @notice Moves `amount` credits from the caller's balance to the caller's wallet.
    function withdraw(uint256 amount) external;

    /// @notice Moves `amount` from the caller's balance to another.
    function transfer(address to, uint256 amount) external;

    /// @notice Locks `budget` of the caller's balance for requests signed by `key` and served through `gateway`.
    /// @param duration Seconds until the session ends by itself.
    /// @return session Id, unique on this chain and contract.
    function openSession(address gateway, address key, uint96 budget, uint32 duration)
        external
        returns (bytes32 session);

    /// @notice Adds to the budget of a session that has not ended. The payer alone may.
    function topUp(bytes32 session, uint96 amount) external;

    /// @notice Ends a session now. What is left of the budget stays locked for the thaw, so that work done can be settled.
    function closeSession(bytes32 session) external;

    /// @notice Closes a session whose end and thaw are over and returns the rest to the payer's balance. Anyone may call.
    function finalizeClose(bytes32 session) external;

    /// @notice Closes a session at once, with the consent of the payer and of the gateway. Anyone may bring it.
    /// @param payerSignature By the payer, a key or a contract (ERC-1271); ignored when the payer calls.
    /// @param gatewaySignature By the gateway's operator (a key or a contract) or its signer; ignored when one of them calls.
    function closeTogether(
        SessionClose calldata consent,
        bytes calldata payerSignature,
        bytes calldata gatewaySignature
    ) external;

    /// @notice Settles a batch: debits sessions, pays nodes, anchors the root over the payouts.
    /// The caller is operator or signer of an active gateway. Claims of one session stand together, nonces strictly rising; the
    /// last one is the newest. With it the session has paid, in total,
    ///   newest.spent + sum of the costs of its claims, all of which have nonce >= newest.ackedBelow,
    /// and is debited what exceeds `settled`. So overlaps and replays pay nothing twice. What the debits leave after the
    /// payouts is the gateway's fee, at most `maxFeeBps` of the payouts.
    /// @param payouts In strictly rising order of the nodes' addresses.
    /// @param cid Where the receipts lie, in full.
    /// @return root Merkle root over the payouts. One gateway anchors a root once.
    function settle(Claim[] calldata claims, Payout[] calldata payouts, string calldata cid)
        external
        returns (bytes32 root);

    /// @notice Token that is kept.
    function token() external view returns (IERC20);

    /// @notice Registry that knows the gateways.
    function nodes() external view returns (INodeRegistry);

    /// @notice Seconds between the end of a session and `finalizeClose`.
    function thawPeriod() external view returns (uint48);

    /// @notice Highest fee of a gateway, in basis points of the payouts.
    function maxFeeBps() external view returns (uint16);

    /// @notice Credits of an account that are not locked in sessions.
    function balanceOf(address account) external view returns (uint256);

    /// @notice A session; all zero when there is none.
    function session(bytes32 id) external view returns (Session memory);

    /// @notice When a gateway settled the batch with this root (Unix time, in seconds), or 0.
    function settledAt(address gateway, bytes32 root) external view returns (uint48);

    /// @notice Whether a receipt was paid by a settled batch.
    function isIncluded(Inclusion calldata inclusion) external view returns (bool);

    /// @notice EIP-712 digest of a request: what its session's key signs.
    function hashRequest(InferenceRequest calldata request) external view returns (bytes32);

    /// @notice EIP-712 digest of an assignment: what the gateway's signer signs.
    function hashAssignment(Assignment calldata assignment) external view returns (bytes32);

    /// @notice EIP-712 digest of a receipt: what the node's signer signs.
    function hashReceipt(InferenceReceipt calldata receipt) external view returns (bytes32);

    /// @notice EIP-712 digest of a consent to close a session.
    function hashSessionClose(SessionClose calldata consent) external view returns (bytes32);
}
