// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {INodeRegistry} from "../../src/interfaces/INodeRegistry.sol";
import {Base} from "../helpers/Base.sol";

/// @notice slash, jail, recordLoss, recordWork, and the stake that earnings lock.
contract SlashTest is Base {
    function setUp() public override {
        super.setUp();
        _register(worker, workerSigner, WORKER, 300e18);
        vm.prank(worker);
        nodes.beginUnstake(100e18);
    }

    function test_StakeAtWorkGoesFirstThenWhatThaws(uint128 amount) public {
        uint256 taken = amount < 300e18 ? amount : 300e18;
        uint256 fromStake = taken < 200e18 ? taken : 200e18;
        uint128 stake = uint128(200e18 - fromStake);
        uint128 thawing = uint128(100e18 - (taken - fromStake));
        vm.expectEmit();
        emit INodeRegistry.StakeSlashed(worker, stranger, uint128(taken), stake, thawing);
        vm.prank(address(court));
        vm.assertEq(nodes.slash(worker, amount, stranger), taken);
        vm.assertEq(nodes.node(worker).stake, stake);
        vm.assertEq(nodes.node(worker).thawing, thawing);
        vm.assertEq(token.balanceOf(stranger), FUNDS + taken);
        vm.assertEq(nodes.totalStaked(), 300e18 - taken);
    }

    function test_JailIsNeverShortened() public {
        uint48 until = uint48(block.timestamp) + 2 days;
        vm.startPrank(address(court));
        vm.expectEmit();
        emit INodeRegistry.NodeJailed(worker, until);
        nodes.jail(worker, until);
        nodes.jail(worker, until - 1);
        vm.stopPrank();
        vm.assertEq(nodes.jailedUntil(worker), until);
        vm.assertFalse(nodes.isActive(worker, WORKER));
        vm.warp(until);
        vm.assertTrue(nodes.isActive(worker, WORKER));
    }

    function test_RevertWhen_NotTheCourtOrTheLedger() public {
        bytes memory error_ = abi.encodeWithSelector(INodeRegistry.NodeRegistryNotCourt.selector, stranger);
        vm.startPrank(stranger);
        vm.expectRevert(error_);
        nodes.slash(worker, 1, stranger);
        vm.expectRevert(error_);
        nodes.jail(worker, 1);
        vm.expectRevert(error_);
        nodes.recordLoss(worker, 1);
        vm.expectRevert(abi.encodeWithSelector(INodeRegistry.NodeRegistryNotLedger.selector, stranger));
        nodes.recordWork(worker, 0, 1, 0);
        vm.stopPrank();
    }

    function test_RecentEarningsKeepStakeFromLeaving() public {
        _registerGateway();
        bytes32 id = _open(100e18);
        _settle(_one(_claim(id, 0, 25e18, 0, 0)), _one(_payout(worker, 25e18)));
        vm.assertEq(nodes.lockedStake(worker), 250e18);
        vm.warp(vm.getBlockTimestamp() + STAKE_THAW);
        vm.assertEq(nodes.lockedStake(worker), 0);
        // The lock holds back what the stake at work lacks of it, and no more.
        _settle(_one(_claim(id, 1, 25e18, 1, 25e18)), _one(_payout(worker, 25e18)));
        vm.startPrank(worker);
        nodes.withdraw();
        vm.assertEq(nodes.node(worker).thawing, 50e18);
        vm.expectRevert(abi.encodeWithSelector(INodeRegistry.NodeRegistryStakeLocked.selector, worker, 250e18, 250e18));
        nodes.withdraw();
        vm.stopPrank();
        // Less than what is locked is left: nothing of it leaves.
        vm.prank(address(court));
        nodes.slash(worker, 1e18, address(0x22));
        vm.startPrank(worker);
        vm.expectRevert(abi.encodeWithSelector(INodeRegistry.NodeRegistryStakeLocked.selector, worker, 249e18, 250e18));
        nodes.withdraw();
        nodes.addStake(51e18);
        nodes.withdraw();
        vm.stopPrank();
        vm.assertEq(nodes.node(worker).thawing, 0);
    }
}
