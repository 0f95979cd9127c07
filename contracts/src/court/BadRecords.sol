// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IComputeDisputes} from "../interfaces/IComputeDisputes.sol";
import {IExaminer} from "../interfaces/IExaminer.sol";
import {Equivocation} from "./Equivocation.sol";
import {Address} from "@openzeppelin/contracts/utils/Address.sol";

/// @title Bad records: a node's signed records contradict its assignment, its receipt or each other
/// @notice Records of two neighbours that do not fit each other are not judged here: one of them lies, and nothing on chain tells
/// which.
abstract contract BadRecords is IComputeDisputes, Equivocation {
    using Address for address;

    /// @inheritdoc IComputeDisputes
    IExaminer public immutable override examiner;

    /// @inheritdoc IComputeDisputes
    mapping(address operator => mapping(bytes32 assignment => bool)) public override hasBadRecords;

    constructor(IExaminer examiner_) {
        examiner = examiner_;
    }

    /// @inheritdoc IComputeDisputes
    function proveBadRecord(IExaminer.Evidence calldata, uint256 index) external override nonReentrant {
        (address operator, bytes32 assignment, IExaminer.Flaw flaw) =
            abi.decode(_examine(IExaminer.flawOf.selector), (address, bytes32, IExaminer.Flaw));
        if (flaw == IExaminer.Flaw.None) revert DisputeCourtNoFlaw(index);
        if (hasBadRecords[operator][assignment]) revert DisputeCourtAlreadyProved(operator, assignment);
        hasBadRecords[operator][assignment] = true;
        (uint128 taken, uint128 reward) = _punish(operator);
        emit BadRecordProved(operator, assignment, msg.sender, flaw, index, taken, reward);
    }

    /// @dev Asks the examiner with the arguments of the present call, as they came: both functions take the same ones.
    function _examine(bytes4 selector) internal view returns (bytes memory) {
        return address(examiner).functionStaticCall(abi.encodePacked(selector, msg.data[4:]));
    }
}
