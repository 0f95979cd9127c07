// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IModelRegistry} from "./interfaces/IModelRegistry.sol";

/// @title Which models there are, in which versions, and which of them are served
contract ModelRegistry is IModelRegistry {
    struct Model {
        address publisher;
        Version[] versions;
        Share[] rollout;
    }

    uint256 internal constant MAX_NAME_LENGTH = 128;
    uint256 internal constant MAX_CID_LENGTH = 128;
    /// @dev Bounds the loops over a rollout.
    uint256 internal constant MAX_ROLLOUT_LENGTH = 8;
    uint16 internal constant ALL_BPS = 10_000;

    mapping(bytes32 model => Model) internal _models;

    /// @inheritdoc IModelRegistry
    function publish(string calldata name, string calldata manifestCid, uint16 numLayers)
        external
        override
        returns (bytes32 model, uint32 index)
    {
        uint256 length = bytes(name).length;
        if (length == 0 || length > MAX_NAME_LENGTH) revert ModelRegistryInvalidName(length, MAX_NAME_LENGTH);
        length = bytes(manifestCid).length;
        if (length == 0 || length > MAX_CID_LENGTH) revert ModelRegistryInvalidManifestCid(length, MAX_CID_LENGTH);
        if (numLayers == 0) revert ModelRegistryNoLayers();

        model = _id(name);
        Model storage self = _models[model];
        if (self.publisher == address(0)) {
            self.publisher = msg.sender;
            self.rollout.push(Share(0, ALL_BPS));
        } else if (self.publisher != msg.sender) {
            revert ModelRegistryNotPublisher(model, msg.sender, self.publisher);
        }
        index = uint32(self.versions.length);
        self.versions.push(Version(numLayers, uint48(block.timestamp), false, manifestCid));
        emit ModelPublished(model, msg.sender, index, name, manifestCid, numLayers);
    }

    /// @inheritdoc IModelRegistry
    function setRollout(string calldata name, uint32[] calldata versions, uint16[] calldata weightsBps)
        external
        override
    {
        (bytes32 model, Model storage self) = _owned(name);
        if (versions.length != weightsBps.length || versions.length > MAX_ROLLOUT_LENGTH) {
            revert ModelRegistryInvalidRolloutLength(versions.length, weightsBps.length, MAX_ROLLOUT_LENGTH);
        }
        delete self.rollout;
        uint256 sum;
        for (uint256 i = 0; i < versions.length; ++i) {
            uint32 index = versions[i];
            if (i > 0 && index <= versions[i - 1]) revert ModelRegistryVersionsNotRising(index);
            if (_version(model, self, index).deprecated) revert ModelRegistryDeprecated(model, index);
            if (weightsBps[i] == 0) revert ModelRegistryZeroWeight(index);
            sum += weightsBps[i];
            self.rollout.push(Share(index, weightsBps[i]));
        }
        if (versions.length != 0 && sum != ALL_BPS) revert ModelRegistryWeightsDoNotSum(sum, ALL_BPS);
        emit RolloutSet(model, self.rollout);
    }

    /// @inheritdoc IModelRegistry
    function deprecate(string calldata name, uint32 index) external override {
        (bytes32 model, Model storage self) = _owned(name);
        Version storage retired = _version(model, self, index);
        if (retired.deprecated) revert ModelRegistryDeprecated(model, index);
        for (uint256 i = 0; i < self.rollout.length; ++i) {
            if (self.rollout[i].version == index) revert ModelRegistryVersionInRollout(model, index);
        }
        retired.deprecated = true;
        emit VersionDeprecated(model, index);
    }

    /// @inheritdoc IModelRegistry
    function publisher(bytes32 model) external view override returns (address) {
        return _models[model].publisher;
    }

    /// @inheritdoc IModelRegistry
    function numVersions(bytes32 model) external view override returns (uint32) {
        return uint32(_models[model].versions.length);
    }

    /// @inheritdoc IModelRegistry
    function version(bytes32 model, uint32 index) external view override returns (Version memory) {
        return _version(model, _models[model], index);
    }

    /// @inheritdoc IModelRegistry
    function rollout(bytes32 model) external view override returns (Share[] memory) {
        return _models[model].rollout;
    }

    /// @inheritdoc IModelRegistry
    function current(bytes32 model) external view override returns (uint32 index, Version memory) {
        Model storage self = _models[model];
        uint16 largest;
        for (uint256 i = 0; i < self.rollout.length; ++i) {
            Share memory share = self.rollout[i];
            if (share.weightBps > largest) (largest, index) = (share.weightBps, share.version);
        }
        if (largest == 0) revert ModelRegistryNothingServed(model);
        return (index, self.versions[index]);
    }

    function _owned(string calldata name) private view returns (bytes32 model, Model storage self) {
        model = _id(name);
        self = _models[model];
        if (self.publisher == address(0)) revert ModelRegistryUnknownModel(model);
        if (self.publisher != msg.sender) revert ModelRegistryNotPublisher(model, msg.sender, self.publisher);
    }

    function _version(bytes32 model, Model storage self, uint32 index) private view returns (Version storage) {
        if (index >= self.versions.length) revert ModelRegistryUnknownVersion(model, index);
        return self.versions[index];
    }

    function _id(string calldata name) private pure returns (bytes32) {
        return keccak256(bytes(name));
    }
}
