// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IExaminer} from "../interfaces/IExaminer.sol";
import {IJury} from "../interfaces/IJury.sol";
import {INodeRegistry} from "../interfaces/INodeRegistry.sol";
import {Seats} from "./Seats.sol";

/// @title Draws: a block that is still to come picks the jurors
/// @notice Whoever dislikes a hash can only hope that nobody uses it while the chain remembers it, for 256 blocks: anybody may
/// draw, and whoever likes it will.
abstract contract Draws is Seats {
    /// @dev Bounds the gas of a draw. Where fewer than one seat in twenty can judge, a draw may find too few.
    uint256 private constant MAX_TRIES = 256;
    uint256 private constant KNOWN_BLOCKS = 256;

    /// @inheritdoc IJury
    address public immutable override court;
    uint48 internal immutable DRAW_PERIOD;
    uint16 internal immutable DRAW_DELAY;
    uint8 internal immutable JURY_SIZE;
    uint8 internal immutable MIN_JURY;

    mapping(bytes32 id => Case) internal _cases;
    mapping(bytes32 id => mapping(uint256 number => Round)) internal _rounds;
    mapping(bytes32 id => mapping(uint256 number => mapping(address juror => Vote))) internal _votes;

    constructor(Parameters memory p) {
        court = msg.sender;
        (DRAW_PERIOD, DRAW_DELAY, JURY_SIZE, MIN_JURY) = (p.drawPeriod, p.drawDelay, p.jurySize, p.minJury);
    }

    modifier onlyCourt() {
        if (msg.sender != court) revert JuryNotCourt(msg.sender);
        _;
    }

    /// @inheritdoc IJury
    function open(bytes32 id, IExaminer.Charge calldata charge, address challenger) external override onlyCourt {
        Case storage self = _cases[id];
        self.charge = charge;
        self.challenger = challenger;
        self.openedAt = uint48(block.timestamp);
        // casting to 'uint32' is safe because nobody pays for so many seats
        // forge-lint: disable-next-line(unsafe-typecast)
        self.numSeats = uint32(_seats.length);
        _enter(self, Phase.Known);
    }

    /// @inheritdoc IJury
    function summon(bytes32 id) external override onlyCourt {
        Case storage self = _cases[id];
        _summon(id, self, 0, self.challenger);
    }

    /// @inheritdoc IJury
    function fixDraw(bytes32 id) external override {
        (Case storage self, Round storage current) = _drawing(id);
        uint256 drawBlock = current.drawBlock;
        if (block.number <= drawBlock + KNOWN_BLOCKS) revert JuryDrawStands(id, drawBlock);
        _fixDraw(id, self.round, current);
    }

    /// @inheritdoc IJury
    function drawJury(bytes32 id) external override {
        (Case storage self, Round storage current) = _drawing(id);
        uint8 number = self.round;
        uint256 drawBlock = current.drawBlock;
        if (block.number <= drawBlock) revert JuryDrawNotReady(id, drawBlock);
        bytes32 hash = blockhash(drawBlock);
        if (hash == 0) revert JuryDrawMissed(id, drawBlock);

        address[] memory jurors = _draw(self, id, keccak256(abi.encode(hash, id, number)));
        // An appeal to fewer jurors than judged before would be a way to a jury of one's liking.
        uint256 minimum = number == 0 ? MIN_JURY : _rounds[id][number - 1].jurors.length + 1;
        if (jurors.length < minimum) {
            _enter(self, Phase.Void);
            emit JuryTooSmall(id, number, jurors.length, minimum);
            return;
        }
        current.jurors = jurors;
        for (uint256 i = 0; i < jurors.length; ++i) {
            _votes[id][number][jurors[i]].ballot = Ballot.Drawn;
        }
        _enter(self, Phase.Voting);
        emit JuryDrawn(id, number, jurors);
    }

    /// @inheritdoc IJury
    function caseOf(bytes32 id) external view override returns (Case memory) {
        return _cases[id];
    }

    /// @inheritdoc IJury
    function round(bytes32 id, uint8 number) external view override returns (Round memory) {
        return _rounds[id][number];
    }

    /// @inheritdoc IJury
    function vote(bytes32 id, uint8 number, address juror) external view override returns (Vote memory) {
        return _votes[id][number][juror];
    }

    function _summon(bytes32 id, Case storage self, uint8 number, address appellant) internal {
        self.round = number;
        _enter(self, Phase.Drawing);
        Round storage current = _rounds[id][number];
        current.appellant = appellant;
        _fixDraw(id, number, current);
    }

    function _enter(Case storage self, Phase phase) internal {
        self.phase = phase;
        self.phaseSince = uint48(block.timestamp);
    }

    function _inPhase(bytes32 id, Phase phase) internal view returns (Case storage self) {
        self = _cases[id];
        if (self.phase != phase) revert JuryWrongPhase(id, self.phase);
    }

    function _checkNow(bytes32 id, uint256 from, uint256 until) internal view {
        if (block.timestamp < from || block.timestamp >= until) revert JuryNotNow(id, from, until);
    }

    /// @dev The block is still to come, so nobody knows its hash.
    function _fixDraw(bytes32 id, uint8 number, Round storage current) private {
        uint64 drawBlock = uint64(block.number) + DRAW_DELAY;
        current.drawBlock = drawBlock;
        emit DrawFixed(id, number, drawBlock);
    }

    function _drawing(bytes32 id) private view returns (Case storage self, Round storage current) {
        self = _inPhase(id, Phase.Drawing);
        _checkNow(id, self.phaseSince, self.phaseSince + DRAW_PERIOD);
        current = _rounds[id][self.round];
    }

    /// @dev Try i leads to the same seat whatever happened to the seats since the dispute was opened.
    function _draw(Case storage self, bytes32 id, bytes32 seed) private view returns (address[] memory drawn) {
        uint256 wanted = ((uint256(JURY_SIZE) + 1) << self.round) - 1;
        uint256 seats = self.numSeats;
        drawn = new address[](wanted);
        uint256 found;
        for (uint256 i = 0; i < MAX_TRIES && found < wanted && seats != 0; ++i) {
            Seat memory tried = _seats[uint256(keccak256(abi.encode(seed, i))) % seats];
            if (_contains(drawn, found, tried.operator) || _hasAppealed(self, id, tried.operator)) continue;
            if (_mayJudge(self, tried)) drawn[found++] = tried.operator;
        }
        _shorten(drawn, found);
    }

    /// @dev In this round or in one before it.
    function _hasAppealed(Case storage self, bytes32 id, address operator) private view returns (bool) {
        for (uint256 i = 1; i <= self.round; ++i) {
            if (_rounds[id][i].appellant == operator) return true;
        }
        return false;
    }

    /// @dev Cuts an array in place.
    function _shorten(address[] memory array, uint256 length) internal pure {
        // The word in front of an array is its length; a smaller one leaves all that is in use inside what was allocated.
        assembly ("memory-safe") {
            mstore(array, length)
        }
    }

    /// @dev No party judges, nobody who came to the dispute, and nobody without the layers.
    function _mayJudge(Case storage self, Seat memory tried) private view returns (bool) {
        address operator = tried.operator;
        if (operator == address(0) || tried.since >= self.openedAt || operator == self.challenger) return false;
        IExaminer.Charge storage charge = self.charge;
        if (operator == charge.accused || operator == charge.gateway || operator == charge.payer) return false;
        if (!nodes.isActive(operator, AUDITOR)) return false;
        INodeRegistry.Offer memory held = nodes.offer(operator, charge.model, charge.numericProfile);
        return held.firstLayer <= charge.firstLayer && charge.endLayer <= held.endLayer;
    }

    function _contains(address[] memory jurors, uint256 length, address operator) private pure returns (bool) {
        for (uint256 i = 0; i < length; ++i) {
            if (jurors[i] == operator) return true;
        }
        return false;
    }
}
