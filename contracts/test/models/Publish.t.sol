// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IModelRegistry} from "../../src/interfaces/IModelRegistry.sol";
import {Base} from "../helpers/Base.sol";

contract PublishTest is Base {
    bytes32 internal constant MODEL = keccak256("tiny");

    function test_TheFirstVersionIsRolledOut() public {
        vm.expectEmit();
        emit IModelRegistry.ModelPublished(MODEL, worker, 0, "tiny", "bafy0", 12);
        vm.prank(worker);
        (bytes32 model, uint32 index) = models.publish("tiny", "bafy0", 12);
        vm.assertEq(model, MODEL);
        vm.assertEq(index, 0);
        vm.assertEq(models.publisher(MODEL), worker);
        vm.assertEq(models.numVersions(MODEL), 1);
        IModelRegistry.Version memory version;
        (index, version) = models.current(MODEL);
        vm.assertEq(index, 0);
        vm.assertEq(version.numLayers, 12);
        vm.assertEq(version.publishedAt, block.timestamp);
        vm.assertFalse(version.deprecated);
        vm.assertEq(version.manifestCid, "bafy0");
        IModelRegistry.Share[] memory rollout = models.rollout(MODEL);
        vm.assertEq(rollout.length, 1);
        vm.assertEq(rollout[0].version, 0);
        vm.assertEq(rollout[0].weightBps, 10_000);
    }

    function test_LaterVersionsWaitForARollout() public {
        vm.startPrank(worker);
        models.publish("tiny", "bafy0", 12);
        vm.expectEmit();
        emit IModelRegistry.ModelPublished(MODEL, worker, 1, "tiny", "bafy1", 14);
        (, uint32 index) = models.publish("tiny", "bafy1", 14);
        vm.stopPrank();
        vm.assertEq(index, 1);
        vm.assertEq(models.numVersions(MODEL), 2);
        vm.assertEq(models.version(MODEL, 1).manifestCid, "bafy1");
        (index,) = models.current(MODEL);
        vm.assertEq(index, 0);
    }

    function test_RevertWhen_NotThePublisher() public {
        vm.prank(worker);
        models.publish("tiny", "bafy0", 12);
        bytes memory error_ =
            abi.encodeWithSelector(IModelRegistry.ModelRegistryNotPublisher.selector, MODEL, stranger, worker);
        vm.startPrank(stranger);
        vm.expectRevert(error_);
        models.publish("tiny", "bafy1", 12);
        vm.expectRevert(error_);
        models.setRollout("tiny", new uint32[](0), new uint16[](0));
        vm.expectRevert(error_);
        models.deprecate("tiny", 0);
        vm.stopPrank();
    }

    function test_RevertWhen_ArgumentsAreOutOfBounds() public {
        string memory long = string(new bytes(129));
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.ModelRegistryInvalidName.selector, 0, 128));
        models.publish("", "bafy", 1);
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.ModelRegistryInvalidName.selector, 129, 128));
        models.publish(long, "bafy", 1);
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.ModelRegistryInvalidManifestCid.selector, 0, 128));
        models.publish("tiny", "", 1);
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.ModelRegistryInvalidManifestCid.selector, 129, 128));
        models.publish("tiny", long, 1);
        vm.expectRevert(IModelRegistry.ModelRegistryNoLayers.selector);
        models.publish("tiny", "bafy", 0);
        models.publish(string(new bytes(128)), string(new bytes(128)), 1);
    }

    function test_RevertWhen_AVersionIsUnknown() public {
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.ModelRegistryUnknownVersion.selector, MODEL, 0));
        models.version(MODEL, 0);
        models.publish("tiny", "bafy0", 12);
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.ModelRegistryUnknownVersion.selector, MODEL, 1));
        models.version(MODEL, 1);
    }

    function test_AnUnknownModelServesNothing() public {
        vm.assertEq(models.publisher(MODEL), address(0));
        vm.assertEq(models.numVersions(MODEL), 0);
        vm.assertEq(models.rollout(MODEL).length, 0);
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.ModelRegistryNothingServed.selector, MODEL));
        models.current(MODEL);
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.ModelRegistryUnknownModel.selector, MODEL));
        models.deprecate("tiny", 0);
    }
}
