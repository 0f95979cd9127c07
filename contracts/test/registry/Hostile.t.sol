// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {NodeRegistry} from "../../src/NodeRegistry.sol";
import {INodeRegistry} from "../../src/interfaces/INodeRegistry.sol";
import {ExactTransfer} from "../../src/libraries/ExactTransfer.sol";
import {Base} from "../helpers/Base.sol";
import {FeeToken, OpenToken, ReentrantToken, RefusingToken} from "../helpers/Mocks.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";

contract RegistryHostileTest is Base {
    NodeRegistry internal registry;

    function _with(OpenToken hostile) internal {
        INodeRegistry.Parameters memory p = _registryParameters();
        (p.minWorkerStake, p.minGatewayStake, p.minAuditorStake) = (10, 10, 10);
        registry = new NodeRegistry(hostile, address(ledger), address(court), p);
        hostile.mint(worker, 1_000);
        vm.prank(worker);
        hostile.approve(address(registry), 1_000);
    }

    function _registerHere() internal {
        vm.prank(worker);
        registry.register(_params(workerSigner, WORKER), 100);
    }

    function test_RevertWhen_TheTokenKeepsAFee() public {
        FeeToken hostile = new FeeToken();
        _with(hostile);
        vm.expectRevert(
            abi.encodeWithSelector(ExactTransfer.ExactTransferFellShort.selector, address(hostile), 99, 100)
        );
        _registerHere();
    }

    function test_RevertWhen_TheTokenRefuses() public {
        RefusingToken hostile = new RefusingToken();
        _with(hostile);
        vm.expectRevert(abi.encodeWithSelector(SafeERC20.SafeERC20FailedOperation.selector, address(hostile)));
        _registerHere();
    }

    function test_RevertWhen_TheTokenReentersRegister() public {
        ReentrantToken hostile = new ReentrantToken();
        _with(hostile);
        hostile.arm(address(registry), abi.encodeCall(INodeRegistry.register, (_params(stranger, WORKER), 100)));
        vm.expectRevert(ReentrancyGuardTransient.ReentrancyGuardReentrantCall.selector);
        _registerHere();
    }

    function test_RevertWhen_TheTokenReentersWithdraw() public {
        ReentrantToken hostile = new ReentrantToken();
        _with(hostile);
        _registerHere();
        vm.startPrank(worker);
        registry.beginUnstake(100);
        vm.warp(block.timestamp + STAKE_THAW);
        hostile.arm(address(registry), abi.encodeCall(INodeRegistry.withdraw, ()));
        vm.expectRevert(ReentrancyGuardTransient.ReentrancyGuardReentrantCall.selector);
        registry.withdraw();
        vm.stopPrank();
    }

    function test_RevertWhen_TheTokenReentersAddStake() public {
        ReentrantToken hostile = new ReentrantToken();
        _with(hostile);
        _registerHere();
        // The token is an operator itself, so that nothing but the guard stands in its way.
        hostile.mint(address(hostile), 100);
        vm.startPrank(address(hostile));
        hostile.approve(address(registry), 100);
        registry.register(_params(address(hostile), WORKER), 50);
        vm.stopPrank();
        hostile.arm(address(registry), abi.encodeCall(INodeRegistry.addStake, (1)));
        vm.expectRevert(ReentrancyGuardTransient.ReentrancyGuardReentrantCall.selector);
        vm.prank(worker);
        registry.addStake(1);
    }
}
