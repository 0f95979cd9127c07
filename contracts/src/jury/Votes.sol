// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IJury} from "../interfaces/IJury.sol";
import {Draws} from "./Draws.sol";

/// @title Votes: jurors commit to what they measured, then show it
abstract contract Votes is Draws {
    /// @dev The slashing threshold, in the unit of distances.
    uint256 internal constant THRESHOLD = 1e6;

    uint48 internal immutable COMMIT_PERIOD;
    uint48 internal immutable REVEAL_PERIOD;
    uint48 internal immutable APPEAL_PERIOD;
    uint8 internal immutable MAX_ROUNDS;
    uint32 internal immutable WARNING_SHARE;

    constructor(Parameters memory p) {
        (COMMIT_PERIOD, REVEAL_PERIOD, APPEAL_PERIOD) = (p.commitPeriod, p.revealPeriod, p.appealPeriod);
        (MAX_ROUNDS, WARNING_SHARE) = (p.maxRounds, p.warningShare);
    }

    /// @inheritdoc IJury
    function commitVote(bytes32 id, bytes32 commitment) external override {
        Case storage self = _inPhase(id, Phase.Voting);
        _checkNow(id, self.phaseSince, self.phaseSince + COMMIT_PERIOD);
        (Vote storage own, address juror) = _voteOf(id, self.round, Ballot.Drawn);
        (own.commitment, own.ballot) = (commitment, Ballot.Committed);
        emit VoteCommitted(id, self.round, juror, commitment);
    }

    /// @inheritdoc IJury
    function revealVote(bytes32 id, uint64 distance, bytes32 sketchHash, bytes32 salt) external override {
        Case storage self = _inPhase(id, Phase.Voting);
        uint256 from = self.phaseSince + COMMIT_PERIOD;
        _checkNow(id, from, from + REVEAL_PERIOD);
        uint8 number = self.round;
        (Vote storage own, address juror) = _voteOf(id, number, Ballot.Committed);
        bytes32 revealed =
            keccak256(abi.encode(block.chainid, address(this), id, number, juror, distance, sketchHash, salt));
        if (revealed != own.commitment) revert JuryWrongReveal(own.commitment, revealed);
        (own.distance, own.ballot) = (distance, Ballot.Revealed);
        Round storage current = _rounds[id][number];
        if (distance > THRESHOLD) ++current.numGuilty;
        else if (distance >= WARNING_SHARE) ++current.numWarning;
        else ++current.numClear;
        emit VoteRevealed(id, number, juror, distance, sketchHash);
    }

    /// @inheritdoc IJury
    function summonAgain(bytes32 id, address appellant) external override onlyCourt returns (uint8 number) {
        Case storage self = _inPhase(id, Phase.Voting);
        number = self.round + 1;
        if (number == MAX_ROUNDS) revert JuryLastRound(id);
        uint256 from = self.phaseSince + COMMIT_PERIOD + REVEAL_PERIOD;
        _checkNow(id, from, from + APPEAL_PERIOD);
        _summon(id, self, number, appellant);
    }

    /// @inheritdoc IJury
    function closesAt(bytes32 id) public view override returns (uint256) {
        Case storage self = _cases[id];
        uint256 since = self.phaseSince;
        if (self.phase == Phase.Void) return since;
        if (self.phase == Phase.Drawing) return since + DRAW_PERIOD;
        if (self.phase != Phase.Voting) revert JuryWrongPhase(id, self.phase);
        uint256 revealed = since + COMMIT_PERIOD + REVEAL_PERIOD;
        return self.round + 1 == MAX_ROUNDS ? revealed : revealed + APPEAL_PERIOD;
    }

    /// @dev The silent count among the jurors: who wants no verdict is no better off by silence than by a vote.
    function _verdictOf(Round storage self) internal view returns (Verdict) {
        uint256 needed = 2 * self.jurors.length;
        (uint256 guilty, uint256 warning, uint256 clear) = (self.numGuilty, self.numWarning, self.numClear);
        if (needed == 0) return Verdict.None;
        if (3 * guilty >= needed) return Verdict.Convicted;
        if (3 * (guilty + warning) >= needed) return Verdict.Warned;
        return 3 * clear >= needed ? Verdict.Acquitted : Verdict.None;
    }

    /// @dev The vote of the juror that the caller is or signs for.
    function _voteOf(bytes32 id, uint8 number, Ballot expected) private view returns (Vote storage own, address juror) {
        juror = msg.sender;
        if (_votes[id][number][juror].ballot == Ballot.NotDrawn) juror = nodes.operatorOf(msg.sender);
        own = _votes[id][number][juror];
        if (own.ballot == Ballot.NotDrawn) revert JuryNotJuror(id, msg.sender);
        if (own.ballot != expected) revert JuryWrongBallot(id, juror, own.ballot);
    }
}
