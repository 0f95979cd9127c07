// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Assignment, InferenceReceipt, InferenceRequest} from "../libraries/Messages.sol";

/// @title Reads evidence: whose words they are, and whether they contradict each other
/// @notice It holds nothing and decides nothing; the court asks it.
interface IExaminer {
    /// @notice What of a receipt's records is wrong: in the order in which it is looked for.
    /// @param None Nothing is.
    /// @param NumRecords There are not as many as the receipt's tokens fill.
    /// @param Version Of a format that is not version 1.
    /// @param Stage Of another stage than the assignment's.
    /// @param ChunkIndex Not at its place.
    /// @param FirstPosition Not 32 times its index.
    /// @param NumTokens Not 32, or in the last record not what is left.
    /// @param Job Of another request or attempt than the assignment's.
    /// @param NumericProfile Of another number format than the assignment's.
    /// @param Shard Of other weights than the assignment's.
    /// @param Inputs The records' input roots do not make the head that the receipt names.
    enum Flaw {
        None,
        NumRecords,
        Version,
        Stage,
        ChunkIndex,
        FirstPosition,
        NumTokens,
        Job,
        NumericProfile,
        Shard,
        Inputs
    }

    /// @notice An assignment, the receipt for it, and all records behind the receipt.
    /// @param gateway Operator that signed the assignment, itself or by its signer. Anybody can sign one; what binds the node is its
    /// own receipt for it.
    /// @param assignmentSignature 65 bytes.
    /// @param receiptSignature By the node's operator or its signer, 65 bytes.
    /// @param records All records of the receipt, 254 bytes each.
    /// @param tail What the last stage of a pipeline appends to its record chain; zero for every other stage.
    struct Evidence {
        address gateway;
        Assignment assignment;
        bytes assignmentSignature;
        InferenceReceipt receipt;
        bytes receiptSignature;
        bytes records;
        bytes32 tail;
    }

    /// @notice What a node is accused of.
    /// @param accused Node that computed the chunk.
    /// @param cost Of the receipt, in base units.
    /// @param gateway Who assigned the work, as the evidence has it.
    /// @param endedAt Unix time, in seconds, of the end of the work: the node's word, or the gateway's deadline if that is later.
    /// @param firstLayer First layer of the stage.
    /// @param endLayer Layer after its last one.
    /// @param numericProfile Number format of the work.
    /// @param payer Whose request it was.
    /// @param chunk Which 32 positions are disputed: those from 32 * chunk.
    /// @param model As in the request.
    /// @param assignment EIP-712 digest.
    /// @param receipt EIP-712 digest.
    struct Charge {
        address accused;
        uint96 cost;
        address gateway;
        uint48 endedAt;
        uint16 firstLayer;
        uint16 endLayer;
        uint8 numericProfile;
        address payer;
        uint32 chunk;
        bytes32 model;
        bytes32 assignment;
        bytes32 receipt;
    }

    error ExaminerUnrelated(bytes32 expected, bytes32 given);
    /// @notice The records do not make the receipt's output head. That speaks against who brought them: anyone can invent some.
    error ExaminerNotTheRecords(bytes32 expected, bytes32 given);
    /// @notice The records are of the length of no number of records.
    error ExaminerInvalidRecords(uint256 length);
    /// @notice A stage of no layers: no juror holds them, and nobody can rerun it.
    error ExaminerNoLayers(uint16 firstLayer, uint16 endLayer);
    error ExaminerNoSuchRecord(uint256 index, uint256 numRecords);

    /// @notice What is wrong with the records behind a receipt.
    /// @param index Record to look at; what is wrong with all of them together is found with any.
    function flawOf(Evidence calldata evidence, uint256 index)
        external
        view
        returns (address operator, bytes32 assignment, Flaw flaw);

    /// @notice What a dispute over a chunk is about.
    /// @param request Request of the assignment.
    function chargeOf(Evidence calldata evidence, InferenceRequest calldata request, uint32 chunk)
        external
        view
        returns (Charge memory);
}
