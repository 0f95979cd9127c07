// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IDisputeCourt} from "../interfaces/IDisputeCourt.sol";
import {IInferenceLedger} from "../interfaces/IInferenceLedger.sol";
import {InferenceReceipt} from "../libraries/Messages.sol";
import {Bonds} from "./Bonds.sol";

/// @title Payout challenges: a gateway shows that it paid what it accepted, or pays from its stake
/// @notice The gateway's signed acceptance is what makes it liable: without it any node could sign a receipt for work that
/// failed and have the gateway's stake for it.
abstract contract PayoutChallenges is Bonds {
    uint48 internal immutable CHALLENGE_PERIOD;
    uint48 internal immutable ANSWER_PERIOD;
    uint96 internal immutable CHALLENGE_BOND;
    uint256 internal immutable FINE_BPS;

    /// @dev Anybody can sign the acceptance of any receipt and owe for it: one gateway's challenge says nothing about another's.
    mapping(address gateway => mapping(bytes32 receipt => Challenge)) internal _challenges;

    constructor(Parameters memory p) {
        (CHALLENGE_PERIOD, ANSWER_PERIOD) = (p.challengePeriod, p.answerPeriod);
        (CHALLENGE_BOND, FINE_BPS) = (p.challengeBond, p.fineBps);
    }

    /// @inheritdoc IDisputeCourt
    function challengePayout(address gateway, InferenceReceipt calldata receipt, bytes calldata acceptance)
        external
        override
        nonReentrant
    {
        bytes32 digest = ledger.hashReceipt(receipt);
        _checkSignedBy(gateway, ledger.hashAcceptance(digest), acceptance);
        // A challenge takes the place of a direct claim: which of them to try is for its node to choose.
        if (msg.sender != receipt.node && nodes.operatorOf(msg.sender) != receipt.node) {
            revert DisputeCourtNotNode(receipt.node, msg.sender);
        }
        Challenge storage self = _challenges[gateway][digest];
        if (self.challenger != address(0)) revert DisputeCourtAlreadyChallenged(digest);
        if (receipt.cost == 0 || receipt.cost > type(uint96).max) revert DisputeCourtNothingOwed(digest);
        IInferenceLedger.DirectClaim memory claim = ledger.directClaim(receipt.assignment);
        // A claim that has ended may have been paid in part, or, when it fell, not at all: its amount is what was paid.
        if (claim.paysAt != 0 || claim.amount >= receipt.cost) revert DisputeCourtClaimedDirectly(digest);
        uint256 until = uint256(receipt.finishedAt) + CHALLENGE_PERIOD;
        if (block.timestamp > until) revert DisputeCourtTooLate(digest, until);

        self.challenger = msg.sender;
        self.decidedAt = uint48(block.timestamp) + ANSWER_PERIOD;
        // casting to 'uint96' is safe because larger costs were refused above
        // forge-lint: disable-next-line(unsafe-typecast)
        self.amount = uint96(receipt.cost) - claim.amount;
        self.node = receipt.node;
        emit PayoutChallenged(digest, gateway, receipt.node, msg.sender, self.amount, CHALLENGE_BOND, self.decidedAt);
        _pullBond(CHALLENGE_BOND);
    }

    /// @inheritdoc IDisputeCourt
    function answerChallenge(bytes32 receipt, IInferenceLedger.Inclusion calldata inclusion) external override {
        Challenge storage self = _open(inclusion.gateway, receipt);
        // A payout's highest 160 bits are its node.
        // forge-lint: disable-next-item(unsafe-typecast)
        bool shown = inclusion.receipt == receipt && inclusion.cost >= self.amount && ledger.isIncluded(inclusion)
            && address(uint160(inclusion.payouts[inclusion.payoutIndex] >> 96)) == self.node;
        if (!shown) revert DisputeCourtNotIncluded(receipt);
        // A gateway that pays only when it is challenged shall not win what that cost.
        (, uint32 settledAt) = ledger.anchor(inclusion.gateway, inclusion.slot);
        address to = settledAt < self.decidedAt - ANSWER_PERIOD ? msg.sender : self.challenger;
        self.decidedAt = 0;
        balanceOf[to] += CHALLENGE_BOND;
        emit ChallengeAnswered(receipt, inclusion.gateway, to);
    }

    /// @inheritdoc IDisputeCourt
    function decideChallenge(address gateway, bytes32 receipt) external override nonReentrant {
        Challenge storage self = _open(gateway, receipt);
        if (block.timestamp < self.decidedAt) revert DisputeCourtStillOpen(receipt, self.decidedAt);
        self.decidedAt = 0;
        balanceOf[self.challenger] += CHALLENGE_BOND;
        uint256 amount = self.amount;
        uint256 fined = amount + amount * FINE_BPS / ALL_BPS;
        (uint128 taken, uint128 paid) = _slash(gateway, fined, self.node, amount);
        nodes.recordLoss(gateway, amount);
        emit ChallengeUpheld(receipt, gateway, self.node, taken, paid);
    }

    /// @inheritdoc IDisputeCourt
    function challenge(address gateway, bytes32 receipt) external view override returns (Challenge memory) {
        return _challenges[gateway][receipt];
    }

    /// @inheritdoc IDisputeCourt
    function isChallenged(address gateway, bytes32 receipt) external view override returns (bool) {
        return _challenges[gateway][receipt].challenger != address(0);
    }

    function _open(address gateway, bytes32 receipt) private view returns (Challenge storage self) {
        self = _challenges[gateway][receipt];
        if (self.decidedAt == 0) revert DisputeCourtNoChallenge(receipt);
    }
}
