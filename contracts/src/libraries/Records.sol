// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @title Chunk records: what a stage commits to, 32 positions at a time
/// @notice A record has 254 bytes, big-endian:
///   version 1 | numeric profile 1 | stage 1 | reserved 1 | chunk index 4 | first position 4 | number of tokens 2 |
///   first 16 bytes of the job id | shard root 32 | input root 32 | output root 32 | sketch 128
/// A receipt names two heads:
///   outputs  h_-1 = digest of the assignment, h_i = sha256(h_i-1 || record_i); the last stage appends 32 bytes more
///   inputs   g_-1 = sha256("DeCLAI link" || job id || stage), g_i = sha256(g_i-1 || input root_i)
/// All steps of the first chain hash 286 bytes but the last stage's tail, which makes 64: no chain reads in two ways.
library Records {
    uint256 internal constant RECORD_BYTES = 254;
    uint256 internal constant CHUNK_POSITIONS = 32;

    /// @notice How many records there are; zero when the bytes are no whole number of them.
    function count(bytes calldata records) internal pure returns (uint256) {
        return records.length % RECORD_BYTES == 0 ? records.length / RECORD_BYTES : 0;
    }

    function recordAt(bytes calldata records, uint256 index) internal pure returns (bytes calldata) {
        return records[index * RECORD_BYTES:(index + 1) * RECORD_BYTES];
    }

    /// @notice Head of the record chain.
    /// @param tail What the last stage appends; zero for none.
    function outputs(bytes32 assignment, bytes calldata records, bytes32 tail) internal pure returns (bytes32 head) {
        head = assignment;
        uint256 numRecords = count(records);
        for (uint256 i = 0; i < numRecords; ++i) {
            head = sha256(abi.encodePacked(head, recordAt(records, i)));
        }
        if (tail != 0) head = sha256(abi.encodePacked(head, tail));
    }

    /// @notice Head of the chain over the link that leads into the stage.
    function inputs(bytes32 job, uint8 stage, bytes calldata records) internal pure returns (bytes32 head) {
        head = sha256(abi.encodePacked("DeCLAI link", job, stage));
        uint256 numRecords = count(records);
        for (uint256 i = 0; i < numRecords; ++i) {
            head = sha256(abi.encodePacked(head, inputRoot(recordAt(records, i))));
        }
    }

    /// @notice Names one attempt at a request on links.
    function jobId(bytes32 request, uint32 attempt) internal pure returns (bytes32) {
        return sha256(abi.encodePacked(request, attempt));
    }

    function version(bytes calldata record) internal pure returns (uint8) {
        return uint8(record[0]);
    }

    function numericProfile(bytes calldata record) internal pure returns (uint8) {
        return uint8(record[1]);
    }

    function stageOf(bytes calldata record) internal pure returns (uint8) {
        return uint8(record[2]);
    }

    function chunkIndex(bytes calldata record) internal pure returns (uint32) {
        return uint32(bytes4(record[4:8]));
    }

    function firstPosition(bytes calldata record) internal pure returns (uint32) {
        return uint32(bytes4(record[8:12]));
    }

    function numTokens(bytes calldata record) internal pure returns (uint16) {
        return uint16(bytes2(record[12:14]));
    }

    function jobPrefix(bytes calldata record) internal pure returns (bytes16) {
        return bytes16(record[14:30]);
    }

    function shardRoot(bytes calldata record) internal pure returns (bytes32) {
        return bytes32(record[30:62]);
    }

    function inputRoot(bytes calldata record) internal pure returns (bytes32) {
        return bytes32(record[62:94]);
    }
}
