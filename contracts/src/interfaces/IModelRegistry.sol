// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @title Which models there are, in which versions, and which of them are served
/// @notice A model's id is keccak256 of its UTF-8 name. Who publishes a name first owns it; that publisher alone may change
/// the model. Versions are counted from 0 and never change. The rollout says which share of the requests each version
/// should get; rolling back is setting a rollout of earlier versions.
interface IModelRegistry {
    /// @notice One published version.
    /// @param numLayers Transformer layers.
    /// @param publishedAt Unix time, in seconds.
    /// @param deprecated Whether it must not be served any more.
    /// @param manifestCid CID of the manifest.
    struct Version {
        uint16 numLayers;
        uint48 publishedAt;
        bool deprecated;
        string manifestCid;
    }

    /// @notice A version's share of the requests.
    /// @param version Index of the version.
    /// @param weightBps Share in basis points; the shares of a rollout sum to 10,000.
    struct Share {
        uint32 version;
        uint16 weightBps;
    }

    /// @notice A version was published. Version 0 is rolled out by it, later ones by `RolloutSet`.
    event ModelPublished(
        bytes32 indexed model,
        address indexed publisher,
        uint32 version,
        string name,
        string manifestCid,
        uint16 numLayers
    );
    event RolloutSet(bytes32 indexed model, Share[] shares);
    event VersionDeprecated(bytes32 indexed model, uint32 version);

    error ModelRegistryInvalidName(uint256 length, uint256 maximum);
    error ModelRegistryInvalidManifestCid(uint256 length, uint256 maximum);
    error ModelRegistryNoLayers();
    error ModelRegistryUnknownModel(bytes32 model);
    error ModelRegistryUnknownVersion(bytes32 model, uint32 version);
    error ModelRegistryNotPublisher(bytes32 model, address account, address publisher);
    /// @notice As many weights as versions, and at most the maximum of them.
    error ModelRegistryInvalidRolloutLength(uint256 versions, uint256 weights, uint256 maximum);
    /// @notice Versions of a rollout are listed in strictly rising order.
    error ModelRegistryVersionsNotRising(uint32 version);
    error ModelRegistryZeroWeight(uint32 version);
    error ModelRegistryWeightsDoNotSum(uint256 sum, uint256 expected);
    error ModelRegistryDeprecated(bytes32 model, uint32 version);
    /// @notice A version is taken out of the rollout before it is deprecated.
    error ModelRegistryVersionInRollout(bytes32 model, uint32 version);
    error ModelRegistryNothingServed(bytes32 model);

    /// @notice Publishes a version of `name`: the first by anyone, later ones by the publisher alone.
    /// @return model Id of the model.
    /// @return version Index of the new version.
    function publish(string calldata name, string calldata manifestCid, uint16 numLayers)
        external
        returns (bytes32 model, uint32 version);

    /// @notice Sets the shares of the versions; empty lists withdraw the model.
    function setRollout(string calldata name, uint32[] calldata versions, uint16[] calldata weightsBps) external;

    /// @notice Marks a version that is not in the rollout as never to be served again.
    function deprecate(string calldata name, uint32 version) external;

    /// @notice Who published the model, or zero.
    function publisher(bytes32 model) external view returns (address);

    /// @notice Number of versions.
    function numVersions(bytes32 model) external view returns (uint32);

    /// @notice A version; reverts when there is no such version.
    function version(bytes32 model, uint32 index) external view returns (Version memory);

    /// @notice The rollout; empty when the model is withdrawn or unknown.
    function rollout(bytes32 model) external view returns (Share[] memory);

    /// @notice The version with the largest share (of equal ones the oldest); reverts when nothing is served.
    function current(bytes32 model) external view returns (uint32 index, Version memory);
}
