// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IExaminer} from "../interfaces/IExaminer.sol";
import {IInferenceLedger} from "../interfaces/IInferenceLedger.sol";
import {INodeRegistry} from "../interfaces/INodeRegistry.sol";
import {InferenceReceipt, InferenceRequest} from "../libraries/Messages.sol";
import {Records} from "../libraries/Records.sol";
import {Signers} from "../libraries/Signers.sol";

/// @title Reads evidence: whose words they are, and whether they contradict each other
/// @notice The node's signature on the receipt covers every record through the hash chain, so each byte of them is its word.
/// @dev A contract of its own because the court's code would not fit into one with it.
contract Examiner is IExaminer {
    using Records for bytes;

    uint8 private constant RECORD_VERSION = 1;

    INodeRegistry private immutable NODES;
    IInferenceLedger private immutable LEDGER;
    uint48 private immutable EVIDENCE_PERIOD;

    constructor(IInferenceLedger ledger, uint48 evidencePeriod) {
        (NODES, LEDGER, EVIDENCE_PERIOD) = (ledger.nodes(), ledger, evidencePeriod);
    }

    /// @inheritdoc IExaminer
    function flawOf(Evidence calldata evidence, uint256 index)
        external
        view
        override
        returns (address operator, bytes32 assignment, Flaw flaw)
    {
        (assignment,) = _checkEvidence(evidence, index);
        return (evidence.assignment.node, assignment, _flawOf(evidence, index));
    }

    /// @inheritdoc IExaminer
    function chargeOf(Evidence calldata evidence, InferenceRequest calldata request, uint32 chunk)
        external
        view
        override
        returns (Charge memory charge)
    {
        (charge.assignment, charge.receipt) = _checkEvidence(evidence, chunk);
        bytes32 ordered = LEDGER.hashRequest(request);
        if (ordered != evidence.assignment.request) revert ExaminerUnrelated(evidence.assignment.request, ordered);
        (charge.firstLayer, charge.endLayer) = (evidence.assignment.firstLayer, evidence.assignment.endLayer);
        if (charge.firstLayer >= charge.endLayer) revert ExaminerNoLayers(charge.firstLayer, charge.endLayer);
        charge.accused = evidence.assignment.node;
        charge.gateway = evidence.gateway;
        charge.cost = evidence.receipt.cost < type(uint96).max ? uint96(evidence.receipt.cost) : type(uint96).max;
        charge.endedAt = _endedAt(evidence.receipt.finishedAt, evidence.assignment.deadline);
        charge.numericProfile = evidence.assignment.numericProfile;
        // A session's id begins with its payer.
        charge.payer = address(uint160(uint256(request.session) >> 96));
        (charge.model, charge.chunk) = (request.work.model, chunk);
    }

    /// @dev The end of the work is the node's own word, so the gateway's deadline counts when it is later.
    function _endedAt(uint64 finishedAt, uint64 deadline) private pure returns (uint48) {
        uint64 endedAt = finishedAt < deadline ? deadline : finishedAt;
        // casting to 'uint48' is safe because it is checked
        // forge-lint: disable-next-line(unsafe-typecast)
        return endedAt < type(uint48).max ? uint48(endedAt) : type(uint48).max;
    }

    /// @dev Checks that the gateway that is named ordered the work, that the node signed the receipt for it, and that the records
    /// are the ones behind the receipt. The assignment does not name its gateway: another can sign it too.
    function _checkEvidence(Evidence calldata evidence, uint256 index)
        private
        view
        returns (bytes32 assignment, bytes32 receipt)
    {
        assignment = LEDGER.hashAssignment(evidence.assignment);
        Signers.check(NODES, EVIDENCE_PERIOD, evidence.gateway, assignment, evidence.assignmentSignature);
        if (evidence.receipt.assignment != assignment) {
            revert ExaminerUnrelated(assignment, evidence.receipt.assignment);
        }
        address node = evidence.assignment.node;
        if (evidence.receipt.node != node) revert ExaminerUnrelated(_word(node), _word(evidence.receipt.node));
        receipt = LEDGER.hashReceipt(evidence.receipt);
        Signers.check(NODES, EVIDENCE_PERIOD, node, receipt, evidence.receiptSignature);

        uint256 numRecords = evidence.records.count();
        if (numRecords == 0) revert ExaminerInvalidRecords(evidence.records.length);
        if (index >= numRecords) revert ExaminerNoSuchRecord(index, numRecords);
        bytes32 head = Records.outputs(assignment, evidence.records, evidence.tail);
        if (head != evidence.receipt.outputs) revert ExaminerNotTheRecords(evidence.receipt.outputs, head);
    }

    function _flawOf(Evidence calldata evidence, uint256 index) private pure returns (Flaw) {
        uint256 numPositions = _numPositions(evidence.receipt);
        uint256 first = index * Records.CHUNK_POSITIONS;
        if (evidence.records.count() != (numPositions + Records.CHUNK_POSITIONS - 1) / Records.CHUNK_POSITIONS) {
            return Flaw.NumRecords;
        }
        bytes calldata record = evidence.records.recordAt(index);
        if (record.version() != RECORD_VERSION) return Flaw.Version;
        if (record.stageOf() != evidence.assignment.stage) return Flaw.Stage;
        if (record.chunkIndex() != index) return Flaw.ChunkIndex;
        if (record.firstPosition() != first) return Flaw.FirstPosition;
        uint256 left = numPositions - first;
        if (record.numTokens() != (left < Records.CHUNK_POSITIONS ? left : Records.CHUNK_POSITIONS)) {
            return Flaw.NumTokens;
        }
        bytes32 job = Records.jobId(evidence.assignment.request, evidence.assignment.attempt);
        // casting to 'bytes16' is what a record has of the job's id
        // forge-lint: disable-next-line(unsafe-typecast)
        if (record.jobPrefix() != bytes16(job)) return Flaw.Job;
        if (record.numericProfile() != evidence.assignment.numericProfile) return Flaw.NumericProfile;
        if (record.shardRoot() != evidence.assignment.shard) return Flaw.Shard;
        bytes32 inputs = Records.inputs(job, evidence.assignment.stage, evidence.records);
        return inputs != evidence.receipt.inputs ? Flaw.Inputs : Flaw.None;
    }

    /// @dev All prompt and output tokens but the last one pass through the layers: nothing follows from it any more.
    function _numPositions(InferenceReceipt calldata receipt) private pure returns (uint256) {
        uint256 numTokens = uint256(receipt.promptTokens) + receipt.outputTokens;
        return numTokens == 0 ? 0 : numTokens - 1;
    }

    function _word(address account) private pure returns (bytes32) {
        return bytes32(uint256(uint160(account)));
    }
}
