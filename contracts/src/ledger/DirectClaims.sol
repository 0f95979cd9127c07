// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IDisputeCourt} from "../interfaces/IDisputeCourt.sol";
import {IInferenceLedger} from "../interfaces/IInferenceLedger.sol";
import {Acceptance, Assignment, InferenceReceipt, InferenceRequest, Messages} from "../libraries/Messages.sol";
import {Settlement} from "./Settlement.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";

/// @title Direct claims: a node whose gateway is silent takes its pay from the session
/// @notice The payer's risk stays what it signed: claims on one request never exceed its `maxCost`, claims on a session never
/// its budget, and claims on requests that payer and gateway agreed on never what they agreed.
abstract contract DirectClaims is Settlement {
    using Messages for *;

    uint256 private constant TIER_BPS_RESEARCH = 10_000;
    uint256 private constant TIER_BPS_PRODUCTION = 25_000;
    uint256 private constant TIER_BPS_REAL_TIME = 50_000;
    uint256 private constant TOKEN_LAYERS_PER_PRICE = 1e6;

    uint48 internal immutable CLAIM_DELAY;
    uint48 internal immutable CLAIM_PERIOD;
    uint48 internal immutable CLAIM_WINDOW;
    uint96 internal immutable CLAIM_BOND;

    mapping(bytes32 assignment => DirectClaim) internal _claims;
    /// @dev What was ever claimed directly for a request, by all nodes. Claims that fell count, since batches took their cost; but
    /// none that its node's own receipt belies, or one node could keep the others of its pipeline from claiming.
    mapping(bytes32 request => uint256) internal _claimedOf;
    /// @dev The part of a session's `settled` that direct claims took. What batches took is the rest, at least.
    mapping(bytes32 session => uint256) internal _paidDirectly;

    constructor(Parameters memory p) {
        (CLAIM_DELAY, CLAIM_PERIOD, CLAIM_WINDOW, CLAIM_BOND) =
        (p.claimDelay, p.claimPeriod, p.claimWindow, p.claimBond);
    }

    /// @inheritdoc IInferenceLedger
    function openClaim(SessionTerms calldata terms, SignedWork calldata work, InferenceReceipt calldata receipt)
        external
        override
    {
        (bytes32 id, Session storage self) = _existing(terms);
        bytes32 assignment = _checkWork(terms, id, work);
        if (receipt.assignment != assignment) revert InferenceLedgerUnrelated(assignment, receipt.assignment);
        address node = work.assignment.node;
        if (receipt.node != node || !_speaksFor(msg.sender, node)) revert InferenceLedgerNotNode(node, msg.sender);
        DirectClaim storage claim = _claims[assignment];
        // Not the node: work can be assigned to account zero, and every opening counts.
        if (claim.receipt != 0) revert InferenceLedgerAlreadyClaimed(assignment);
        _checkClaimable(self, work.assignment.deadline);
        _checkPrice(work, receipt);
        bytes32 digest = _hashTypedDataV4(receipt.hash());
        // Its gateway pays or paid it, from a batch or from its stake.
        if (IDisputeCourt(nodes.court()).isChallenged(terms.gateway, digest)) {
            revert InferenceLedgerPayoutChallenged(digest);
        }

        _take(node, CLAIM_BOND);
        self.numClaims += 1;
        // casting to 'uint96' is safe because _checkPrice refuses what does not fit
        // forge-lint: disable-next-line(unsafe-typecast)
        uint96 amount = uint96(receipt.cost);
        uint64 nonce = work.request.nonce;
        uint48 paysAt = uint48(block.timestamp) + CLAIM_WINDOW;
        (claim.node, claim.amount) = (node, amount);
        (claim.receipt, claim.session) = (digest, id);
        (claim.nonce, claim.paysAt, claim.cap) = (nonce, paysAt, _signedTotal(work.request));
        emit ClaimOpened(assignment, node, id, digest, nonce, amount, CLAIM_BOND, paysAt);
    }

    /// @inheritdoc IInferenceLedger
    function voidByInclusion(SessionTerms calldata terms, bytes32 assignment, Inclusion calldata inclusion)
        external
        override
    {
        (Session storage self, DirectClaim storage claim) = _openClaimOf(terms, assignment);
        if (
            inclusion.receipt != claim.receipt || inclusion.cost != claim.amount || inclusion.gateway != terms.gateway
                || !isIncluded(inclusion) || _nodeOf(inclusion.payouts[inclusion.payoutIndex]) != claim.node
        ) revert InferenceLedgerNotIncluded(claim.receipt);
        // A gateway that pays when it is too late shall not win what it cost to make it pay.
        bool inTime = anchor[inclusion.gateway][inclusion.slot].settledAt < claim.paysAt - CLAIM_WINDOW;
        _void(self, claim, assignment, inTime ? msg.sender : claim.node);
    }

    /// @inheritdoc IInferenceLedger
    function voidByReceipt(
        SessionTerms calldata terms,
        Assignment calldata assignment,
        InferenceReceipt calldata other,
        bytes calldata signature
    ) external override {
        bytes32 id = hashAssignment(assignment);
        (Session storage self, DirectClaim storage claim) = _openClaimOf(terms, id);
        bytes32 digest = _hashTypedDataV4(other.hash());
        if (other.assignment != id || digest == claim.receipt || !_isWordOf(claim.node, digest, signature)) {
            revert InferenceLedgerNoOtherReceipt(id, digest);
        }
        _claimedOf[assignment.request] -= claim.amount;
        // Not to the caller: the node has that receipt, too, and would be the first to show it when it is found out.
        _void(self, claim, id, terms.payer);
    }

    /// @inheritdoc IInferenceLedger
    function voidByAcknowledgement(SessionTerms calldata terms, bytes32 assignment, SignedWork calldata later)
        external
        override
    {
        (Session storage self, DirectClaim storage claim) = _openClaimOf(terms, assignment);
        _checkWork(terms, claim.session, later);
        if (later.request.ackedBelow <= claim.nonce) {
            revert InferenceLedgerNotAcknowledged(claim.nonce, later.request.ackedBelow);
        }
        uint256 spent = later.request.spent;
        if (self.settled >= spent + _paidDirectly[claim.session]) {
            _void(self, claim, assignment, msg.sender);
        } else {
            uint96 cap = _cut(spent);
            // The highest total counts: neither side gains by holding back a later request.
            if (claim.acknowledged && cap <= claim.cap) revert InferenceLedgerCapNotHigher(cap, claim.cap);
            (claim.cap, claim.acknowledged) = (cap, true);
            emit ClaimCapped(assignment, cap);
        }
    }

    /// @inheritdoc IInferenceLedger
    function payClaim(SessionTerms calldata terms, bytes32 assignment) external override {
        (Session storage self, DirectClaim storage claim) = _openClaimOf(terms, assignment);
        if (block.timestamp < claim.paysAt) revert InferenceLedgerClaimRunning(assignment, claim.paysAt);
        claim.paysAt = 0;
        self.numClaims -= 1;
        uint96 limit = claim.cap < self.budget ? claim.cap : self.budget;
        uint96 amount;
        // Nothing here overflows: what is paid is a part of the budget.
        unchecked {
            uint96 left = limit > self.settled ? limit - self.settled : 0;
            amount = claim.amount < left ? claim.amount : left;
            self.settled += amount;
            _paidDirectly[claim.session] += amount;
        }
        claim.amount = amount;
        _give(claim.node, CLAIM_BOND);
        _earn(claim.node, amount, currentEpoch());
        emit ClaimPaid(assignment, claim.node, claim.session, amount);
    }

    /// @inheritdoc IInferenceLedger
    function directClaim(bytes32 assignment) external view override returns (DirectClaim memory) {
        return _claims[assignment];
    }

    /// @inheritdoc IInferenceLedger
    function hashRequest(InferenceRequest calldata request) public view override returns (bytes32) {
        return _hashTypedDataV4(request.hash());
    }

    /// @inheritdoc IInferenceLedger
    function hashAssignment(Assignment calldata assignment) public view override returns (bytes32) {
        return _hashTypedDataV4(assignment.hash());
    }

    /// @inheritdoc IInferenceLedger
    function hashReceipt(InferenceReceipt calldata receipt) external view override returns (bytes32) {
        return _hashTypedDataV4(receipt.hash());
    }

    /// @inheritdoc IInferenceLedger
    function hashAcceptance(bytes32 receipt) external view override returns (bytes32) {
        return _hashTypedDataV4(Acceptance(receipt).hash());
    }

    /// @dev Checks that the session's key ordered the work and that its gateway assigned it.
    function _checkWork(SessionTerms calldata terms, bytes32 id, SignedWork calldata work)
        private
        view
        returns (bytes32 assignment)
    {
        if (work.request.session != id) revert InferenceLedgerUnrelated(id, work.request.session);
        bytes32 request = hashRequest(work.request);
        if (work.assignment.request != request) revert InferenceLedgerUnrelated(request, work.assignment.request);
        (address signer,,) = ECDSA.tryRecover(request, work.requestSignature);
        if (signer != terms.key) revert InferenceLedgerInvalidSignature(id, work.request.nonce);
        assignment = hashAssignment(work.assignment);
        if (!_isWordOf(terms.gateway, assignment, work.assignmentSignature)) {
            revert InferenceLedgerNotAssigned(terms.gateway, assignment);
        }
    }

    /// @dev Whether an operator or its signer signed. A signer belongs to one operator forever, so old work can be claimed after a
    /// change of keys; but not forever, since a key that was changed may have been stolen.
    function _isWordOf(address operator, bytes32 digest, bytes calldata signature) private view returns (bool) {
        (address signer,,) = ECDSA.tryRecover(digest, signature);
        if (signer == address(0) || signer == operator) return signer != address(0);
        (address owner, uint48 retiredAt) = nodes.signerRecord(signer);
        return
            owner == operator && (retiredAt == 0 || block.timestamp <= uint256(retiredAt) + CLAIM_PERIOD + CLAIM_WINDOW);
    }

    function _checkClaimable(Session storage self, uint64 deadline) private view {
        uint256 from;
        uint256 until;
        // Times of 64 bits and periods of 48: their sums do not overflow.
        unchecked {
            from = uint256(deadline) + CLAIM_DELAY;
            until = uint256(deadline) + CLAIM_PERIOD;
            uint256 closesAt = uint256(self.endsAt) + THAW_PERIOD;
            if (closesAt < until) until = closesAt;
        }
        if (block.timestamp < from || block.timestamp > until) revert InferenceLedgerNotClaimable(from, until);
    }

    /// @dev What the payer signed for, up to this request: what a batch took for it leaves no more for a claim. Caps of earlier
    /// requests in flight are not known here, so with them the budget alone is the limit.
    function _signedTotal(InferenceRequest calldata request) private pure returns (uint96) {
        return request.ackedBelow == request.nonce ? _cut(uint256(request.spent) + request.maxCost) : type(uint96).max;
    }

    /// @dev Amounts beyond 96 bits, which no budget reaches, limit nothing.
    function _cut(uint256 amount) private pure returns (uint96) {
        // casting to 'uint96' is safe because larger amounts are cut
        // forge-lint: disable-next-line(unsafe-typecast)
        return amount > type(uint96).max ? type(uint96).max : uint96(amount);
    }

    /// @dev The cost is what the assignment's prices make of the receipt's tokens, at most; all claims of the request together
    /// are within its cap.
    function _checkPrice(SignedWork calldata work, InferenceReceipt calldata receipt) private {
        if (receipt.cost == 0) revert InferenceLedgerZeroAmount();
        if (receipt.outputTokens > work.request.work.maxTokens) {
            revert InferenceLedgerCostAbovePrice(receipt.outputTokens, work.request.work.maxTokens);
        }
        uint256 price = _price(work.assignment, work.request.work.tier, receipt.promptTokens, receipt.outputTokens);
        if (receipt.cost > price) revert InferenceLedgerCostAbovePrice(receipt.cost, price);
        uint256 claimed = _claimedOf[work.assignment.request] + receipt.cost;
        uint96 maxCost = _cut(work.request.maxCost);
        if (claimed > maxCost) revert InferenceLedgerCostAbovePrice(claimed, maxCost);
        _claimedOf[work.assignment.request] = claimed;
    }

    function _price(Assignment calldata a, uint8 tier, uint256 promptTokens, uint256 outputTokens)
        private
        pure
        returns (uint256)
    {
        uint256 layers = a.endLayer > a.firstLayer ? a.endLayer - a.firstLayer : 0;
        uint256 tierBps = tier == 0 ? TIER_BPS_RESEARCH : tier == 1 ? TIER_BPS_PRODUCTION : TIER_BPS_REAL_TIME;
        return (promptTokens * a.promptPrice + outputTokens * a.outputPrice) * layers * tierBps
            / (TOKEN_LAYERS_PER_PRICE * ALL_BPS);
    }

    function _openClaimOf(SessionTerms calldata terms, bytes32 assignment)
        private
        view
        returns (Session storage self, DirectClaim storage claim)
    {
        bytes32 id;
        (id, self) = _existing(terms);
        claim = _claims[assignment];
        if (claim.paysAt == 0) revert InferenceLedgerNoClaim(assignment);
        if (claim.session != id) revert InferenceLedgerUnrelated(claim.session, id);
    }

    function _void(Session storage self, DirectClaim storage claim, bytes32 assignment, address to) private {
        (claim.paysAt, claim.amount) = (0, 0);
        self.numClaims -= 1;
        _give(to, CLAIM_BOND);
        emit ClaimVoided(assignment, to);
    }
}
