// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IDisputeCourt} from "../interfaces/IDisputeCourt.sol";
import {INodeRegistry} from "../interfaces/INodeRegistry.sol";
import {InferenceReceipt} from "../libraries/Messages.sol";
import {Bonds} from "./Bonds.sol";

/// @title Equivocation: two different receipts for one assignment
abstract contract Equivocation is Bonds {
    uint256 internal immutable EQUIVOCATION_BPS;
    uint256 internal immutable REWARD_BPS;
    uint48 internal immutable JAIL_PERIOD;

    /// @inheritdoc IDisputeCourt
    mapping(address operator => mapping(bytes32 assignment => bool)) public override equivocated;

    constructor(Parameters memory p) {
        (EQUIVOCATION_BPS, REWARD_BPS, JAIL_PERIOD) = (p.equivocationBps, p.rewardBps, p.jailPeriod);
    }

    /// @inheritdoc IDisputeCourt
    function proveEquivocation(
        InferenceReceipt calldata first,
        bytes calldata firstSignature,
        InferenceReceipt calldata second,
        bytes calldata secondSignature
    ) external override nonReentrant {
        bytes32 assignment = first.assignment;
        if (second.assignment != assignment) revert DisputeCourtOtherAssignment(assignment, second.assignment);
        bytes32 digest = ledger.hashReceipt(first);
        bytes32 other = ledger.hashReceipt(second);
        // The same words signed twice are one receipt, however the signatures differ.
        if (digest == other) revert DisputeCourtSameReceipt(digest);
        address operator = first.node;
        _checkSignedBy(operator, digest, firstSignature);
        _checkSignedBy(operator, other, secondSignature);
        if (equivocated[operator][assignment]) revert DisputeCourtAlreadyProved(operator, assignment);
        equivocated[operator][assignment] = true;

        (uint128 taken, uint128 reward) = _punish(operator);
        emit EquivocationProved(operator, assignment, msg.sender, taken, reward);
    }

    /// @dev What it costs to be convicted by one's own signatures.
    function _punish(address operator) internal returns (uint128 taken, uint128 reward) {
        uint256 amount = _stakeOf(operator) * EQUIVOCATION_BPS / ALL_BPS;
        (taken, reward) = _slash(operator, amount, msg.sender, amount * REWARD_BPS / ALL_BPS);
        nodes.recordLoss(operator, amount);
        nodes.jail(operator, uint48(block.timestamp) + JAIL_PERIOD);
    }

    /// @dev Stake at work and thawing: what there is to take.
    function _stakeOf(address operator) internal view returns (uint256) {
        INodeRegistry.Node memory node = nodes.node(operator);
        return uint256(node.stake) + node.thawing;
    }
}
