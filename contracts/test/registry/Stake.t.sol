// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {INodeRegistry} from "../../src/interfaces/INodeRegistry.sol";
import {Base} from "../helpers/Base.sol";

/// @notice addStake, beginUnstake, cancelUnstake, withdraw.
contract StakeTest is Base {
    function setUp() public override {
        super.setUp();
        _registerWorker();
    }

    function test_AddStake(uint128 amount) public {
        amount = uint128(_bound(amount, 1, FUNDS - MIN_WORKER));
        vm.expectEmit();
        emit INodeRegistry.StakeAdded(worker, amount, MIN_WORKER + amount);
        vm.prank(worker);
        nodes.addStake(amount);
        vm.assertEq(nodes.node(worker).stake, MIN_WORKER + amount);
        vm.assertEq(nodes.totalStaked(), MIN_WORKER + amount);
        vm.assertEq(token.balanceOf(address(nodes)), MIN_WORKER + amount);
    }

    function test_RevertWhen_AddedStakeIsMoreThanTheWalletHolds() public {
        vm.expectRevert();
        vm.prank(worker);
        nodes.addStake(uint128(FUNDS));
    }

    function test_BeginUnstake(uint128 amount) public {
        amount = uint128(_bound(amount, 1, MIN_WORKER));
        uint48 thawEndsAt = uint48(block.timestamp) + STAKE_THAW;
        vm.expectEmit();
        emit INodeRegistry.UnstakeBegun(worker, amount, MIN_WORKER - amount, amount, thawEndsAt);
        vm.prank(worker);
        nodes.beginUnstake(amount);
        INodeRegistry.Node memory node = nodes.node(worker);
        vm.assertEq(node.stake, MIN_WORKER - amount);
        vm.assertEq(node.thawing, amount);
        vm.assertEq(node.thawEndsAt, thawEndsAt);
        vm.assertFalse(nodes.isActive(worker, WORKER));
        vm.assertEq(nodes.totalStaked(), MIN_WORKER);
    }

    function test_TheClockStartsAnewForAllThatThaws() public {
        vm.startPrank(worker);
        nodes.beginUnstake(1);
        vm.warp(block.timestamp + STAKE_THAW - 1);
        nodes.beginUnstake(2);
        uint256 thawEndsAt = nodes.node(worker).thawEndsAt;
        vm.assertEq(thawEndsAt, vm.getBlockTimestamp() + STAKE_THAW);
        vm.warp(thawEndsAt - 1);
        vm.expectRevert(abi.encodeWithSelector(INodeRegistry.NodeRegistryStillThawing.selector, worker, thawEndsAt));
        nodes.withdraw();
        vm.stopPrank();
    }

    function test_RevertWhen_MoreIsUnstakedThanIsAtWork(uint128 amount) public {
        amount = uint128(_bound(amount, MIN_WORKER + 1, type(uint128).max));
        vm.expectRevert(
            abi.encodeWithSelector(INodeRegistry.NodeRegistryInsufficientStake.selector, worker, MIN_WORKER, amount)
        );
        vm.prank(worker);
        nodes.beginUnstake(amount);
    }

    function test_CancelUnstake() public {
        vm.startPrank(worker);
        nodes.beginUnstake(7);
        vm.expectEmit();
        emit INodeRegistry.UnstakeCancelled(worker, 7, MIN_WORKER);
        nodes.cancelUnstake();
        vm.stopPrank();
        vm.assertEq(nodes.node(worker).stake, MIN_WORKER);
        vm.assertEq(nodes.node(worker).thawing, 0);
        vm.assertTrue(nodes.isActive(worker, WORKER));
    }

    function test_WithdrawAfterTheThaw() public {
        vm.startPrank(worker);
        nodes.beginUnstake(7);
        vm.warp(block.timestamp + STAKE_THAW);
        vm.expectEmit();
        emit INodeRegistry.StakeWithdrawn(worker, 7);
        nodes.withdraw();
        vm.assertEq(token.balanceOf(worker), FUNDS - MIN_WORKER + 7);
        vm.assertEq(nodes.totalStaked(), MIN_WORKER - 7);
        vm.expectRevert(abi.encodeWithSelector(INodeRegistry.NodeRegistryNothingThawing.selector, worker));
        nodes.withdraw();
        vm.stopPrank();
    }

    function test_ThawedStakeWaitsForItsOwner() public {
        vm.startPrank(worker);
        nodes.beginUnstake(7);
        vm.warp(block.timestamp + STAKE_THAW + 1 days);
        nodes.withdraw();
        vm.stopPrank();
        vm.assertEq(token.balanceOf(worker), FUNDS - MIN_WORKER + 7);
    }

    function test_RevertWhen_WithdrawnBeforeTheThawEnds(uint256 wait) public {
        vm.prank(worker);
        nodes.beginUnstake(7);
        uint256 thawEndsAt = block.timestamp + STAKE_THAW;
        vm.warp(block.timestamp + _bound(wait, 0, STAKE_THAW - 1));
        vm.expectRevert(abi.encodeWithSelector(INodeRegistry.NodeRegistryStillThawing.selector, worker, thawEndsAt));
        vm.prank(worker);
        nodes.withdraw();
    }

    function test_TheSignerCanMoveNothing() public {
        bytes memory error_ = abi.encodeWithSelector(INodeRegistry.NodeRegistryNotRegistered.selector, workerSigner);
        vm.prank(worker);
        nodes.beginUnstake(7);
        vm.warp(block.timestamp + STAKE_THAW);
        vm.startPrank(workerSigner);
        vm.expectRevert(error_);
        nodes.beginUnstake(1);
        vm.expectRevert(abi.encodeWithSelector(INodeRegistry.NodeRegistryNothingThawing.selector, workerSigner));
        nodes.withdraw();
        vm.expectRevert(error_);
        nodes.deregister();
        vm.stopPrank();
    }

    function test_RevertWhen_AmountIsZero() public {
        vm.startPrank(worker);
        vm.expectRevert(INodeRegistry.NodeRegistryZeroAmount.selector);
        nodes.addStake(0);
        vm.expectRevert(INodeRegistry.NodeRegistryZeroAmount.selector);
        nodes.beginUnstake(0);
        vm.expectRevert(abi.encodeWithSelector(INodeRegistry.NodeRegistryNothingThawing.selector, worker));
        nodes.cancelUnstake();
        vm.stopPrank();
    }

    function test_RevertWhen_NotRegistered() public {
        bytes memory error_ = abi.encodeWithSelector(INodeRegistry.NodeRegistryNotRegistered.selector, stranger);
        vm.startPrank(stranger);
        vm.expectRevert(error_);
        nodes.addStake(1);
        vm.expectRevert(error_);
        nodes.beginUnstake(1);
        vm.expectRevert(error_);
        nodes.cancelUnstake();
        vm.stopPrank();
    }

    function test_NothingIsLostOnTheWay(uint128[6] memory amounts, uint8[6] memory verbs) public {
        vm.startPrank(worker);
        for (uint256 i = 0; i < amounts.length; ++i) {
            INodeRegistry.Node memory node = nodes.node(worker);
            uint8 verb = verbs[i] % 4;
            if (verb == 0) nodes.addStake(uint128(_bound(amounts[i], 1, 1_000e18)));
            if (verb == 1 && node.stake != 0) nodes.beginUnstake(uint128(_bound(amounts[i], 1, node.stake)));
            if (verb == 2 && node.thawing != 0) nodes.cancelUnstake();
            if (verb == 3 && node.thawing != 0) {
                vm.warp(node.thawEndsAt);
                nodes.withdraw();
            }
            node = nodes.node(worker);
            vm.assertEq(token.balanceOf(worker) + node.stake + node.thawing, FUNDS);
            vm.assertEq(nodes.totalStaked(), uint256(node.stake) + node.thawing);
            vm.assertEq(nodes.isActive(worker, WORKER), node.stake >= MIN_WORKER);
        }
        vm.stopPrank();
    }
}
