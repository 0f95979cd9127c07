// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {INodeRegistry} from "../../src/interfaces/INodeRegistry.sol";
import {Base} from "../helpers/Base.sol";
import {RegistryHandler} from "./RegistryHandler.sol";

contract RegistryInvariantTest is Base {
    RegistryHandler internal handler;

    function setUp() public override {
        super.setUp();
        handler = new RegistryHandler(token, nodes, treasury);
    }

    function targetContracts() external view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(handler);
    }

    /// @dev One campaign for all properties: each of them is checked after every deed.
    function invariant_All() external view {
        _stakePlusThawingIsWhatCameInLessWhatWentOut();
        _activeNodesHaveTheirMinimum();
        _everyAccountSpeaksForOneOperator();
        _offersAreOfWorkersAlone();
    }

    function _stakePlusThawingIsWhatCameInLessWhatWentOut() internal view {
        uint256 staked;
        for (uint256 i = 0; i < handler.numOperators(); ++i) {
            INodeRegistry.Node memory node = nodes.node(handler.operators(i));
            staked += uint256(node.stake) + node.thawing;
        }
        vm.assertEq(staked, handler.deposited() - handler.withdrawn());
        vm.assertEq(nodes.totalStaked(), staked);
        vm.assertEq(token.balanceOf(address(nodes)), staked);
    }

    function _activeNodesHaveTheirMinimum() internal view {
        for (uint256 i = 0; i < handler.numOperators(); ++i) {
            address operator = handler.operators(i);
            INodeRegistry.Node memory node = nodes.node(operator);
            for (uint8 role = 1; role <= 4; role *= 2) {
                bool expected = node.roles & role != 0 && node.stake >= nodes.minimumStake(node.roles);
                vm.assertEq(nodes.isActive(operator, role), expected);
            }
        }
    }

    function _everyAccountSpeaksForOneOperator() internal view {
        for (uint256 i = 0; i < handler.numOperators(); ++i) {
            address operator = handler.operators(i);
            INodeRegistry.Node memory node = nodes.node(operator);
            if (node.roles == 0) continue;
            vm.assertEq(nodes.operatorOf(operator), operator);
            // A signer that registered itself as an operator since then speaks for itself.
            bool isOperator = nodes.node(node.signer).roles != 0;
            vm.assertEq(nodes.operatorOf(node.signer), isOperator ? node.signer : operator);
        }
        for (uint256 i = 0; i < handler.numSigners(); ++i) {
            address signer = handler.signers(i);
            (address holder, uint48 retiredAt) = nodes.signerRecord(signer);
            bool isCurrent = holder != address(0) && nodes.node(holder).signer == signer;
            vm.assertEq(isCurrent, holder != address(0) && retiredAt == 0);
        }
    }

    function _offersAreOfWorkersAlone() internal view {
        for (uint256 i = 0; i < handler.numOperators(); ++i) {
            address operator = handler.operators(i);
            INodeRegistry.Node memory node = nodes.node(operator);
            INodeRegistry.Offer memory offer = nodes.offer(operator, 0, 0);
            if (offer.endLayer != 0) vm.assertTrue(node.roles & 5 != 0 && offer.term == node.term);
        }
    }
}
