// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IModelRegistry} from "../../src/interfaces/IModelRegistry.sol";
import {Base} from "../helpers/Base.sol";

/// @notice setRollout and deprecate, as the publisher of a model with nine versions.
contract RolloutTest is Base {
    bytes32 internal constant MODEL = keccak256("tiny");

    function setUp() public override {
        super.setUp();
        for (uint256 i = 0; i < 9; ++i) {
            models.publish("tiny", "bafy", 12);
        }
    }

    function test_CanaryThenRollback() public {
        IModelRegistry.Share[] memory shares = new IModelRegistry.Share[](2);
        shares[0] = IModelRegistry.Share(0, 9_500);
        shares[1] = IModelRegistry.Share(3, 500);
        vm.expectEmit();
        emit IModelRegistry.RolloutSet(MODEL, shares);
        models.setRollout("tiny", _versions(0, 3), _weights(9_500, 500));
        _assertCurrent(0);
        models.setRollout("tiny", _versions(0, 3), _weights(4_000, 6_000));
        _assertCurrent(3);
        models.setRollout("tiny", _versions(0), _weights(10_000));
        _assertCurrent(0);
        vm.assertEq(models.rollout(MODEL).length, 1);
    }

    function test_OfEqualSharesTheOldestIsCurrent() public {
        models.setRollout("tiny", _versions(2, 5), _weights(5_000, 5_000));
        _assertCurrent(2);
    }

    function test_AnEmptyRolloutWithdrawsTheModel() public {
        vm.expectEmit();
        emit IModelRegistry.RolloutSet(MODEL, new IModelRegistry.Share[](0));
        models.setRollout("tiny", new uint32[](0), new uint16[](0));
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.ModelRegistryNothingServed.selector, MODEL));
        models.current(MODEL);
    }

    function test_SharesMustSumToAll(uint16 a, uint16 b) public {
        a = uint16(_bound(a, 1, type(uint16).max));
        b = uint16(_bound(b, 1, type(uint16).max));
        uint256 sum = uint256(a) + b;
        if (sum != 10_000) {
            vm.expectRevert(abi.encodeWithSelector(IModelRegistry.ModelRegistryWeightsDoNotSum.selector, sum, 10_000));
        }
        models.setRollout("tiny", _versions(0, 1), _weights(a, b));
    }

    function test_RevertWhen_ARolloutIsMalformed() public {
        bytes4 length = IModelRegistry.ModelRegistryInvalidRolloutLength.selector;
        vm.expectRevert(abi.encodeWithSelector(length, 1, 2, 8));
        models.setRollout("tiny", _versions(0), _weights(1, 9_999));
        vm.expectRevert(abi.encodeWithSelector(length, 9, 9, 8));
        models.setRollout("tiny", new uint32[](9), new uint16[](9));
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.ModelRegistryVersionsNotRising.selector, 1));
        models.setRollout("tiny", _versions(1, 1), _weights(5_000, 5_000));
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.ModelRegistryUnknownVersion.selector, MODEL, 9));
        models.setRollout("tiny", _versions(9), _weights(10_000));
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.ModelRegistryZeroWeight.selector, 1));
        models.setRollout("tiny", _versions(0, 1), _weights(10_000, 0));
    }

    function test_EightVersionsMayShare() public {
        uint32[] memory versions = new uint32[](8);
        uint16[] memory weights = new uint16[](8);
        for (uint32 i = 0; i < 8; ++i) {
            (versions[i], weights[i]) = (i, 1_250);
        }
        models.setRollout("tiny", versions, weights);
        vm.assertEq(models.rollout(MODEL).length, 8);
    }

    function test_ADeprecatedVersionNeverComesBack() public {
        vm.expectEmit();
        emit IModelRegistry.VersionDeprecated(MODEL, 4);
        models.deprecate("tiny", 4);
        vm.assertTrue(models.version(MODEL, 4).deprecated);
        bytes memory error_ = abi.encodeWithSelector(IModelRegistry.ModelRegistryDeprecated.selector, MODEL, 4);
        vm.expectRevert(error_);
        models.setRollout("tiny", _versions(4), _weights(10_000));
        vm.expectRevert(error_);
        models.deprecate("tiny", 4);
    }

    function test_RevertWhen_AServedVersionIsDeprecated() public {
        models.setRollout("tiny", _versions(1, 2), _weights(5_000, 5_000));
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.ModelRegistryVersionInRollout.selector, MODEL, 2));
        models.deprecate("tiny", 2);
        models.deprecate("tiny", 0);
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.ModelRegistryUnknownVersion.selector, MODEL, 9));
        models.deprecate("tiny", 9);
    }

    function _assertCurrent(uint32 expected) internal view {
        (uint32 index,) = models.current(MODEL);
        vm.assertEq(index, expected);
    }

    function _versions(uint32 a) internal pure returns (uint32[] memory versions) {
        versions = new uint32[](1);
        versions[0] = a;
    }

    function _versions(uint32 a, uint32 b) internal pure returns (uint32[] memory versions) {
        versions = new uint32[](2);
        (versions[0], versions[1]) = (a, b);
    }

    function _weights(uint16 a) internal pure returns (uint16[] memory weights) {
        weights = new uint16[](1);
        weights[0] = a;
    }

    function _weights(uint16 a, uint16 b) internal pure returns (uint16[] memory weights) {
        weights = new uint16[](2);
        (weights[0], weights[1]) = (a, b);
    }
}
