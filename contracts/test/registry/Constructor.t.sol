// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {NodeRegistry} from "../../src/NodeRegistry.sol";
import {INodeRegistry} from "../../src/interfaces/INodeRegistry.sol";
import {Base} from "../helpers/Base.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";

contract RegistryConstructorTest is Base {
    function test_KeepsItsParameters() public view {
        vm.assertEq(address(nodes.token()), address(token));
        vm.assertEq(nodes.thawPeriod(), STAKE_THAW);
        vm.assertEq(nodes.minimumStake(WORKER), MIN_WORKER);
        vm.assertEq(nodes.minimumStake(GATEWAY), MIN_GATEWAY);
        vm.assertEq(nodes.minimumStake(AUDITOR), MIN_AUDITOR);
        vm.assertEq(nodes.minimumStake(WORKER | AUDITOR), MIN_WORKER + MIN_AUDITOR);
        vm.assertEq(nodes.minimumStake(7), uint256(MIN_WORKER) + MIN_GATEWAY + MIN_AUDITOR);
    }

    function test_RevertWhen_TokenIsZero() public {
        vm.expectRevert(INodeRegistry.NodeRegistryZeroToken.selector);
        new NodeRegistry(IERC20(address(0)), STAKE_THAW, 1, 1, 1);
    }

    function test_ThawPeriodIsBounded(uint48 period) public {
        if (period < 1 hours || period > 90 days) {
            vm.expectRevert(
                abi.encodeWithSelector(
                    INodeRegistry.NodeRegistryThawPeriodOutOfBounds.selector, period, 1 hours, 90 days
                )
            );
        }
        new NodeRegistry(token, period, 1, 1, 1);
    }

    function test_ThawPeriodMayBeAtItsBounds() public {
        new NodeRegistry(token, 1 hours, 1, 1, 1);
        new NodeRegistry(token, 90 days, 1, 1, 1);
    }

    function test_RevertWhen_AMinimumIsOutOfBounds() public {
        uint256 maximum = 1e27;
        bytes4 selector = INodeRegistry.NodeRegistryMinimumStakeOutOfBounds.selector;
        new NodeRegistry(token, STAKE_THAW, maximum, maximum, maximum);
        vm.expectRevert(abi.encodeWithSelector(selector, 0, 1, maximum));
        new NodeRegistry(token, STAKE_THAW, 0, 1, 1);
        vm.expectRevert(abi.encodeWithSelector(selector, maximum + 1, 1, maximum));
        new NodeRegistry(token, STAKE_THAW, 1, maximum + 1, 1);
        vm.expectRevert(abi.encodeWithSelector(selector, 0, 1, maximum));
        new NodeRegistry(token, STAKE_THAW, 1, 1, 0);
    }
}
