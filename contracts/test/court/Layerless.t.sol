// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IExaminer} from "../../src/interfaces/IExaminer.sol";
import {Disputed} from "../helpers/Disputed.sol";

/// @notice Accuser and accused may be friends and make up the assignment: jurors must not be drawn for what nobody can rerun, and
/// fined for their silence.
contract LayerlessTest is Disputed {
    function _openLayers(uint16 firstLayer, uint16 endLayer) internal {
        (work.assignment.firstLayer, work.assignment.endLayer) = (firstLayer, endLayer);
        work.assignmentSignature = _signature(GATEWAY_SIGNER_KEY, ledger.hashAssignment(work.assignment));
        _commit();
        IExaminer.Evidence memory evidence = _evidence();
        vm.expectRevert(abi.encodeWithSelector(IExaminer.ExaminerNoLayers.selector, firstLayer, endLayer));
        vm.prank(challenger);
        court.openDispute(evidence, work.request, 1);
    }

    /// @dev Who offers nothing has the empty offer, of layers 0 to 0.
    function test_RevertWhen_AStageWithoutLayersIsDisputed() public {
        _openLayers(0, 0);
    }

    function test_RevertWhen_TheLayersRunBackwards() public {
        _openLayers(5, 3);
    }
}
