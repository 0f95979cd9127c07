// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Assignment, InferenceReceipt, InferenceRequest, SessionClose} from "../libraries/Messages.sol";
import {SumNode} from "../libraries/SumTree.sol";
import {IEarnings} from "./IEarnings.sol";
import {INodeRegistry} from "./INodeRegistry.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";

/// @title Who owns how many credits, who may spend them, and what was spent
/// @notice Accounts hold balances. A payer locks part of a balance in a **session** with one gateway and one session key.
/// Requests are signed by that key; each carries a cap and acknowledges what earlier ones cost. A gateway settles many
/// receipts at once: debits of sessions on one side, payouts to nodes and its own fee on the other, equal to the unit.
/// A node that was left out claims from the session itself.
///
/// EIP-712 domain: name "DeCLAI", version "1", the chain id, this contract. Amounts are base units of the credit and fit 96
/// bits, as the credit's supply does. Nobody owns this contract or can change it. Always: token balance = sum of balances +
/// fees not yet collected + sum over sessions of (budget - settled) + bonds of open claims.
interface IInferenceLedger is IEarnings {
    /// @notice Periods in seconds, amounts in base units.
    /// @param thawPeriod Between the end of a session and `finalizeClose`.
    /// @param epochLength What earnings are counted over; stake stays locked for one to two of them.
    /// @param batchRetention How long a batch's slot can't be used again.
    /// @param claimDelay Between an assignment's deadline and the first direct claim: the gateway settles meanwhile.
    /// @param claimPeriod Between an assignment's deadline and the last direct claim.
    /// @param claimWindow Between a direct claim and its payment: whoever knows better speaks meanwhile.
    /// @param claimBond Put up with a direct claim; lost to who shows that it should not have been opened.
    /// @param maxFeeBps Highest fee of a gateway, in basis points of the payouts.
    struct Parameters {
        uint48 thawPeriod;
        uint48 epochLength;
        uint48 batchRetention;
        uint48 claimDelay;
        uint48 claimPeriod;
        uint48 claimWindow;
        uint96 claimBond;
        uint16 maxFeeBps;
    }

    /// @notice Who opened a session with whom. Whoever acts on a session brings its terms; the event that opened it has them.
    /// @param payer Who locked the budget and gets back the rest.
    /// @param gateway Operator that may settle.
    /// @param key Signs requests. A plain key, never a contract.
    /// @param number Counts the sessions of this contract. The id is a word, from the highest bit: 160 payer | 96 number.
    struct SessionTerms {
        address payer;
        address gateway;
        address key;
        uint64 number;
    }

    /// @notice A session. All zero when there is none: never opened, or closed for good.
    /// @param budget Locked in total.
    /// @param settled Taken from the budget so far.
    /// @param endsAt Unix time, in seconds, until which requests are served; the budget stays locked for the thaw after it.
    /// @param numClaims Direct claims under way; none may be when the session is closed for good.
    struct Session {
        uint96 budget;
        uint96 settled;
        uint48 endsAt;
        uint16 numClaims;
    }

    /// @notice A signed request, as far as the ledger looks at it, and what it cost. Numbers share words: calldata is a fifth of
    /// what a settlement costs.
    /// @param session As in the request.
    /// @param work EIP-712 struct hash of the request's work.
    /// @param counts From the highest bit: 64 nonce | 64 ackedBelow | 128 cost, at most maxCost; zero when the request failed or
    /// is not finished.
    /// @param amounts From the highest bit: 128 maxCost | 128 spent.
    /// @param r First half of the signature by the session's key.
    /// @param vs Second half, compact (EIP-2098): s with the parity of v in its top bit.
    struct Claim {
        bytes32 session;
        bytes32 work;
        uint256 counts;
        uint256 amounts;
        bytes32 r;
        bytes32 vs;
    }

    /// @notice Work that a node failed.
    /// @param node Operator.
    /// @param amount What it would have earned; counts up to what the same batch pays the node.
    struct Fault {
        address node;
        uint96 amount;
    }

    /// @notice What a gateway settles at once.
    /// @param gateway Operator that settles.
    /// @param claims What sessions owe.
    /// @param payouts What nodes earned, a word each, from the highest bit: 160 operator | 96 sum of the costs of its receipts.
    /// @param faults What nodes failed; most batches have none.
    /// @param header Commits to every node's receipts, and is the digest under which IPFS finds them (see SumTree). One that does
    /// not carry the payouts' amounts proves nothing: its gateway then owes all that it accepted again.
    /// @param slot Where to anchor the batch: any number whose last batch is `batchRetention` old. A slot that was used before
    /// saves 17,100 gas.
    struct Batch {
        address gateway;
        Claim[] claims;
        uint256[] payouts;
        Fault[] faults;
        bytes32 header;
        uint256 slot;
    }

    /// @notice What a gateway gives back to a payer because a node, or the gateway itself, missed its service level.
    /// @param payer Whose balance receives it.
    /// @param request EIP-712 digest of the request.
    /// @param node Operator that missed it.
    /// @param amount Base units.
    struct Compensation {
        address payer;
        bytes32 request;
        address node;
        uint96 amount;
    }

    /// @notice Path from a receipt to a settled batch.
    /// @param gateway Operator that settled the batch.
    /// @param slot Where it is anchored.
    /// @param payouts All payouts of the batch.
    /// @param subroots Subroots of the nodes' sum trees (see SumTree), in the order of the payouts.
    /// @param link What follows the subroots in the batch's header.
    /// @param payoutIndex Whose receipt it is.
    /// @param top Hash of the top of this node's tree.
    /// @param numReceipts Number of receipts in it.
    /// @param receipt EIP-712 digest of the receipt.
    /// @param cost Its cost.
    /// @param receiptIndex Place of the receipt in the tree.
    /// @param receiptProof Siblings from the receipt to the top.
    struct Inclusion {
        address gateway;
        uint256 slot;
        uint256[] payouts;
        bytes32[] subroots;
        bytes link;
        uint256 payoutIndex;
        bytes32 top;
        uint32 numReceipts;
        bytes32 receipt;
        uint128 cost;
        uint32 receiptIndex;
        SumNode[] receiptProof;
    }

    /// @notice A request with its assignment and the signatures on both.
    /// @param requestSignature By the session's key, 65 bytes.
    /// @param assignmentSignature By the gateway's operator or its signer, 65 bytes.
    struct SignedWork {
        InferenceRequest request;
        bytes requestSignature;
        Assignment assignment;
        bytes assignmentSignature;
    }

    /// @notice A direct claim.
    /// @param node Operator that claims; stays when the claim has ended, so that nobody claims twice.
    /// @param amount Cost of the receipt; once the claim has ended, what was paid of it.
    /// @param receipt EIP-712 digest of the receipt.
    /// @param session Session that pays.
    /// @param nonce Number of the request.
    /// @param paysAt Unix time, in seconds, from which it can be paid; zero when the claim has ended.
    /// @param cap The most that the session may have paid after this claim: what the payer acknowledged for requests up to this one
    /// and beyond; until somebody has shown that, what it had acknowledged before, and the cap of this one. No limit where earlier
    /// requests were in flight. What the session pays for later ones counts too: a node whose later work was claimed or settled first
    /// shows a later request itself.
    /// @param acknowledged Whether somebody has shown it.
    struct DirectClaim {
        address node;
        uint96 amount;
        bytes32 receipt;
        bytes32 session;
        uint64 nonce;
        uint48 paysAt;
        uint96 cap;
        bool acknowledged;
    }

    /// @notice A gateway allowed an account, and no other any more, to settle and compensate for it.
    event SettlerSet(address indexed gateway, address indexed settler);
    /// @notice Fees of a gateway went to its balance.
    event FeesCollected(address indexed gateway, uint96 amount);
    event Deposited(address indexed account, uint256 amount);
    event Withdrawn(address indexed account, uint256 amount);
    event Transferred(address indexed from, address indexed to, uint256 amount);
    /// @notice Part of a price was given back, from the gateway's balance to the payer's.
    event Compensated(
        address indexed payer, address indexed gateway, address indexed node, bytes32 request, uint96 amount
    );
    event SessionOpened(
        bytes32 indexed session,
        address indexed payer,
        address indexed gateway,
        address key,
        uint64 number,
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
    /// @param batch keccak256(payouts || header), words as they are.
    /// @param debits What each session paid, 32 bytes each, from the highest bit: 160 number of the session | 96 amount.
    /// @param payouts What each node earned, a word each, from the highest bit: 160 operator | 96 amount.
    /// What the payouts leave of the debits is the gateway's fee.
    /// @param header sha2-256 digest of the block that links to the receipts, in full (see SumTree).
    event BatchSettled(bytes32 indexed batch, address indexed gateway, bytes debits, uint256[] payouts, bytes32 header);
    /// @notice A gateway says that a node failed work worth `amount`; a fault counts up to what the batch pays the node.
    event NodeFaulted(address indexed node, address indexed gateway, uint96 amount);
    /// @notice A node claims the cost of a receipt from the session; the bond left its balance.
    event ClaimOpened(
        bytes32 indexed assignment,
        address indexed node,
        bytes32 indexed session,
        bytes32 receipt,
        uint64 nonce,
        uint96 amount,
        uint96 bond,
        uint48 paysAt
    );
    /// @notice Somebody showed how much the payer had acknowledged in total; the claim is paid within it.
    event ClaimCapped(bytes32 indexed assignment, uint96 cap);
    /// @notice A claim fell; its bond went to `to`.
    event ClaimVoided(bytes32 indexed assignment, address indexed to);
    /// @notice A claim was paid from its session and the bond given back. `amount` is zero when there was nothing left to pay.
    event ClaimPaid(bytes32 indexed assignment, address indexed node, bytes32 indexed session, uint96 amount);

    error InferenceLedgerZeroAddress();
    error InferenceLedgerParameterOutOfBounds(string parameter, uint256 value, uint256 minimum, uint256 maximum);
    error InferenceLedgerZeroAmount();
    error InferenceLedgerInsufficientBalance(address account, uint256 balance, uint256 amount);
    /// @notice The ledger never holds more than 2**96 base units.
    error InferenceLedgerTooManyCredits(uint256 amount);
    error InferenceLedgerZeroKey();
    error InferenceLedgerZeroDuration();
    error InferenceLedgerGatewayNotActive(address gateway);
    error InferenceLedgerUnknownSession(bytes32 session);
    error InferenceLedgerNotPayer(bytes32 session, address account);
    error InferenceLedgerSessionOver(bytes32 session, uint256 endsAt);
    error InferenceLedgerStillThawing(bytes32 session, uint256 closesAt);
    error InferenceLedgerClaimsOpen(bytes32 session, uint256 numClaims);
    /// @notice Consent is by the caller himself or by a valid signature over `SessionClose`.
    error InferenceLedgerNoConsent(bytes32 session, address party);
    error InferenceLedgerConsentExpired(bytes32 session, uint256 deadline);
    error InferenceLedgerConsentToOtherTotal(bytes32 session, uint256 settled, uint256 consented);
    /// @notice The caller is neither the gateway's operator nor its settler.
    error InferenceLedgerNotAuthorized(address gateway, address account);
    /// @notice No session of this id has this gateway and the key that signed the request.
    error InferenceLedgerNoSuchSession(bytes32 session);
    error InferenceLedgerInvalidSignature(bytes32 session, uint256 nonce);
    error InferenceLedgerCostAboveCap(bytes32 session, uint256 nonce, uint256 cost, uint256 maxCost);
    /// @notice Nonces of a session's claims rise strictly.
    error InferenceLedgerNonceNotRising(bytes32 session, uint256 nonce);
    /// @notice The newest claim of the session already acknowledges this one.
    error InferenceLedgerAlreadyAcknowledged(bytes32 session, uint256 nonce, uint256 ackedBelow);
    /// @notice The claims add up to less than what was settled before.
    error InferenceLedgerBelowSettled(bytes32 session, uint256 total, uint256 settled);
    error InferenceLedgerBudgetExceeded(bytes32 session, uint256 total, uint256 budget);
    /// @notice Faults are of nodes that the batch pays, in the order of the payouts.
    error InferenceLedgerFaultWithoutPayout(address node);
    error InferenceLedgerPayoutsExceedDebits(uint256 payouts, uint256 debits);
    error InferenceLedgerFeeTooHigh(uint256 fee, uint256 maximum);
    /// @notice The slot holds a batch of which receipts may still be shown.
    error InferenceLedgerSlotBusy(address gateway, uint256 slot, uint256 freeAt);
    /// @notice The evidence is not about what it should be about.
    error InferenceLedgerUnrelated(bytes32 expected, bytes32 given);
    error InferenceLedgerNotNode(address node, address account);
    /// @notice The gateway's signature is missing, or by a signer that it retired longer than a claim's period and window ago.
    error InferenceLedgerNotAssigned(address gateway, bytes32 assignment);
    error InferenceLedgerCostAbovePrice(uint256 cost, uint256 price);
    error InferenceLedgerNotClaimable(uint256 from, uint256 until);
    error InferenceLedgerAlreadyClaimed(bytes32 assignment);
    error InferenceLedgerPayoutChallenged(bytes32 receipt);
    error InferenceLedgerNoClaim(bytes32 assignment);
    error InferenceLedgerClaimRunning(bytes32 assignment, uint256 paysAt);
    error InferenceLedgerNotIncluded(bytes32 receipt);
    /// @notice It is the very receipt that is claimed, or for another assignment, or not signed by the node with a key that it
    /// uses or did until lately.
    error InferenceLedgerNoOtherReceipt(bytes32 assignment, bytes32 receipt);
    error InferenceLedgerNotAcknowledged(uint64 nonce, uint64 ackedBelow);
    error InferenceLedgerCapNotHigher(uint256 cap, uint256 present);

    /// @notice Moves `amount` credits from the caller's wallet, by allowance, to the caller's balance.
    function deposit(uint256 amount) external;

    /// @notice Like `deposit`, with an ERC-2612 permit. A permit that someone else submitted first does no harm.
    function depositWithPermit(uint256 amount, uint256 deadline, uint8 v, bytes32 r, bytes32 s) external;

    /// @notice Moves `amount` credits from the caller's balance to the caller's wallet.
    function withdraw(uint256 amount) external;

    /// @notice Moves `amount` from the caller's balance to another.
    function transfer(address to, uint256 amount) external;

    /// @notice Lets an account settle and compensate for the caller's gateway, besides the caller: usually its signer. Zero: nobody.
    function setSettler(address settler) external;

    /// @notice Moves what a gateway's fees have come to into its balance. Anyone may call.
    function collectFees(address gateway) external;

    /// @notice Gives payers back part of what requests cost, from the balance of `gateway`, which the caller acts for. Receipts
    /// keep their prices, so that they can be checked; the discount stands beside them.
    function compensate(address gateway, Compensation[] calldata compensations) external;

    /// @notice Locks `budget` of the caller's balance for requests signed by `key` and served through `gateway`.
    /// @param duration Seconds until the session ends by itself.
    /// @return session Id, unique on this chain and contract.
    function openSession(address gateway, address key, uint96 budget, uint32 duration)
        external
        returns (bytes32 session);

    /// @notice Adds to the budget of a session that has not ended. The payer alone may.
    function topUp(SessionTerms calldata terms, uint96 amount) external;

    /// @notice Ends a session now. What is left of the budget stays locked for the thaw, so that work done can be settled.
    function closeSession(SessionTerms calldata terms) external;

    /// @notice Closes a session whose end and thaw are over and returns the rest to the payer's balance. Anyone may call.
    function finalizeClose(SessionTerms calldata terms) external;

    /// @notice Closes a session at once, with the consent of the payer and of the gateway. Anyone may bring it. What the
    /// gateway accepted and has not settled, it still owes: see the court's payout challenges.
    /// @param payerSignature By the payer, a key or a contract (ERC-1271); ignored when the payer calls.
    /// @param gatewaySignature By the gateway's operator (a key or a contract) or its signer; ignored when one of them calls.
    function closeTogether(
        SessionTerms calldata terms,
        SessionClose calldata consent,
        bytes calldata payerSignature,
        bytes calldata gatewaySignature
    ) external;

    /// @notice Settles a batch: debits sessions, pays nodes, anchors what commits to the receipts.
    /// The caller is the gateway's operator or its settler. Claims of one session stand together, nonces strictly rising; the
    /// last one is the newest. With it the session has paid, in total,
    ///   newest.spent + sum of the costs of its claims, all of which have nonce >= newest.ackedBelow,
    /// and is debited what exceeds `settled`. So overlaps and replays pay nothing twice. What the debits leave after the
    /// payouts is the gateway's fee, at most `maxFeeBps` of the payouts.
    /// @return hash keccak256(payouts || header), words as they are.
    function settle(Batch calldata batch) external returns (bytes32 hash);

    /// @notice Claims the cost of a receipt from the session, for a node whose gateway did not settle it in time. The caller is
    /// the node's operator, even one that has left, or its signer; the bond is taken from the operator's balance.
    function openClaim(SessionTerms calldata terms, SignedWork calldata work, InferenceReceipt calldata receipt)
        external;

    /// @notice Ends a claim by showing that its receipt was paid in a batch. The bond goes to the caller's balance, or back to the
    /// node when the batch came no earlier than the claim.
    function voidByInclusion(SessionTerms calldata terms, bytes32 assignment, Inclusion calldata inclusion) external;

    /// @notice Ends a claim by showing another receipt that its node signed for the same assignment: whoever claims something else
    /// than it signed was paid for what it signed, or asks for more. The bond goes to the payer's balance.
    /// @param assignment The claimed one.
    /// @param signature By the node's operator or its signer, 65 bytes.
    function voidByReceipt(
        SessionTerms calldata terms,
        Assignment calldata assignment,
        InferenceReceipt calldata other,
        bytes calldata signature
    ) external;

    /// @notice Shows a later request of the session whose acknowledgement covers the claimed one, and an assignment by which
    /// the gateway accepted it: payer and gateway agree on what all of that cost. Have batches taken that much, the claim falls
    /// and the bond goes to the caller's balance: the gateway has the money, and owes what it accepted. Otherwise the claim is
    /// paid only as far as that total allows; the highest one that anybody shows counts.
    function voidByAcknowledgement(SessionTerms calldata terms, bytes32 assignment, SignedWork calldata later) external;

    /// @notice Pays a claim that nobody voided in time. Anyone may call.
    function payClaim(SessionTerms calldata terms, bytes32 assignment) external;

    /// @notice Token that is kept.
    function token() external view returns (IERC20);

    /// @notice Registry that knows the gateways.
    function nodes() external view returns (INodeRegistry);

    function parameters() external view returns (Parameters memory);

    /// @notice Credits of an account that are not locked in sessions or bonds.
    function balanceOf(address account) external view returns (uint256);

    /// @notice Who settles for a gateway, and the fees that it has not collected.
    function gatewayAccount(address gateway) external view returns (address settler, uint96 fees);

    /// @notice A session; all zero when there is none with these terms.
    function session(SessionTerms calldata terms) external view returns (Session memory);

    /// @notice Id of a session.
    function sessionId(SessionTerms calldata terms) external pure returns (bytes32);

    /// @notice The batch in a slot: the first 28 bytes of its hash and when it was settled (Unix time, in seconds).
    function anchor(address gateway, uint256 slot) external view returns (bytes28 batch, uint32 settledAt);

    /// @notice Whether a receipt was paid by a batch that is still anchored.
    function isIncluded(Inclusion calldata inclusion) external view returns (bool);

    /// @notice Direct claim on an assignment; all zero when there never was one.
    function directClaim(bytes32 assignment) external view returns (DirectClaim memory);

    /// @notice EIP-712 digest of a request: what its session's key signs.
    function hashRequest(InferenceRequest calldata request) external view returns (bytes32);

    /// @notice EIP-712 digest of an assignment: what the gateway's signer signs.
    function hashAssignment(Assignment calldata assignment) external view returns (bytes32);

    /// @notice EIP-712 digest of a receipt: what the node's signer signs.
    function hashReceipt(InferenceReceipt calldata receipt) external view returns (bytes32);

    /// @notice EIP-712 digest of the acceptance of a receipt (its digest): what the gateway's signer signs.
    function hashAcceptance(bytes32 receipt) external view returns (bytes32);

    /// @notice EIP-712 digest of a consent to close a session.
    function hashSessionClose(SessionClose calldata consent) external view returns (bytes32);
}
