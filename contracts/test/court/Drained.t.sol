// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IComputeDisputes} from "../../src/interfaces/IComputeDisputes.sol";
import {IExaminer} from "../../src/interfaces/IExaminer.sol";
import {IJury} from "../../src/interfaces/IJury.sol";
import {InferenceReceipt} from "../../src/libraries/Messages.sol";
import {Disputed} from "../helpers/Disputed.sol";

/// @notice The accused has a friend accuse it of other work, which it made up, and says nothing: it is convicted at once, and most
/// of its stake comes back to the friend. Nothing must be gone when the true dispute is decided.
contract DrainedTest is Disputed {
    address internal friend = _person("friend");
    uint256 internal stake;

    function setUp() public override {
        super.setUp();
        _fund(friend);
        stake = nodes.node(worker).stake;
    }

    /// @dev A dispute over work that a friend ordered and priced at all there is.
    function _accuseItself(uint64 nonce) internal returns (bytes32) {
        work.request.session = bytes32(uint256(uint160(friend)) << 96);
        work.request.nonce = nonce;
        work.assignment.request = ledger.hashRequest(work.request);
        work.assignmentSignature = _signature(STRANGER_KEY, ledger.hashAssignment(work.assignment));
        receipt.cost = type(uint128).max;
        _commit();
        IExaminer.Evidence memory evidence = _evidence();
        evidence.gateway = stranger;
        vm.prank(friend);
        return court.openDispute(evidence, work.request, 0);
    }

    function test_AnEarlierDisputeIsExecutedFirst() public {
        bytes32 dispute = _trial();
        bytes32 first = _accuseItself(1);
        bytes32 second = _accuseItself(2);
        vm.assertEq(court.disputeBefore(second), first);
        vm.assertEq(court.disputeBefore(first), dispute);
        vm.warp(vm.getBlockTimestamp() + 6 hours);
        vm.expectRevert(abi.encodeWithSelector(IComputeDisputes.DisputeCourtNotNext.selector, first, dispute));
        court.finalize(first);
        vm.expectRevert(abi.encodeWithSelector(IComputeDisputes.DisputeCourtNotNext.selector, second, first));
        court.finalize(second);

        vm.warp(vm.getBlockTimestamp() - 6 hours);
        _voteAll(dispute, GUILTY);
        _finalize(dispute);
        vm.assertEq(_verdict(dispute), uint256(IJury.Verdict.Convicted));
        vm.assertEq(nodes.node(worker).stake, stake - stake / 2, "all of the cap");
        vm.assertEq(court.balanceOf(payer), COST);
        court.finalize(first);
        court.finalize(second);
    }

    /// @dev Whoever opened a dispute and forgot it holds up nobody for longer than it could have lasted.
    function test_ADisputeThatNobodyFinalizesIsPassed() public {
        _dispute(1);
        uint256 openedAt = vm.getBlockTimestamp();
        bytes32 later = _dispute(2);
        vm.warp(openedAt + 6 hours + 3 * 31 hours - 1);
        vm.expectRevert();
        court.finalize(later);
        vm.warp(openedAt + 6 hours + 3 * 31 hours);
        court.finalize(later);
    }
}
