// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IComputeDisputes} from "../interfaces/IComputeDisputes.sol";
import {IExaminer} from "../interfaces/IExaminer.sol";
import {IJury} from "../interfaces/IJury.sol";
import {InferenceRequest} from "../libraries/Messages.sol";
import {BadRecords} from "./BadRecords.sol";

/// @title Disputes: who accuses whom of what, and who puts up what for it
abstract contract Disputes is BadRecords {
    /// @inheritdoc IComputeDisputes
    IJury public immutable override jury;
    uint48 internal immutable DISPUTE_PERIOD;
    uint48 internal immutable OPENING_PERIOD;
    uint16 internal immutable CAP_BPS;
    uint96 internal immutable DISPUTE_BOND;
    uint256 private immutable LONGEST_DISPUTE;

    mapping(bytes32 id => Dispute) internal _disputes;
    mapping(bytes32 id => Bond[]) internal _bonds;
    /// @inheritdoc IComputeDisputes
    mapping(bytes32 assignment => mapping(uint32 chunk => bytes32)) public override disputeOver;
    /// @inheritdoc IComputeDisputes
    mapping(bytes32 assignment => bool) public override isConvicted;
    /// @inheritdoc IComputeDisputes
    mapping(bytes32 id => bytes32) public override disputeBefore;
    mapping(address accused => bytes32 id) private _newestAgainst;

    constructor(IJury jury_, DisputeParameters memory p) {
        jury = jury_;
        (DISPUTE_PERIOD, OPENING_PERIOD) = (p.disputePeriod, p.openingPeriod);
        (CAP_BPS, DISPUTE_BOND) = (p.capBps, p.disputeBond);
        IJury.Parameters memory j = jury_.parameters();
        uint256 round = uint256(j.drawPeriod) + j.commitPeriod + j.revealPeriod + j.appealPeriod;
        LONGEST_DISPUTE = p.openingPeriod + round * j.maxRounds;
    }

    /// @inheritdoc IComputeDisputes
    function openDispute(IExaminer.Evidence calldata, InferenceRequest calldata, uint32 chunk)
        external
        override
        nonReentrant
        returns (bytes32 id)
    {
        IExaminer.Charge memory charge = abi.decode(_examine(IExaminer.chargeOf.selector), (IExaminer.Charge));
        bytes32 assignment = charge.assignment;
        uint256 until = uint256(charge.endedAt) + DISPUTE_PERIOD;
        if (block.timestamp > until) revert DisputeCourtTooLate(assignment, until);
        if (isConvicted[assignment]) revert DisputeCourtAlreadyConvicted(assignment);
        id = _nextId(assignment, chunk);
        disputeOver[assignment][chunk] = id;
        disputeBefore[id] = _newestAgainst[charge.accused];
        _newestAgainst[charge.accused] = id;

        uint96 cap = _capOf(charge.accused);
        Dispute storage self = _disputes[id];
        (self.accused, self.openedAt, self.phase) = (charge.accused, uint48(block.timestamp), Phase.Opening);
        (self.challenger, self.cap) = (msg.sender, cap);
        (self.payer, self.cost) = (charge.payer, charge.cost);
        self.assignment = assignment;
        emit DisputeOpened(id, charge.accused, msg.sender, assignment, charge.receipt, chunk, cap, DISPUTE_BOND);
        // The jury knows the dispute before the token is in control: the accused may answer at once.
        jury.open(id, charge, msg.sender);
        _putUp(id, DISPUTE_BOND);
    }

    /// @inheritdoc IComputeDisputes
    function publishOpening(bytes32 id, string calldata cid) external override {
        Dispute storage self = _disputes[id];
        if (self.phase != Phase.Opening) revert DisputeCourtWrongPhase(id, self.phase);
        address accused = self.accused;
        // Who is not registered any more still speaks for itself.
        if (msg.sender != accused && nodes.operatorOf(msg.sender) != accused) {
            revert DisputeCourtNotAccused(id, msg.sender);
        }
        uint256 until = self.openedAt + OPENING_PERIOD;
        if (block.timestamp >= until) revert DisputeCourtNotNow(id, self.openedAt, until);
        self.phase = Phase.Trial;
        emit OpeningPublished(id, cid);
        jury.summon(id);
    }

    /// @inheritdoc IComputeDisputes
    function appeal(bytes32 id) external override nonReentrant {
        uint8 number = jury.summonAgain(id, msg.sender);
        uint96 amount = 2 * _bonds[id][number - 1].amount;
        emit Appealed(id, number, msg.sender, amount);
        _putUp(id, amount);
    }

    /// @inheritdoc IComputeDisputes
    function dispute(bytes32 id) external view override returns (Dispute memory) {
        return _disputes[id];
    }

    /// @inheritdoc IComputeDisputes
    function bond(bytes32 id, uint8 round) external view override returns (Bond memory) {
        return _bonds[id][round];
    }

    function _putUp(bytes32 id, uint96 amount) private {
        _bonds[id].push(Bond(msg.sender, amount));
        _pullBond(amount);
    }

    /// @dev A dispute that found nothing does not stand in the way: else the accused would have a friend open one at a time when
    /// too few jurors are there. Each dispute over a chunk is named by the one before it.
    function _nextId(bytes32 assignment, uint32 chunk) private view returns (bytes32) {
        bytes32 last = disputeOver[assignment][chunk];
        Dispute storage previous = _disputes[last];
        if (last != 0 && (previous.phase != Phase.Ended || previous.verdict != IJury.Verdict.None)) {
            revert DisputeCourtAlreadyDisputed(last);
        }
        return keccak256(abi.encode(assignment, chunk, last));
    }

    /// @dev No dispute ends later for it: the one before was opened no later and lasts no longer.
    function _checkTurn(bytes32 id) internal view {
        bytes32 earlier = disputeBefore[id];
        Dispute storage before = _disputes[earlier];
        if (earlier == 0 || before.phase == Phase.Ended) return;
        if (block.timestamp < before.openedAt + LONGEST_DISPUTE) revert DisputeCourtNotNext(id, earlier);
    }

    function _capOf(address accused) private view returns (uint96) {
        uint256 cap = _stakeOf(accused) * CAP_BPS / ALL_BPS;
        if (cap < DISPUTE_BOND) revert DisputeCourtTooLittleStake(accused, cap, DISPUTE_BOND);
        // casting to 'uint96' is safe because there are no more credits than that
        // forge-lint: disable-next-line(unsafe-typecast)
        return uint96(cap);
    }
}
