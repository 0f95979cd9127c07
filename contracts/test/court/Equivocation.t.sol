// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {DisputeCourt} from "../../src/DisputeCourt.sol";
import {IDisputeCourt} from "../../src/interfaces/IDisputeCourt.sol";
import {IInferenceLedger} from "../../src/interfaces/IInferenceLedger.sol";
import {INodeRegistry} from "../../src/interfaces/INodeRegistry.sol";
import {InferenceReceipt} from "../../src/libraries/Messages.sol";
import {Served} from "../helpers/Served.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";

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
        vm.expectRevert(abi.encodeWithSelector(selector, worker, stranger));
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

    // The constructor

    function test_KeepsItsParameters() public view {
        vm.assertEq(keccak256(abi.encode(court.parameters())), keccak256(abi.encode(_courtParameters())));
        vm.assertEq(address(court.token()), address(token));
        vm.assertEq(address(court.nodes()), address(nodes));
        vm.assertEq(address(court.ledger()), address(ledger));
        vm.assertEq(court.treasury(), treasury);
    }

    function test_RevertWhen_AnAddressIsZero() public {
        IDisputeCourt.Parameters memory p = _courtParameters();
        bytes4 selector = IDisputeCourt.DisputeCourtZeroAddress.selector;
        vm.expectRevert(selector);
        new DisputeCourt(IERC20(address(0)), nodes, ledger, treasury, p);
        vm.expectRevert(selector);
        new DisputeCourt(token, INodeRegistry(address(0)), ledger, treasury, p);
        vm.expectRevert(selector);
        new DisputeCourt(token, nodes, IInferenceLedger(address(0)), treasury, p);
        vm.expectRevert(selector);
        new DisputeCourt(token, nodes, ledger, address(0), p);
    }

    function test_EveryParameterIsBounded() public {
        _bounds(0, "answerPeriod", 10 minutes, 2 days);
        _bounds(1, "challengePeriod", 10 minutes, RETENTION - 12 hours);
        _bounds(2, "evidencePeriod", 10 minutes, STAKE_THAW);
        _bounds(3, "jailPeriod", 1, 365 days);
        _bounds(4, "challengeBond", 1, 1_000e18);
        _bounds(5, "equivocationBps", 1, 10_000);
        _bounds(6, "rewardBps", 0, 5_000);
        _bounds(7, "fineBps", 0, 10_000);
    }

    function _bounds(uint256 index, string memory name, uint256 minimum, uint256 maximum) internal {
        _make(index, minimum);
        _make(index, maximum);
        bytes4 selector = IDisputeCourt.DisputeCourtParameterOutOfBounds.selector;
        if (minimum != 0) {
            vm.expectRevert(abi.encodeWithSelector(selector, name, minimum - 1, minimum, maximum));
            _make(index, minimum - 1);
        }
        vm.expectRevert(abi.encodeWithSelector(selector, name, maximum + 1, minimum, maximum));
        _make(index, maximum + 1);
    }

    function _make(uint256 index, uint256 value) internal {
        IDisputeCourt.Parameters memory p = _courtParameters();
        if (index == 0) p.answerPeriod = uint48(value);
        if (index == 1) p.challengePeriod = uint48(value);
        if (index == 2) p.evidencePeriod = uint48(value);
        if (index == 3) p.jailPeriod = uint48(value);
        if (index == 4) p.challengeBond = uint96(value);
        if (index == 5) p.equivocationBps = uint16(value);
        if (index == 6) p.rewardBps = uint16(value);
        if (index == 7) p.fineBps = uint16(value);
        new DisputeCourt(token, nodes, ledger, treasury, p);
    }
}
