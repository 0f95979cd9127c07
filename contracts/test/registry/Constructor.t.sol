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

    function test_RevertWhen_AnAddressIsZero() public {
        bytes4 selector = INodeRegistry.NodeRegistryZeroAddress.selector;
        vm.expectRevert(selector);
        new NodeRegistry(IERC20(address(0)), address(1), address(2), _registryParameters());
        vm.expectRevert(selector);
        new NodeRegistry(token, address(0), address(2), _registryParameters());
        vm.expectRevert(selector);
        new NodeRegistry(token, address(1), address(0), _registryParameters());
    }

    function test_EveryParameterIsBounded() public {
        _bounds(0, "thawPeriod", 1 hours, 90 days);
        _bounds(1, "lockMultiple", 1, 100);
        _bounds(2, "halfWeight", 1, 1e24);
        _bounds(3, "decayEpochs", 1, 1_000);
        _bounds(4, "minWorkerStake", 1, 1e27);
        _bounds(5, "minGatewayStake", 1, 1e27);
        _bounds(6, "minAuditorStake", 1, 1e27);
    }

    function _bounds(uint256 index, string memory name, uint256 minimum, uint256 maximum) internal {
        bytes4 selector = INodeRegistry.NodeRegistryParameterOutOfBounds.selector;
        _kept(index, minimum);
        _kept(index, maximum);
        vm.expectRevert(abi.encodeWithSelector(selector, name, minimum - 1, minimum, maximum));
        _make(index, minimum - 1);
        vm.expectRevert(abi.encodeWithSelector(selector, name, maximum + 1, minimum, maximum));
        _make(index, maximum + 1);
    }

    function _kept(uint256 index, uint256 value) internal {
        NodeRegistry made = _make(index, value);
        vm.assertEq(keccak256(abi.encode(made.parameters())), keccak256(abi.encode(_with(index, value))));
    }

    function _make(uint256 index, uint256 value) internal returns (NodeRegistry) {
        return new NodeRegistry(token, address(1), address(2), _with(index, value));
    }

    function _with(uint256 index, uint256 value) internal pure returns (INodeRegistry.Parameters memory p) {
        p = _registryParameters();
        if (index == 0) p.thawPeriod = uint48(value);
        if (index == 1) p.lockMultiple = uint16(value);
        if (index == 2) p.halfWeight = uint96(value);
        if (index == 3) p.decayEpochs = uint16(value);
        if (index == 4) p.minWorkerStake = uint128(value);
        if (index == 5) p.minGatewayStake = uint128(value);
        if (index == 6) p.minAuditorStake = uint128(value);
    }
}
