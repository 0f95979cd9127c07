// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {CreditToken} from "../../src/CreditToken.sol";
import {NodeRegistry} from "../../src/NodeRegistry.sol";
import {INodeRegistry} from "../../src/interfaces/INodeRegistry.sol";
import {Vm} from "../helpers/Vm.sol";

/// @notice Operators who register, stake, leave and change their minds at random; keys are few, so that they clash.
contract RegistryHandler {
    Vm internal constant vm = Vm(address(uint160(uint256(keccak256("hevm cheat code")))));
    uint256 internal constant NUM_OPERATORS = 3;
    uint256 internal constant NUM_SIGNERS = 6;

    CreditToken internal immutable TOKEN;
    NodeRegistry internal immutable NODES;
    address[] public operators;
    address[] public signers;
    uint256 public deposited;
    uint256 public withdrawn;

    constructor(CreditToken token, NodeRegistry nodes, address treasury) {
        (TOKEN, NODES) = (token, nodes);
        for (uint256 i = 0; i < NUM_OPERATORS; ++i) {
            operators.push(vm.addr(0xB000 + i));
            vm.prank(treasury);
            TOKEN.mint(operators[i], 100_000e18);
            vm.prank(operators[i]);
            TOKEN.approve(address(NODES), type(uint256).max);
        }
        for (uint256 i = 0; i < NUM_SIGNERS; ++i) {
            // Some operators are named as signers, by themselves and by others.
            signers.push(i < 2 ? operators[i] : vm.addr(0xC000 + i));
        }
    }

    function numOperators() external view returns (uint256) {
        return operators.length;
    }

    function numSigners() external view returns (uint256) {
        return signers.length;
    }

    function register(uint256 who, uint256 signer, uint8 roles, uint128 stake) external {
        roles = 1 + roles % 7;
        stake = uint128(_bound(stake, NODES.minimumStake(roles), 5_000e18));
        address operator = operators[who % NUM_OPERATORS];
        address signer_ = signers[signer % NUM_SIGNERS];
        if (NODES.node(operator).roles != 0 || !_isFree(signer_, operator)) return;
        if (TOKEN.balanceOf(operator) < stake) return;
        vm.prank(operator);
        NODES.register(
            INodeRegistry.RegisterParams(signer_, roles, bytes32(uint256(uint160(operator))), "e", "u", "", ""), stake
        );
        deposited += stake;
    }

    function deregister(uint256 who) external {
        (address operator, INodeRegistry.Node memory node) = _node(who);
        if (node.roles == 0) return;
        vm.prank(operator);
        NODES.deregister();
    }

    function setSigner(uint256 who, uint256 signer) external {
        (address operator, INodeRegistry.Node memory node) = _node(who);
        address signer_ = signers[signer % NUM_SIGNERS];
        if (node.roles == 0 || !_isFree(signer_, operator)) return;
        vm.prank(operator);
        NODES.setSigner(signer_);
    }

    function setRoles(uint256 who, uint8 roles) external {
        (address operator, INodeRegistry.Node memory node) = _node(who);
        roles = 1 + roles % 7;
        if (node.roles == 0 || node.stake < NODES.minimumStake(roles)) return;
        vm.prank(operator);
        NODES.setRoles(roles);
    }

    function addStake(uint256 who, uint128 amount) external {
        (address operator, INodeRegistry.Node memory node) = _node(who);
        uint256 wallet = TOKEN.balanceOf(operator);
        if (node.roles == 0 || wallet == 0) return;
        amount = uint128(_bound(amount, 1, wallet));
        vm.prank(operator);
        NODES.addStake(amount);
        deposited += amount;
    }

    function beginUnstake(uint256 who, uint128 amount) external {
        (address operator, INodeRegistry.Node memory node) = _node(who);
        if (node.roles == 0 || node.stake == 0) return;
        vm.prank(operator);
        NODES.beginUnstake(uint128(_bound(amount, 1, node.stake)));
    }

    function cancelUnstake(uint256 who) external {
        (address operator, INodeRegistry.Node memory node) = _node(who);
        if (node.roles == 0 || node.thawing == 0) return;
        vm.prank(operator);
        NODES.cancelUnstake();
    }

    function withdraw(uint256 who) external {
        (address operator, INodeRegistry.Node memory node) = _node(who);
        if (node.thawing == 0) return;
        if (block.timestamp < node.thawEndsAt) vm.warp(node.thawEndsAt);
        vm.prank(operator);
        NODES.withdraw();
        withdrawn += node.thawing;
    }

    function setOffer(uint256 who, uint16 firstLayer) external {
        (address operator, INodeRegistry.Node memory node) = _node(who);
        if (node.roles & 1 == 0 || firstLayer == type(uint16).max) return;
        vm.prank(operator);
        NODES.setOffer(0, firstLayer, firstLayer + 1, 0, 1, 2);
    }

    function _node(uint256 who) internal view returns (address operator, INodeRegistry.Node memory) {
        operator = operators[who % NUM_OPERATORS];
        return (operator, NODES.node(operator));
    }

    function _isFree(address signer, address operator) internal view returns (bool) {
        (address holder,) = NODES.signerRecord(signer);
        bool isOther = signer != operator && NODES.node(signer).roles != 0;
        return !isOther && (holder == address(0) || holder == operator);
    }

    function _bound(uint256 number, uint256 low, uint256 high) internal pure returns (uint256) {
        return number >= low && number <= high ? number : low + number % (high - low + 1);
    }
}
