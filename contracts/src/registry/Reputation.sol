// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IEarnings} from "../interfaces/IEarnings.sol";
import {INodeRegistry} from "../interfaces/INodeRegistry.sol";

/// @title How well nodes behaved, weighted by the credits that were at stake
/// @notice A score is an exponentially weighted mean of outcomes: the share of good work in an epoch moves it by
/// x / (x + HALF_WEIGHT), where x is what the epoch's work was worth. A thousand jobs of dust are worth dust; paying oneself
/// buys no more than the stake that it locks; idleness leads back to the newcomer's score.
abstract contract Reputation is INodeRegistry {
    /// @dev `epoch` is the one of the last work that the score contains.
    struct Standing {
        uint64 score;
        uint16 epoch;
        bool known;
    }

    uint256 internal constant FULL_SCORE = 1e18;
    uint256 internal constant NEWCOMER_SCORE = FULL_SCORE / 2;

    /// @inheritdoc INodeRegistry
    address public immutable override ledger;
    uint256 internal immutable LOCK_MULTIPLE;
    uint256 internal immutable HALF_WEIGHT;
    uint256 internal immutable DECAY_EPOCHS;

    mapping(address operator => Standing) internal _standings;

    constructor(address ledger_, uint256 lockMultiple, uint256 halfWeight, uint256 decayEpochs) {
        ledger = ledger_;
        LOCK_MULTIPLE = lockMultiple;
        HALF_WEIGHT = halfWeight;
        DECAY_EPOCHS = decayEpochs;
    }

    /// @inheritdoc INodeRegistry
    function recordWork(address operator, uint16 epoch, uint96 earned, uint96 faulted) external override {
        if (msg.sender != ledger) revert NodeRegistryNotLedger(msg.sender);
        _setStanding(operator, _withWork(operator, _standings[operator], epoch, earned, faulted));
    }

    /// @inheritdoc INodeRegistry
    function reputation(address operator) external view override returns (uint256) {
        (uint16 epoch, uint96 earned, uint96 faulted) = IEarnings(ledger).pendingWork(operator);
        Standing memory standing = _standings[operator];
        if (earned != 0) standing = _withWork(operator, standing, epoch, earned, faulted);
        return _scoreAt(standing, IEarnings(ledger).currentEpoch());
    }

    /// @notice Stake that backs a node's work.
    function _stakeOf(address operator) internal view virtual returns (uint256);

    /// @dev A lost dispute over `amount` lowers the score and never raises it.
    function _recordLoss(address operator, uint256 amount) internal {
        uint16 epoch = IEarnings(ledger).currentEpoch();
        Standing memory standing = _standings[operator];
        uint256 score = _scoreAt(standing, epoch) * HALF_WEIGHT / (HALF_WEIGHT + amount);
        // casting to 'uint64' is safe because a score is at most 1e18
        // forge-lint: disable-next-line(unsafe-typecast)
        _setStanding(operator, Standing(uint64(score), epoch, true));
    }

    function _setStanding(address operator, Standing memory standing) private {
        _standings[operator] = standing;
        emit ReputationChanged(operator, standing.score, standing.epoch);
    }

    /// @dev Work may be older than the score, which a lost dispute moved meanwhile: then it moves the score as it now stands.
    function _withWork(address operator, Standing memory standing, uint16 epoch, uint96 earned, uint96 faulted)
        private
        view
        returns (Standing memory)
    {
        uint256 backed = _stakeOf(operator) / LOCK_MULTIPLE;
        uint256 good = earned < backed ? earned : backed;
        uint256 bad = faulted < earned ? faulted : earned;
        if (standing.known && _isBefore(epoch, standing.epoch)) epoch = standing.epoch;
        uint256 score = _scoreAt(standing, epoch);
        if (good + bad != 0) {
            // The weighted mean of the old score, with weight HALF_WEIGHT, and of the outcomes, rounded down.
            score = (score * HALF_WEIGHT + FULL_SCORE * good) / (HALF_WEIGHT + good + bad);
        }
        // casting to 'uint64' is safe because a mean of scores is at most 1e18
        // forge-lint: disable-next-line(unsafe-typecast)
        return Standing(uint64(score), epoch, true);
    }

    /// @dev Epochs begin again after the last one: of two, the earlier is the one from which the other is less than half of them
    /// away.
    function _isBefore(uint16 epoch, uint16 other) private pure returns (bool) {
        unchecked {
            uint16 distance = other - epoch;
            return distance != 0 && distance <= type(uint16).max / 2;
        }
    }

    /// @dev The score after the epochs since its last work: its distance to the newcomer's score halves every DECAY_EPOCHS, and
    /// shrinks evenly between two halvings. The epoch right after one with work is not idle yet.
    function _scoreAt(Standing memory standing, uint16 epoch) private view returns (uint256) {
        if (!standing.known) return NEWCOMER_SCORE;
        uint256 passed;
        // Epochs begin again after the last one; the difference is right all the same.
        unchecked {
            passed = uint16(epoch - standing.epoch);
        }
        uint256 idle = passed > 1 ? passed - 1 : 0;
        bool above = standing.score >= NEWCOMER_SCORE;
        uint256 distance = above ? standing.score - NEWCOMER_SCORE : NEWCOMER_SCORE - standing.score;
        distance >>= idle / DECAY_EPOCHS;
        distance -= distance * (idle % DECAY_EPOCHS) / (2 * DECAY_EPOCHS);
        return above ? NEWCOMER_SCORE + distance : NEWCOMER_SCORE - distance;
    }
}
