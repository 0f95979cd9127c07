// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {INodeRegistry} from "../../src/interfaces/INodeRegistry.sol";
import {Base} from "../helpers/Base.sol";

/// @notice setSigner, setRoles, setEndpoint, setProfile.
contract SettingsTest is Base {
    address internal newSigner = _person("new signer");

    function setUp() public override {
        super.setUp();
        _registerWorker();
    }

    function test_SetSignerRetiresTheOldOne() public {
        vm.expectEmit();
        emit INodeRegistry.SignerChanged(worker, workerSigner, newSigner);
        vm.prank(worker);
        nodes.setSigner(newSigner);
        vm.assertEq(nodes.node(worker).signer, newSigner);
        vm.assertEq(nodes.operatorOf(newSigner), worker);
        vm.assertEq(nodes.operatorOf(workerSigner), address(0));
        (address operator, uint48 retiredAt) = nodes.signerRecord(workerSigner);
        vm.assertEq(operator, worker);
        vm.assertEq(retiredAt, block.timestamp);
    }

    function test_SetSignerMayGoBack() public {
        vm.startPrank(worker);
        nodes.setSigner(newSigner);
        nodes.setSigner(workerSigner);
        vm.stopPrank();
        (, uint48 retiredAt) = nodes.signerRecord(workerSigner);
        vm.assertEq(retiredAt, 0);
        vm.assertEq(nodes.operatorOf(workerSigner), worker);
        vm.assertEq(nodes.operatorOf(newSigner), address(0));
    }

    function test_RevertWhen_NewSignerIsZeroOrTaken() public {
        _registerGateway();
        vm.startPrank(worker);
        vm.expectRevert(INodeRegistry.NodeRegistryZeroSigner.selector);
        nodes.setSigner(address(0));
        vm.expectRevert(abi.encodeWithSelector(INodeRegistry.NodeRegistrySignerTaken.selector, gatewaySigner, gateway));
        nodes.setSigner(gatewaySigner);
        vm.expectRevert(abi.encodeWithSelector(INodeRegistry.NodeRegistrySignerTaken.selector, gateway, gateway));
        nodes.setSigner(gateway);
        vm.stopPrank();
    }

    function test_SetRolesAddsWithTheStakeForAll() public {
        vm.startPrank(worker);
        vm.expectRevert(
            abi.encodeWithSelector(
                INodeRegistry.NodeRegistryStakeTooSmall.selector, worker, MIN_WORKER, MIN_WORKER + MIN_AUDITOR
            )
        );
        nodes.setRoles(WORKER | AUDITOR);
        nodes.addStake(MIN_AUDITOR);
        vm.expectEmit();
        emit INodeRegistry.RolesChanged(worker, WORKER | AUDITOR);
        nodes.setRoles(WORKER | AUDITOR);
        vm.stopPrank();
        vm.assertTrue(nodes.isActive(worker, WORKER | AUDITOR));
    }

    function test_SetRolesDropsARoleWithTooLittleStakeForTheOther() public {
        vm.startPrank(worker);
        nodes.addStake(MIN_AUDITOR);
        nodes.setRoles(WORKER | AUDITOR);
        nodes.beginUnstake(MIN_AUDITOR + 1);
        nodes.setRoles(WORKER);
        vm.stopPrank();
        vm.assertEq(nodes.node(worker).roles, WORKER);
        vm.assertFalse(nodes.isActive(worker, WORKER));
    }

    function test_SetRolesDropsARoleWithoutStakeForIt() public {
        vm.startPrank(worker);
        nodes.addStake(MIN_AUDITOR);
        nodes.setRoles(WORKER | AUDITOR);
        nodes.beginUnstake(MIN_AUDITOR);
        vm.assertFalse(nodes.isActive(worker, WORKER));
        nodes.setRoles(WORKER);
        vm.stopPrank();
        vm.assertTrue(nodes.isActive(worker, WORKER));
    }

    function test_RevertWhen_NewRolesAreInvalid() public {
        vm.startPrank(worker);
        vm.expectRevert(abi.encodeWithSelector(INodeRegistry.NodeRegistryInvalidRoles.selector, 0));
        nodes.setRoles(0);
        vm.expectRevert(abi.encodeWithSelector(INodeRegistry.NodeRegistryInvalidRoles.selector, 8));
        nodes.setRoles(8);
        vm.stopPrank();
    }

    function test_RevertWhen_AGatewayWouldHaveNoUrl() public {
        vm.startPrank(worker);
        nodes.addStake(MIN_GATEWAY);
        nodes.setEndpoint("tcp://b:1", "", keccak256("new link"));
        bytes memory error_ = abi.encodeWithSelector(INodeRegistry.NodeRegistryInvalidText.selector, "url", 0, 1, 256);
        vm.expectRevert(error_);
        nodes.setRoles(WORKER | GATEWAY);
        nodes.setEndpoint("tcp://b:1", "http://b", keccak256("new link"));
        nodes.setRoles(WORKER | GATEWAY);
        vm.expectRevert(error_);
        nodes.setEndpoint("tcp://b:1", "", keccak256("new link"));
        vm.stopPrank();
    }

    function test_SetEndpoint() public {
        bytes32 linkKey = keccak256("new link");
        vm.expectEmit();
        emit INodeRegistry.EndpointChanged(worker, "tcp://b:1", "http://b", linkKey);
        vm.prank(worker);
        nodes.setEndpoint("tcp://b:1", "http://b", linkKey);
        INodeRegistry.Node memory node = nodes.node(worker);
        vm.assertEq(node.endpoint, "tcp://b:1");
        vm.assertEq(node.url, "http://b");
        vm.assertEq(node.linkKey, linkKey);
        vm.assertEq(nodes.operatorOfLinkKey(linkKey), worker);
    }

    function test_RevertWhen_NewEndpointIsInvalid() public {
        _registerGateway();
        bytes32 taken = nodes.node(gateway).linkKey;
        vm.startPrank(worker);
        vm.expectRevert(abi.encodeWithSelector(INodeRegistry.NodeRegistryInvalidText.selector, "endpoint", 0, 1, 256));
        nodes.setEndpoint("", "", keccak256("new link"));
        vm.expectRevert(INodeRegistry.NodeRegistryZeroLinkKey.selector);
        nodes.setEndpoint("tcp://b:1", "", 0);
        vm.expectRevert(abi.encodeWithSelector(INodeRegistry.NodeRegistryLinkKeyTaken.selector, taken, gateway));
        nodes.setEndpoint("tcp://b:1", "", taken);
        vm.stopPrank();
    }

    function test_SetProfile() public {
        vm.expectEmit();
        emit INodeRegistry.ProfileChanged(worker, "eu-west", "bafk2");
        vm.prank(worker);
        nodes.setProfile("eu-west", "bafk2");
        INodeRegistry.Node memory node = nodes.node(worker);
        vm.assertEq(node.region, "eu-west");
        vm.assertEq(node.profile, "bafk2");
    }

    function test_RevertWhen_NewProfileIsTooLong() public {
        string memory long = string(new bytes(257));
        vm.startPrank(worker);
        vm.expectRevert(abi.encodeWithSelector(INodeRegistry.NodeRegistryInvalidText.selector, "region", 257, 0, 256));
        nodes.setProfile(long, "");
        vm.expectRevert(abi.encodeWithSelector(INodeRegistry.NodeRegistryInvalidText.selector, "profile", 257, 0, 256));
        nodes.setProfile("", long);
        vm.stopPrank();
    }

    function test_RevertWhen_NotRegistered() public {
        bytes memory error_ = abi.encodeWithSelector(INodeRegistry.NodeRegistryNotRegistered.selector, stranger);
        vm.startPrank(stranger);
        vm.expectRevert(error_);
        nodes.setSigner(newSigner);
        vm.expectRevert(error_);
        nodes.setRoles(WORKER);
        vm.expectRevert(error_);
        nodes.setEndpoint("tcp://b:1", "", keccak256("new link"));
        vm.expectRevert(error_);
        nodes.setProfile("", "");
        vm.stopPrank();
    }
}
