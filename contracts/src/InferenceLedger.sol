// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IInferenceLedger} from "./interfaces/IInferenceLedger.sol";
import {INodeRegistry} from "./interfaces/INodeRegistry.sol";
import {ExactTransfer} from "./libraries/ExactTransfer.sol";
import {Assignment, InferenceReceipt, InferenceRequest, Messages, SessionClose} from "./libraries/Messages.sol";
import {SumTree} from "./libraries/SumTree.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {IERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Permit.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {SignatureChecker} from "@openzeppelin/contracts/utils/cryptography/SignatureChecker.sol";

/// @title Who owns how many credits, who may spend them, and what was spent
contract InferenceLedger is IInferenceLedger, EIP712, ReentrancyGuardTransient {
    using ExactTransfer for IERC20;
    using Messages for *;
    using SafeERC20 for IERC20;

    uint8 internal constant GATEWAY = 2;
    /// @dev Time for a gateway to settle what was served, but not a way to keep a payer's money for good.
    uint256 internal constant MIN_THAW_PERIOD = 10 minutes;
    uint256 internal constant MAX_THAW_PERIOD = 30 days;
    uint256 internal constant ALL_BPS = 10_000;
    /// @dev A gateway asks for a fee, not for the lion's share.
    uint256 internal constant MAX_MAX_FEE_BPS = 5_000;

    /// @inheritdoc IInferenceLedger
    IERC20 public immutable override token;
    /// @inheritdoc IInferenceLedger
    INodeRegistry public immutable override nodes;
    /// @inheritdoc IInferenceLedger
    uint48 public immutable override thawPeriod;
    /// @inheritdoc IInferenceLedger
    uint16 public immutable override maxFeeBps;

    /// @inheritdoc IInferenceLedger
    mapping(address account => uint256) public override balanceOf;
    mapping(bytes32 id => Session) internal _sessions;
    /// @dev Sessions ever opened; makes ids unique.
    uint256 internal _numSessions;
    /// @inheritdoc IInferenceLedger
    mapping(address gateway => mapping(bytes32 root => uint48)) public override settledAt;

    constructor(IERC20 token_, INodeRegistry nodes_, uint48 thawPeriod_, uint16 maxFeeBps_) EIP712("DeCLAI", "1") {
        if (address(token_) == address(0) || address(nodes_) == address(0)) revert InferenceLedgerZeroAddress();
        if (thawPeriod_ < MIN_THAW_PERIOD || thawPeriod_ > MAX_THAW_PERIOD) {
            revert InferenceLedgerThawPeriodOutOfBounds(thawPeriod_, MIN_THAW_PERIOD, MAX_THAW_PERIOD);
        }
        if (maxFeeBps_ > MAX_MAX_FEE_BPS) revert InferenceLedgerMaxFeeOutOfBounds(maxFeeBps_, MAX_MAX_FEE_BPS);
        token = token_;
        nodes = nodes_;
        thawPeriod = thawPeriod_;
        maxFeeBps = maxFeeBps_;
    }

    // Balances

    /// @inheritdoc IInferenceLedger
    function deposit(uint256 amount) external override nonReentrant {
        _deposit(amount);
    }

    /// @inheritdoc IInferenceLedger
    function depositWithPermit(uint256 amount, uint256 deadline, uint8 v, bytes32 r, bytes32 s)
        external
        override
        nonReentrant
    {
        // Whoever sees the permit can submit it first; the allowance is there all the same, so a failure means nothing.
        try IERC20Permit(address(token)).permit(msg.sender, address(this), amount, deadline, v, r, s) {} catch {}
        _deposit(amount);
    }

    /// @inheritdoc IInferenceLedger
    function withdraw(uint256 amount) external override nonReentrant {
        if (amount == 0) revert InferenceLedgerZeroAmount();
        _take(msg.sender, amount);
        emit Withdrawn(msg.sender, amount);
        token.safeTransfer(msg.sender, amount);
    }

    /// @inheritdoc IInferenceLedger
    function transfer(address to, uint256 amount) external override {
        if (to == address(0)) revert InferenceLedgerZeroAddress();
        if (amount == 0) revert InferenceLedgerZeroAmount();
        _take(msg.sender, amount);
        balanceOf[to] += amount;
        emit Transferred(msg.sender, to, amount);
    }

    // Sessions

    /// @inheritdoc IInferenceLedger
    function openSession(address gateway, address key, uint96 budget, uint32 duration)
        external
        override
        returns (bytes32 id)
    {
        if (!nodes.isActive(gateway, GATEWAY)) revert InferenceLedgerGatewayNotActive(gateway);
        if (key == address(0)) revert InferenceLedgerZeroKey();
        if (budget == 0) revert InferenceLedgerZeroAmount();
        if (duration == 0) revert InferenceLedgerZeroDuration();
        _take(msg.sender, budget);
        id = keccak256(abi.encode(block.chainid, address(this), msg.sender, ++_numSessions));
        uint48 endsAt = uint48(block.timestamp) + duration;
        _sessions[id] =
            Session({key: key, settled: 0, gateway: gateway, budget: budget, payer: msg.sender, endsAt: endsAt});
        emit SessionOpened(id, msg.sender, gateway, key, budget, endsAt);
    }

    /// @inheritdoc IInferenceLedger
    function topUp(bytes32 id, uint96 amount) external override {
        if (amount == 0) revert InferenceLedgerZeroAmount();
        Session storage self = _runningOf(msg.sender, id);
        _take(msg.sender, amount);
        self.budget += amount;
        emit SessionToppedUp(id, amount, self.budget);
    }

    /// @inheritdoc IInferenceLedger
    function closeSession(bytes32 id) external override {
        Session storage self = _runningOf(msg.sender, id);
        self.endsAt = uint48(block.timestamp);
        emit SessionEnded(id, self.endsAt);
    }

    /// @inheritdoc IInferenceLedger
    function finalizeClose(bytes32 id) external override {
        Session storage self = _existing(id);
        uint256 closesAt = uint256(self.endsAt) + thawPeriod;
        if (block.timestamp < closesAt) revert InferenceLedgerStillThawing(id, closesAt);
        _close(id, self);
    }

    /// @inheritdoc IInferenceLedger
    function closeTogether(
        SessionClose calldata consent,
        bytes calldata payerSignature,
        bytes calldata gatewaySignature
    ) external override {
        bytes32 id = consent.session;
        Session storage self = _existing(id);
        if (block.timestamp > consent.deadline) revert InferenceLedgerConsentExpired(id, consent.deadline);
        if (self.settled != consent.settled) {
            revert InferenceLedgerConsentToOtherTotal(id, self.settled, consent.settled);
        }
        bytes32 digest = hashSessionClose(consent);
        if (!_isByAccount(self.payer, digest, payerSignature)) revert InferenceLedgerNoConsent(id, self.payer);
        if (
            !_isBySigner(self.gateway, digest, gatewaySignature)
                && !_isByAccount(self.gateway, digest, gatewaySignature)
        ) revert InferenceLedgerNoConsent(id, self.gateway);
        _close(id, self);
    }

    // Settlement

    /// @inheritdoc IInferenceLedger
    function settle(Claim[] calldata claims, Payout[] calldata payouts, string calldata cid)
        external
        override
        returns (bytes32 root)
    {
        address gateway = nodes.activeOperator(msg.sender, GATEWAY);
        (Debit[] memory debits, uint256 debited) = _debit(gateway, claims);
        uint256 paid;
        (root, paid) = _pay(payouts);
        if (paid > debited) revert InferenceLedgerPayoutsExceedDebits(paid, debited);
        uint256 fee = debited - paid;
        uint256 maxFee = paid * maxFeeBps / ALL_BPS;
        if (fee > maxFee) revert InferenceLedgerFeeTooHigh(fee, maxFee);
        balanceOf[gateway] += fee;
        if (settledAt[gateway][root] != 0) revert InferenceLedgerBatchAnchored(gateway, root);
        settledAt[gateway][root] = uint48(block.timestamp);
        // casting to 'uint128' is safe because a fee is part of debits that fit 96 bits each, far fewer than 2**32
        // forge-lint: disable-next-line(unsafe-typecast)
        emit BatchSettled(root, gateway, uint128(fee), debits, payouts, cid);
    }

    // Views

    /// @inheritdoc IInferenceLedger
    function session(bytes32 id) external view override returns (Session memory) {
        return _sessions[id];
    }

    /// @inheritdoc IInferenceLedger
    function isIncluded(Inclusion calldata inclusion) external view override returns (bool) {
        Payout calldata payout = inclusion.payout;
        if (settledAt[inclusion.gateway][inclusion.root] == 0 || payout.receipts == 0 || payout.top == 0) return false;
        return SumTree.verifyPayout(
            inclusion.root, _payoutLeaf(payout), inclusion.payoutIndex, inclusion.numPayouts, inclusion.payoutProof
        )
            && SumTree.verify(
            payout.top,
            payout.amount,
            payout.receipts,
            inclusion.receipt,
            inclusion.cost,
            inclusion.receiptIndex,
            inclusion.receiptProof
        );
    }

    /// @inheritdoc IInferenceLedger
    function hashRequest(InferenceRequest calldata request) public view override returns (bytes32) {
        return _hashTypedDataV4(request.hash());
    }

    /// @inheritdoc IInferenceLedger
    function hashAssignment(Assignment calldata assignment) external view override returns (bytes32) {
        return _hashTypedDataV4(assignment.hash());
    }

    /// @inheritdoc IInferenceLedger
    function hashReceipt(InferenceReceipt calldata receipt) external view override returns (bytes32) {
        return _hashTypedDataV4(receipt.hash());
    }

    /// @inheritdoc IInferenceLedger
    function hashSessionClose(SessionClose calldata consent) public view override returns (bytes32) {
        return _hashTypedDataV4(consent.hash());
    }

    // Inner workings

    function _deposit(uint256 amount) private {
        if (amount == 0) revert InferenceLedgerZeroAmount();
        balanceOf[msg.sender] += amount;
        emit Deposited(msg.sender, amount);
        token.pull(msg.sender, amount);
    }

    function _take(address account, uint256 amount) private {
        uint256 balance = balanceOf[account];
        if (amount > balance) revert InferenceLedgerInsufficientBalance(account, balance, amount);
        balanceOf[account] = balance - amount;
    }

    function _existing(bytes32 id) private view returns (Session storage self) {
        self = _sessions[id];
        if (self.payer == address(0)) revert InferenceLedgerUnknownSession(id);
    }

    function _runningOf(address payer, bytes32 id) private view returns (Session storage self) {
        self = _existing(id);
        if (self.payer != payer) revert InferenceLedgerNotPayer(id, payer);
        if (block.timestamp >= self.endsAt) revert InferenceLedgerSessionOver(id, self.endsAt);
    }

    /// @dev Deletes the session: its id never comes again, so nothing can be claimed of it any more.
    function _close(bytes32 id, Session storage self) private {
        (address payer, uint96 settled, uint96 returned) = (self.payer, self.settled, self.budget - self.settled);
        delete _sessions[id];
        balanceOf[payer] += returned;
        emit SessionClosed(id, payer, returned, settled);
    }

    function _isByAccount(address account, bytes32 digest, bytes calldata signature) private view returns (bool) {
        return msg.sender == account || SignatureChecker.isValidSignatureNow(account, digest, signature);
    }

    function _isBySigner(address operator, bytes32 digest, bytes calldata signature) private view returns (bool) {
        if (nodes.operatorOf(msg.sender) == operator) return true;
        (address signer, ECDSA.RecoverError failure,) = ECDSA.tryRecover(digest, signature);
        return failure == ECDSA.RecoverError.NoError && nodes.operatorOf(signer) == operator;
    }

    function _debit(address gateway, Claim[] calldata claims) private returns (Debit[] memory debits, uint256 debited) {
        debits = new Debit[](_numSessionsOf(claims));
        uint256 next;
        for (uint256 i = 0; i < debits.length; ++i) {
            bytes32 id = claims[next].request.session;
            uint256 amount;
            (amount, next) = _debitSession(gateway, id, claims, next);
            // casting to 'uint128' is safe because an amount is at most the session's budget of 96 bits
            // forge-lint: disable-next-line(unsafe-typecast)
            debits[i] = Debit(id, uint128(amount));
            debited += amount;
        }
    }

    /// @dev Number of runs of claims of the same session.
    function _numSessionsOf(Claim[] calldata claims) private pure returns (uint256 num) {
        for (uint256 i = 0; i < claims.length; ++i) {
            if (i == 0 || claims[i].request.session != claims[i - 1].request.session) ++num;
        }
    }

    /// @dev Debits one session by its run of claims, which begins at `first` and ends before `end`.
    function _debitSession(address gateway, bytes32 id, Claim[] calldata claims, uint256 first)
        private
        returns (uint256 amount, uint256 end)
    {
        Session storage self = _sessions[id];
        if (self.gateway != gateway) revert InferenceLedgerNotGatewayOfSession(id, gateway);
        address key = self.key;
        uint256 total;
        for (end = first; end < claims.length && claims[end].request.session == id; ++end) {
            Claim calldata claim = claims[end];
            uint64 nonce = claim.request.nonce;
            if (end != first && nonce <= claims[end - 1].request.nonce) {
                revert InferenceLedgerNonceNotRising(id, nonce);
            }
            if (claim.cost > claim.request.maxCost) {
                revert InferenceLedgerCostAboveCap(id, nonce, claim.cost, claim.request.maxCost);
            }
            // A failed recovery yields the zero address, which is no session's key.
            (address signer,,) = ECDSA.tryRecover(hashRequest(claim.request), claim.r, claim.vs);
            if (signer != key) revert InferenceLedgerInvalidSignature(id, nonce);
            total += claim.cost;
        }

        InferenceRequest calldata newest = claims[end - 1].request;
        // Nonces rise, so the first claim speaks for all.
        uint64 oldestNonce = claims[first].request.nonce;
        if (oldestNonce < newest.ackedBelow) {
            revert InferenceLedgerAlreadyAcknowledged(id, oldestNonce, newest.ackedBelow);
        }
        total += newest.spent;
        (uint256 settled, uint256 budget) = (self.settled, self.budget);
        if (total < settled) revert InferenceLedgerBelowSettled(id, total, settled);
        if (total > budget) revert InferenceLedgerBudgetExceeded(id, total, budget);
        // casting to 'uint96' is safe because the total is at most the budget
        // forge-lint: disable-next-line(unsafe-typecast)
        self.settled = uint96(total);
        amount = total - settled;
    }

    function _pay(Payout[] calldata payouts) private returns (bytes32 root, uint256 paid) {
        if (payouts.length == 0) revert InferenceLedgerNoPayouts();
        bytes32[] memory leaves = new bytes32[](payouts.length);
        address previous;
        for (uint256 i = 0; i < payouts.length; ++i) {
            Payout calldata payout = payouts[i];
            if (payout.node <= previous) revert InferenceLedgerPayoutsNotRising(payout.node);
            previous = payout.node;
            leaves[i] = _payoutLeaf(payout);
            balanceOf[payout.node] += payout.amount;
            paid += payout.amount;
        }
        root = SumTree.payoutRoot(leaves);
    }

    function _payoutLeaf(Payout calldata payout) private pure returns (bytes32) {
        bytes32 subroot = SumTree.seal(payout.top, payout.amount, payout.receipts);
        return SumTree.payoutLeaf(payout.node, subroot, payout.faults);
    }
}
