// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IComputeDisputes} from "../interfaces/IComputeDisputes.sol";
import {IJury} from "../interfaces/IJury.sol";
import {Disputes} from "./Disputes.sol";

/// @title Sentences: what a verdict costs, and who gets it
/// @notice The harmed payer comes first, then who found it out, then the jurors; the rest is the treasury's. Of a warning the
/// jurors are paid first: accused and payer alone say what the work cost. A node that has friends accuse it, to save its stake from
/// worse, gets less than two thirds of what a conviction takes back, a quarter as payer and half of the rest as challenger at most, and
/// less than half of what a warning takes; but nothing of what an earlier dispute may take, since disputes against one node end in
/// their order.
abstract contract Sentences is Disputes {
    uint96 internal immutable JUROR_FEE;
    uint96 internal immutable JUROR_PENALTY;

    /// @inheritdoc IComputeDisputes
    mapping(bytes32 assignment => bool) public override isRefunded;

    constructor(DisputeParameters memory p) {
        (JUROR_FEE, JUROR_PENALTY) = (p.jurorFee, p.jurorPenalty);
    }

    /// @inheritdoc IComputeDisputes
    function finalize(bytes32 id) external override nonReentrant {
        Dispute storage self = _disputes[id];
        (IJury.Verdict verdict, uint256 upheld) = (IJury.Verdict.Convicted, 0);
        address[] memory right;
        address[] memory wrong;
        if (self.phase == Phase.Opening) {
            uint256 from = self.openedAt + OPENING_PERIOD;
            if (block.timestamp < from) revert DisputeCourtNotNow(id, from, type(uint256).max);
        } else if (self.phase == Phase.Trial) {
            (verdict, upheld, right, wrong) = jury.close(id);
        } else {
            revert DisputeCourtWrongPhase(id, self.phase);
        }
        _checkTurn(id);
        (self.phase, self.verdict) = (Phase.Ended, verdict);

        uint256 fees = right.length * JUROR_FEE;
        uint256 penalties = _penalize(id, wrong);
        uint256 pot = _settleBonds(id, verdict, upheld);
        (uint128 taken, uint256 left) = (0, 0);
        if (verdict == IJury.Verdict.Convicted) (taken, left) = _convict(id, self, fees);
        if (verdict == IJury.Verdict.Warned) (taken, left) = _warn(id, self, fees);
        _payJurors(id, right, pot + left, penalties, verdict == IJury.Verdict.Acquitted ? self.accused : treasury);
        emit DisputeEnded(id, self.accused, verdict, taken);
    }

    function _penalize(bytes32 id, address[] memory wrong) private returns (uint256 penalties) {
        for (uint256 i = 0; i < wrong.length; ++i) {
            uint128 lost = nodes.slash(wrong[i], JUROR_PENALTY, address(this));
            penalties += lost;
            emit JurorPenalized(id, wrong[i], lost);
        }
    }

    /// @dev The challenger of an innocent pays the jurors, and so does who appealed in vain; every other bond goes back.
    function _settleBonds(bytes32 id, IJury.Verdict verdict, uint256 upheld) private returns (uint256 lost) {
        Bond[] storage bonds = _bonds[id];
        for (uint256 i = 0; i < bonds.length; ++i) {
            bool isLost = i == 0 ? verdict == IJury.Verdict.Acquitted : upheld >> i & 1 != 0;
            if (isLost) lost += bonds[i].amount;
            else _award(id, bonds[i].owner, bonds[i].amount);
        }
    }

    /// @dev One assignment is slashed and refunded once, in however many of its chunks it was wrong; the jurors of each are paid.
    /// @return taken From the accused.
    /// @return left What of it is there for the jurors.
    function _convict(bytes32 id, Dispute storage self, uint256 fees) private returns (uint128 taken, uint256 left) {
        bool isFirst = !isConvicted[self.assignment];
        isConvicted[self.assignment] = true;
        uint256 amount = isFirst || self.cap < fees ? self.cap : fees;
        taken = _take(self.accused, amount);
        left = taken;
        if (isFirst) {
            left -= _refund(id, self, taken / 4);
            uint256 reward = left * REWARD_BPS / ALL_BPS;
            _award(id, self.challenger, reward);
            left -= reward;
        }
        nodes.recordLoss(self.accused, amount);
        nodes.jail(self.accused, uint48(block.timestamp) + JAIL_PERIOD);
    }

    /// @dev The work was not good enough to be paid: that costs what it was paid, twice, and the costs of having it measured.
    function _warn(bytes32 id, Dispute storage self, uint256 fees) private returns (uint128 taken, uint256 left) {
        bool isOwed = !isRefunded[self.assignment] && !isConvicted[self.assignment];
        uint256 amount = isOwed ? 2 * uint256(self.cost) + fees : fees;
        taken = _take(self.accused, amount < self.cap ? amount : self.cap);
        left = taken;
        // The cost is what accused and payer made of it: half of what the jurors leave of the stake is refunded.
        if (isOwed && taken > fees) left -= _refund(id, self, (taken - fees) / 2);
        nodes.recordLoss(self.accused, self.cost);
    }

    /// @dev Gives the payer back what the work cost, within `available`, once.
    function _refund(bytes32 id, Dispute storage self, uint256 available) private returns (uint256 refund) {
        if (isRefunded[self.assignment]) return 0;
        isRefunded[self.assignment] = true;
        refund = self.cost < available ? self.cost : available;
        _award(id, self.payer, refund);
    }

    /// @dev Jurors share what there is, up to their fees. What the loser leaves goes to `heir`; what jurors lost, to the treasury:
    /// no party shall profit from a juror's failure.
    function _payJurors(bytes32 id, address[] memory right, uint256 pot, uint256 penalties, address heir) private {
        uint256 each = right.length == 0 ? 0 : (pot + penalties) / right.length;
        if (each > JUROR_FEE) each = JUROR_FEE;
        for (uint256 i = 0; i < right.length; ++i) {
            _award(id, right[i], each);
        }
        uint256 paid = each * right.length;
        uint256 fromPot = paid < pot ? paid : pot;
        _award(id, heir, pot - fromPot);
        _award(id, treasury, penalties - (paid - fromPot));
    }

    function _take(address operator, uint256 amount) private returns (uint128) {
        // casting to 'uint128' is safe because amounts here are at most a cap of 96 bits
        // forge-lint: disable-next-line(unsafe-typecast)
        return nodes.slash(operator, uint128(amount), address(this));
    }

    function _award(bytes32 id, address account, uint256 amount) private {
        if (amount == 0) return;
        balanceOf[account] += amount;
        emit Awarded(id, account, amount);
    }
}
