// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {INodeRegistry} from "../../src/interfaces/INodeRegistry.sol";
import {Base} from "../helpers/Base.sol";

contract DeregisterTest is Base {
    bytes32 internal constant MODEL = keccak256("tiny");

    function test_EndsTheTermAndThawsAllStake() public {
        _registerWorker();
        vm.expectEmit();
        emit INodeRegistry.NodeDeregistered(worker);
        vm.expectEmit();
        emit INodeRegistry.UnstakeBegun(worker, MIN_WORKER, 0, MIN_WORKER, uint48(block.timestamp) + STAKE_THAW);
        vm.prank(worker);
        nodes.deregister();

        INodeRegistry.Node memory node = nodes.node(worker);
        vm.assertEq(node.roles, 0);
        vm.assertEq(node.signer, address(0));
        vm.assertEq(node.linkKey, 0);
        vm.assertEq(node.endpoint, "");
        vm.assertEq(node.thawing, MIN_WORKER);
        vm.assertFalse(nodes.isActive(worker, WORKER));
        vm.assertEq(nodes.operatorOf(worker), address(0));
        vm.assertEq(nodes.operatorOf(workerSigner), address(0));
        (address operator, uint48 retiredAt) = nodes.signerRecord(workerSigner);
        vm.assertEq(operator, worker);
        vm.assertEq(retiredAt, block.timestamp);
    }

    function test_WithoutStakeAtWorkNothingThaws() public {
        _registerWorker();
        vm.startPrank(worker);
        nodes.beginUnstake(MIN_WORKER);
        uint48 thawEndsAt = nodes.node(worker).thawEndsAt;
        vm.warp(block.timestamp + 1 days);
        nodes.deregister();
        vm.stopPrank();
        vm.assertEq(nodes.node(worker).thawEndsAt, thawEndsAt);
    }

    function test_OffersAreVoidAndStaySoInTheNextTerm() public {
        _registerWorker();
        vm.startPrank(worker);
        nodes.setOffer(MODEL, 0, 4, 0, 1, 2);
        nodes.deregister();
        vm.assertEq(nodes.offer(worker, MODEL, 0).endLayer, 0);
        nodes.register(_params(workerSigner, WORKER), MIN_WORKER);
        vm.assertEq(nodes.node(worker).term, 2);
        vm.assertEq(nodes.offer(worker, MODEL, 0).endLayer, 0);
        vm.expectRevert(abi.encodeWithSelector(INodeRegistry.NodeRegistryNoOffer.selector, worker, MODEL, 0));
        nodes.removeOffer(MODEL, 0);
        vm.stopPrank();
    }

    function test_StakeOfTheLastTermKeepsThawing() public {
        _registerWorker();
        vm.startPrank(worker);
        nodes.deregister();
        nodes.register(_params(workerSigner, WORKER), MIN_WORKER);
        vm.assertEq(nodes.node(worker).stake, MIN_WORKER);
        vm.assertEq(nodes.node(worker).thawing, MIN_WORKER);
        vm.warp(block.timestamp + STAKE_THAW);
        nodes.withdraw();
        vm.stopPrank();
        vm.assertEq(token.balanceOf(worker), FUNDS - MIN_WORKER);
    }

    function test_SignerAndLinkKeyStayTheOperators() public {
        _registerWorker();
        vm.prank(worker);
        nodes.deregister();
        vm.expectRevert(abi.encodeWithSelector(INodeRegistry.NodeRegistrySignerTaken.selector, workerSigner, worker));
        _register(stranger, workerSigner, WORKER, MIN_WORKER);
    }

    function test_RevertWhen_NotRegistered() public {
        vm.expectRevert(abi.encodeWithSelector(INodeRegistry.NodeRegistryNotRegistered.selector, worker));
        vm.prank(worker);
        nodes.deregister();
    }

    function test_DustPaidToWhoLeavesHoldsBackNoMoreThanItLocks() public {
        _registerWorker();
        _registerGateway();
        vm.prank(worker);
        nodes.deregister();
        vm.warp(block.timestamp + STAKE_THAW);
        // Anybody with a gateway can pay anybody one base unit per epoch.
        _settle(_one(_claim(_open(1), 0, 1, 0, 0)), _one(_payout(worker, 1)));
        uint256 locked = nodes.lockedStake(worker);
        vm.assertEq(locked, uint256(LOCK_MULTIPLE) * 1e12);
        vm.expectEmit();
        emit INodeRegistry.StakeWithdrawn(worker, uint128(MIN_WORKER - locked));
        vm.prank(worker);
        nodes.withdraw();
        vm.assertEq(nodes.node(worker).thawing, locked);
        vm.warp(vm.getBlockTimestamp() + 2 * uint256(EPOCH));
        vm.prank(worker);
        nodes.withdraw();
        vm.assertEq(token.balanceOf(worker), FUNDS);
    }
}
