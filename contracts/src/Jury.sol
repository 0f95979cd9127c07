// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IJury} from "./interfaces/IJury.sol";
import {INodeRegistry} from "./interfaces/INodeRegistry.sol";
import {Draws} from "./jury/Draws.sol";
import {Seats} from "./jury/Seats.sol";
import {Votes} from "./jury/Votes.sol";

/// @title Who judges, what they measured, and who of them was right
/// @dev One layer per step, each using the ones before it: Seats, Draws, Votes. The court makes this contract and checks its
/// parameters; the two are apart because the code of both would not fit into one.
contract Jury is Votes {
    uint32 internal immutable TOLERANCE;

    constructor(INodeRegistry nodes_, Parameters memory p) Seats(nodes_) Draws(p) Votes(p) {
        TOLERANCE = p.tolerance;
    }

    /// @inheritdoc IJury
    function close(bytes32 id)
        external
        override
        onlyCourt
        returns (Verdict verdict, uint256 upheld, address[] memory right, address[] memory wrong)
    {
        _checkNow(id, closesAt(id), type(uint256).max);
        Case storage self = _cases[id];
        _enter(self, Phase.Closed);
        uint256 deciding;
        for (uint256 i = 0; i <= self.round; ++i) {
            Verdict found = _verdictOf(_rounds[id][i]);
            if (found == Verdict.None) continue;
            if (found == verdict) upheld |= 2 ** i;
            (verdict, deciding) = (found, i);
        }
        uint256 median = verdict == Verdict.None ? 0 : _median(id, deciding, verdict);
        (right, wrong) = _sort(id, uint256(self.round) + 1, verdict, median);
    }

    /// @inheritdoc IJury
    function parameters() external view override returns (Parameters memory) {
        return Parameters({
            drawPeriod: DRAW_PERIOD,
            commitPeriod: COMMIT_PERIOD,
            revealPeriod: REVEAL_PERIOD,
            appealPeriod: APPEAL_PERIOD,
            drawDelay: DRAW_DELAY,
            jurySize: JURY_SIZE,
            minJury: MIN_JURY,
            maxRounds: MAX_ROUNDS,
            warningShare: WARNING_SHARE,
            tolerance: TOLERANCE
        });
    }

    /// @dev Jurors of all rounds are held to the last verdict, by their distance from the median alone: who measured a hair below
    /// the threshold while the others measured a hair above it was as right as they. Without a verdict nobody knows who
    /// was right, and only the silent lose.
    function _sort(bytes32 id, uint256 numRounds, Verdict verdict, uint256 median)
        private
        view
        returns (address[] memory right, address[] memory wrong)
    {
        // Without a verdict every distance is near.
        uint256 spread = type(uint256).max;
        if (verdict != Verdict.None) spread = (median < THRESHOLD ? THRESHOLD : median) * TOLERANCE / THRESHOLD;
        uint256 numJurors;
        for (uint256 i = 0; i < numRounds; ++i) {
            numJurors += _rounds[id][i].jurors.length;
        }
        right = new address[](numJurors);
        wrong = new address[](numJurors);
        (uint256 numRight, uint256 numWrong) = (0, 0);
        for (uint256 i = 0; i < numRounds; ++i) {
            address[] memory jurors = _rounds[id][i].jurors;
            for (uint256 j = 0; j < jurors.length; ++j) {
                if (_isNear(_votes[id][i][jurors[j]], median, spread)) right[numRight++] = jurors[j];
                else wrong[numWrong++] = jurors[j];
            }
        }
        _shorten(right, numRight);
        _shorten(wrong, numWrong);
    }

    function _isNear(Vote storage given, uint256 median, uint256 spread) private view returns (bool) {
        uint256 distance = given.distance;
        uint256 difference = distance < median ? median - distance : distance - median;
        return given.ballot == Ballot.Revealed && difference <= spread;
    }

    /// @dev The lower median of the distances of those who made the verdict.
    function _median(bytes32 id, uint256 number, Verdict verdict) private view returns (uint256) {
        address[] memory jurors = _rounds[id][number].jurors;
        uint256[] memory sorted = new uint256[](jurors.length);
        uint256 length;
        for (uint256 i = 0; i < jurors.length; ++i) {
            Vote storage given = _votes[id][number][jurors[i]];
            uint256 distance = given.distance;
            if (given.ballot != Ballot.Revealed || !_agrees(distance, verdict)) continue;
            uint256 place = length++;
            for (; place > 0 && sorted[place - 1] > distance; --place) {
                sorted[place] = sorted[place - 1];
            }
            sorted[place] = distance;
        }
        return sorted[(length - 1) / 2];
    }

    function _agrees(uint256 distance, Verdict verdict) private view returns (bool) {
        if (verdict == Verdict.Convicted) return distance > THRESHOLD;
        return verdict == Verdict.Warned ? distance >= WARNING_SHARE : distance < WARNING_SHARE;
    }
}
