// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {NodeRegistry} from "../../src/NodeRegistry.sol";
import {INodeRegistry} from "../../src/interfaces/INodeRegistry.sol";
import {Base} from "../helpers/Base.sol";

contract RegisterTest is Base {
    function test_RegistersAndPullsTheStake() public {
        INodeRegistry.RegisterParams memory params = _params(workerSigner, WORKER | AUDITOR);
        uint128 stake = MIN_WORKER + MIN_AUDITOR;
        vm.expectEmit();
        emit INodeRegistry.NodeRegistered(worker, workerSigner, 1, params);
        vm.expectEmit();
        emit INodeRegistry.StakeAdded(worker, stake, stake);
        vm.prank(worker);
        nodes.register(params, stake);

        INodeRegistry.Node memory node = nodes.node(worker);
        vm.assertEq(node.signer, workerSigner);
        vm.assertEq(node.roles, WORKER | AUDITOR);
        vm.assertEq(node.term, 1);
        vm.assertEq(node.stake, stake);
        vm.assertEq(node.thawing, 0);
        vm.assertEq(node.linkKey, params.linkKey);
        vm.assertEq(node.endpoint, params.endpoint);
        vm.assertEq(node.url, params.url);
        vm.assertEq(node.region, params.region);
        vm.assertEq(node.profile, params.profile);
        vm.assertEq(nodes.totalStaked(), stake);
        vm.assertEq(token.balanceOf(address(nodes)), stake);
        vm.assertEq(nodes.operatorOfLinkKey(params.linkKey), worker);
        (address operator, uint48 retiredAt) = nodes.signerRecord(workerSigner);
        vm.assertEq(operator, worker);
        vm.assertEq(retiredAt, 0);
    }

    function test_ActiveInItsRolesAlone() public {
        _registerWorker();
        vm.assertTrue(nodes.isActive(worker, WORKER));
        vm.assertFalse(nodes.isActive(worker, GATEWAY));
        vm.assertFalse(nodes.isActive(worker, WORKER | GATEWAY));
        vm.assertFalse(nodes.isActive(worker, 0));
        vm.assertFalse(nodes.isActive(stranger, WORKER));
        vm.assertEq(nodes.activeOperator(worker, WORKER), worker);
        vm.assertEq(nodes.activeOperator(workerSigner, WORKER), worker);
    }

    function test_RevertWhen_NotActive() public {
        _registerWorker();
        vm.expectRevert(abi.encodeWithSelector(INodeRegistry.NodeRegistryNotActive.selector, workerSigner, GATEWAY));
        nodes.activeOperator(workerSigner, GATEWAY);
        vm.expectRevert(abi.encodeWithSelector(INodeRegistry.NodeRegistryNotActive.selector, stranger, WORKER));
        nodes.activeOperator(stranger, WORKER);
        vm.expectRevert(abi.encodeWithSelector(INodeRegistry.NodeRegistryNotActive.selector, address(0), WORKER));
        nodes.activeOperator(address(0), WORKER);
    }

    function test_AnOperatorMayBeItsOwnSigner() public {
        _register(worker, worker, WORKER, MIN_WORKER);
        vm.assertEq(nodes.operatorOf(worker), worker);
    }

    function test_RevertWhen_AlreadyRegistered() public {
        _registerWorker();
        vm.expectRevert(abi.encodeWithSelector(INodeRegistry.NodeRegistryAlreadyRegistered.selector, worker));
        _register(worker, stranger, WORKER, MIN_WORKER);
    }

    function test_RevertWhen_RolesAreInvalid(uint8 roles) public {
        vm.assume(roles == 0 || roles > 7);
        vm.expectRevert(abi.encodeWithSelector(INodeRegistry.NodeRegistryInvalidRoles.selector, roles));
        _register(worker, workerSigner, roles, MIN_GATEWAY);
    }

    function test_StakeMustReachTheSumOverTheRoles(uint8 roles, uint128 stake) public {
        roles = uint8(_bound(roles, 1, 7));
        stake = uint128(_bound(stake, 0, 2 * MIN_GATEWAY));
        uint256 minimum = nodes.minimumStake(roles);
        if (stake < minimum) {
            vm.expectRevert(
                abi.encodeWithSelector(INodeRegistry.NodeRegistryStakeTooSmall.selector, worker, stake, minimum)
            );
        }
        _register(worker, workerSigner, roles, stake);
        vm.assertEq(nodes.isActive(worker, roles), stake >= minimum);
    }

    function test_RevertWhen_TextsAreInvalid() public {
        _expectInvalidText("endpoint", 0, 1, _withTexts("", "u", "", "", GATEWAY));
        _expectInvalidText("url", 0, 1, _withTexts("e", "", "", "", GATEWAY));
        string memory long = string(new bytes(257));
        _expectInvalidText("endpoint", 257, 1, _withTexts(long, "u", "", "", WORKER));
        _expectInvalidText("url", 257, 0, _withTexts("e", long, "", "", WORKER));
        _expectInvalidText("region", 257, 0, _withTexts("e", "", long, "", WORKER));
        _expectInvalidText("profile", 257, 0, _withTexts("e", "", "", long, WORKER));
    }

    function test_AWorkerNeedsNoUrlRegionOrProfile() public {
        vm.prank(worker);
        nodes.register(_withTexts("e", "", "", "", WORKER), MIN_WORKER);
        vm.assertEq(nodes.node(worker).url, "");
    }

    function test_TextsMayBeOfTheFullLength() public {
        string memory long = string(new bytes(256));
        vm.prank(gateway);
        nodes.register(_withTexts(long, long, long, long, GATEWAY), MIN_GATEWAY);
        vm.assertEq(nodes.node(gateway).profile, long);
    }

    function test_RevertWhen_SignerOrLinkKeyIsZero() public {
        INodeRegistry.RegisterParams memory params = _params(workerSigner, WORKER);
        params.linkKey = 0;
        vm.expectRevert(INodeRegistry.NodeRegistryZeroLinkKey.selector);
        vm.prank(worker);
        nodes.register(params, MIN_WORKER);

        vm.expectRevert(INodeRegistry.NodeRegistryZeroSigner.selector);
        _register(worker, address(0), WORKER, MIN_WORKER);
    }

    function test_RevertWhen_SignerIsTaken() public {
        _registerWorker();
        vm.expectRevert(abi.encodeWithSelector(INodeRegistry.NodeRegistrySignerTaken.selector, workerSigner, worker));
        _register(stranger, workerSigner, WORKER, MIN_WORKER);
    }

    function test_RevertWhen_SignerIsAnOperator() public {
        _registerWorker();
        vm.expectRevert(abi.encodeWithSelector(INodeRegistry.NodeRegistrySignerTaken.selector, worker, worker));
        _register(stranger, worker, WORKER, MIN_WORKER);
    }

    function test_RevertWhen_LinkKeyIsTaken() public {
        _registerWorker();
        INodeRegistry.RegisterParams memory params = _params(gatewaySigner, WORKER);
        params.linkKey = _params(workerSigner, WORKER).linkKey;
        vm.expectRevert(abi.encodeWithSelector(INodeRegistry.NodeRegistryLinkKeyTaken.selector, params.linkKey, worker));
        vm.prank(stranger);
        nodes.register(params, MIN_WORKER);
    }

    function test_NamingSomeoneAsSignerDoesNotCaptureHim() public {
        _register(stranger, worker, WORKER, MIN_WORKER);
        vm.assertEq(nodes.operatorOf(worker), stranger);
        _registerWorker();
        vm.assertEq(nodes.operatorOf(worker), worker);
        vm.assertEq(nodes.activeOperator(worker, WORKER), worker);
    }

    function test_RevertWhen_AllowanceIsMissing() public {
        vm.prank(worker);
        token.approve(address(nodes), 0);
        vm.expectRevert();
        _register(worker, workerSigner, WORKER, MIN_WORKER);
    }

    function _withTexts(
        string memory endpoint,
        string memory url,
        string memory region,
        string memory profile,
        uint8 roles
    ) internal view returns (INodeRegistry.RegisterParams memory params) {
        params = _params(workerSigner, roles);
        (params.endpoint, params.url, params.region, params.profile) = (endpoint, url, region, profile);
    }

    function _expectInvalidText(
        string memory field,
        uint256 length,
        uint256 minimum,
        INodeRegistry.RegisterParams memory params
    ) internal {
        vm.expectRevert(
            abi.encodeWithSelector(INodeRegistry.NodeRegistryInvalidText.selector, field, length, minimum, 256)
        );
        vm.prank(worker);
        nodes.register(params, MIN_GATEWAY);
    }
}
