// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IDisputeCourt} from "../../src/interfaces/IDisputeCourt.sol";
import {InferenceReceipt} from "../../src/libraries/Messages.sol";
import {Served} from "../helpers/Served.sol";

contract EquivocationTest is Served {
    InferenceReceipt internal first;
    InferenceReceipt internal second;

    function setUp() public override {
        super.setUp();
        first = _receipt(_work(0, 0, 0));
        second = first;
        second.outputs = keccak256("other");
    }

    function _prove() internal {
        bytes memory one = _signature(WORKER_SIGNER_KEY, ledger.hashReceipt(first));
        bytes memory two = _signature(WORKER_SIGNER_KEY, ledger.hashReceipt(second));
        vm.prank(stranger);
        court.proveEquivocation(first, one, second, two);
    }

    function test_TwoReceiptsForOneAssignmentCostHalfTheStake() public {
        vm.prank(worker);
        nodes.beginUnstake(400e18);
        vm.expectEmit();
        emit IDisputeCourt.EquivocationProved(worker, first.assignment, stranger, 500e18, 100e18);
        _prove();
        vm.assertEq(nodes.node(worker).stake, 100e18);
        vm.assertEq(nodes.node(worker).thawing, 400e18);
        vm.assertEq(court.balanceOf(stranger), 100e18);
        vm.assertEq(court.balanceOf(treasury), 400e18);
        vm.assertTrue(court.equivocated(worker, first.assignment));
        vm.assertFalse(nodes.isActive(worker, WORKER));
        vm.assertEq(nodes.jailedUntil(worker), block.timestamp + 30 days);
        vm.assertTrue(nodes.reputation(worker) < 0.5e18);
        vm.warp(block.timestamp + 30 days);
        vm.assertTrue(nodes.isActive(worker, WORKER));
    }

    function test_HalfOfAnOddStakeIsRoundedDown() public {
        vm.prank(worker);
        nodes.addStake(1);
        _prove();
        vm.assertEq(nodes.node(worker).stake, 500e18 + 1);
    }

    /// @notice There is nothing to take, and it is jailed all the same.
    function test_ANodeWithoutStakeIsJailed() public {
        uint128 stake = nodes.node(worker).stake;
        vm.prank(address(court));
        nodes.slash(worker, stake, address(0x22));
        _prove();
        vm.assertTrue(court.equivocated(worker, first.assignment));
        vm.assertEq(nodes.jailedUntil(worker), block.timestamp + 30 days);
        vm.assertEq(court.balanceOf(stranger), 0);
    }

    function test_RevertWhen_ProvedTwice() public {
        _prove();
        bytes4 selector = IDisputeCourt.DisputeCourtAlreadyProved.selector;
        bytes memory one = _signature(WORKER_SIGNER_KEY, ledger.hashReceipt(first));
        bytes memory two = _signature(WORKER_SIGNER_KEY, ledger.hashReceipt(second));
        vm.expectRevert(abi.encodeWithSelector(selector, worker, first.assignment));
        court.proveEquivocation(second, two, first, one);
    }

    function test_RevertWhen_ItIsOneReceipt() public {
        second = first;
        bytes32 digest = ledger.hashReceipt(first);
        bytes memory one = _signature(WORKER_SIGNER_KEY, digest);
        vm.expectRevert(abi.encodeWithSelector(IDisputeCourt.DisputeCourtSameReceipt.selector, digest));
        court.proveEquivocation(first, one, second, one);
    }

    function test_RevertWhen_TheAssignmentsDiffer() public {
        second.assignment = keccak256("other");
        bytes4 selector = IDisputeCourt.DisputeCourtOtherAssignment.selector;
        vm.expectRevert(abi.encodeWithSelector(selector, first.assignment, second.assignment));
        court.proveEquivocation(first, "", second, "");
    }

    function test_RevertWhen_OneIsSignedBySomeoneElse() public {
        bytes memory one = _signature(WORKER_SIGNER_KEY, ledger.hashReceipt(first));
        bytes memory two = _signature(STRANGER_KEY, ledger.hashReceipt(second));
        bytes4 selector = IDisputeCourt.DisputeCourtNotSignedBy.selector;
        vm.expectRevert(abi.encodeWithSelector(selector, worker, stranger));
        court.proveEquivocation(first, one, second, two);
        one = _signature(STRANGER_KEY, ledger.hashReceipt(first));
        two = _signature(WORKER_SIGNER_KEY, ledger.hashReceipt(second));
        vm.expectRevert(abi.encodeWithSelector(selector, worker, stranger));
        court.proveEquivocation(first, one, second, two);
    }

    function test_RevertWhen_NobodyIsAccusedByNoSignature() public {
        (first.node, second.node) = (address(0), address(0));
        vm.expectRevert(abi.encodeWithSelector(IDisputeCourt.DisputeCourtNotSignedBy.selector, address(0), address(0)));
        court.proveEquivocation(first, "", second, "");
    }

    /// @dev Who is nobody's signer does not speak for nobody.
    function test_RevertWhen_NoOperatorIsNamed() public {
        (first.node, second.node) = (address(0), address(0));
        bytes memory one = _signature(STRANGER_KEY, ledger.hashReceipt(first));
        bytes memory two = _signature(STRANGER_KEY, ledger.hashReceipt(second));
        bytes4 selector = IDisputeCourt.DisputeCourtNotSignedBy.selector;
        vm.expectRevert(abi.encodeWithSelector(selector, address(0), stranger));
        court.proveEquivocation(first, one, second, two);
    }

    function test_AStolenOldKeyFramesNobody() public {
        vm.prank(worker);
        nodes.setSigner(stranger);
        vm.warp(block.timestamp + 7 days + 1);
        bytes memory one = _signature(WORKER_SIGNER_KEY, ledger.hashReceipt(first));
        bytes memory two = _signature(WORKER_SIGNER_KEY, ledger.hashReceipt(second));
        vm.expectRevert(abi.encodeWithSelector(IDisputeCourt.DisputeCourtNotSignedBy.selector, worker, workerKey));
        court.proveEquivocation(first, one, second, two);
    }
}
