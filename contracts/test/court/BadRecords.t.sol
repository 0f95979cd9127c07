// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IComputeDisputes} from "../../src/interfaces/IComputeDisputes.sol";
import {IDisputeCourt} from "../../src/interfaces/IDisputeCourt.sol";
import {IExaminer} from "../../src/interfaces/IExaminer.sol";
import {Disputed} from "../helpers/Disputed.sol";

/// @notice A node's own records against its assignment and its receipt.
contract BadRecordsTest is Disputed {
    function _prove(uint256 index) internal {
        IExaminer.Evidence memory evidence = _evidence();
        vm.prank(stranger);
        court.proveBadRecord(evidence, index);
    }

    function _flawOf(uint256 index) internal view returns (uint256) {
        (address operator, bytes32 assignment, IExaminer.Flaw flaw) = court.examiner().flawOf(_evidence(), index);
        vm.assertEq(operator, worker);
        vm.assertEq(assignment, receipt.assignment);
        return uint256(flaw);
    }

    function test_HonestRecordsHaveNoFlaw() public {
        for (uint256 i = 0; i < 3; ++i) {
            vm.assertEq(_flawOf(i), uint256(IExaminer.Flaw.None));
        }
        IExaminer.Evidence memory evidence = _evidence();
        vm.expectRevert(abi.encodeWithSelector(IComputeDisputes.DisputeCourtNoFlaw.selector, 2));
        court.proveBadRecord(evidence, 2);
    }

    function test_ABadRecordCostsStakeOnce() public {
        _setByte(254 + 30, 0x77);
        uint256 stake = nodes.node(worker).stake;
        vm.expectEmit();
        emit IComputeDisputes.BadRecordProved(
            worker, receipt.assignment, stranger, IExaminer.Flaw.Shard, 1, uint128(stake / 2), uint128(stake / 10)
        );
        _prove(1);
        vm.assertEq(nodes.node(worker).stake, stake / 2);
        vm.assertEq(court.balanceOf(stranger), stake / 10);
        vm.assertEq(court.balanceOf(treasury), stake * 4 / 10);
        vm.assertFalse(nodes.isActive(worker, WORKER));
        vm.assertTrue(court.hasBadRecords(worker, receipt.assignment));
        IExaminer.Evidence memory evidence = _evidence();
        vm.expectRevert(
            abi.encodeWithSelector(IDisputeCourt.DisputeCourtAlreadyProved.selector, worker, receipt.assignment)
        );
        court.proveBadRecord(evidence, 1);
    }

    function test_EveryFieldIsHeldToTheAssignment() public {
        // Offset of a byte of the second record, and what is wrong when it is changed.
        uint256[8] memory offsets = [uint256(0), 2, 7, 11, 13, 14, 1, 30];
        IExaminer.Flaw[8] memory flaws = [
            IExaminer.Flaw.Version,
            IExaminer.Flaw.Stage,
            IExaminer.Flaw.ChunkIndex,
            IExaminer.Flaw.FirstPosition,
            IExaminer.Flaw.NumTokens,
            IExaminer.Flaw.Job,
            IExaminer.Flaw.NumericProfile,
            IExaminer.Flaw.Shard
        ];
        for (uint256 i = 0; i < offsets.length; ++i) {
            bytes1 right = records[254 + offsets[i]];
            _setByte(254 + offsets[i], right ^ 0x40);
            vm.assertEq(_flawOf(1), uint256(flaws[i]));
            vm.assertEq(_flawOf(0), uint256(IExaminer.Flaw.None));
            _setByte(254 + offsets[i], right);
        }
    }

    function test_TheLastRecordHasWhatIsLeft() public {
        _setByte(2 * 254 + 13, bytes1(uint8(32)));
        vm.assertEq(_flawOf(2), uint256(IExaminer.Flaw.NumTokens));
    }

    function test_TheNumberOfRecordsFollowsFromTheTokens() public {
        receipt.outputTokens = 40;
        vm.assertEq(_flawOf(0), uint256(IExaminer.Flaw.NumRecords));
        (receipt.promptTokens, receipt.outputTokens) = (0, 0);
        vm.assertEq(_flawOf(0), uint256(IExaminer.Flaw.NumRecords));
    }

    function test_InputRootsMakeTheReceiptsInputs() public {
        receipt.inputs = keccak256("others");
        vm.assertEq(_flawOf(0), uint256(IExaminer.Flaw.Inputs));
    }

    function test_AnotherProfileThanAssignedIsAFlaw() public {
        work.assignment.numericProfile = 1;
        work.assignmentSignature = _signature(GATEWAY_SIGNER_KEY, ledger.hashAssignment(work.assignment));
        _fold();
        vm.assertEq(_flawOf(0), uint256(IExaminer.Flaw.NumericProfile));
    }

    function test_TheLastStagesTailCounts() public {
        bytes32 tail = keccak256("tokens and sampling");
        receipt.outputs = sha256(abi.encodePacked(receipt.outputs, tail));
        IExaminer.Evidence memory evidence = _evidence();
        evidence.tail = tail;
        (,, IExaminer.Flaw flaw) = court.examiner().flawOf(evidence, 0);
        vm.assertEq(uint256(flaw), uint256(IExaminer.Flaw.None));
    }

    // Evidence that is none

    function test_RevertWhen_TheRecordsAreNotTheReceipts() public {
        bytes32 head = receipt.outputs;
        bytes memory changed = records;
        changed[100] = 0x77;
        records = changed;
        IExaminer.Evidence memory evidence = _evidence();
        _fold();
        vm.expectRevert(abi.encodeWithSelector(IExaminer.ExaminerNotTheRecords.selector, head, receipt.outputs));
        court.proveBadRecord(evidence, 0);
    }

    function test_RevertWhen_TheRecordsAreNoRecords() public {
        records = bytes.concat(records, hex"00");
        IExaminer.Evidence memory evidence = _evidence();
        vm.expectRevert(abi.encodeWithSelector(IExaminer.ExaminerInvalidRecords.selector, records.length));
        court.proveBadRecord(evidence, 0);
        evidence.records = "";
        vm.expectRevert(abi.encodeWithSelector(IExaminer.ExaminerInvalidRecords.selector, 0));
        court.proveBadRecord(evidence, 0);
    }

    function test_RevertWhen_ThereIsNoSuchRecord() public {
        IExaminer.Evidence memory evidence = _evidence();
        vm.expectRevert(abi.encodeWithSelector(IExaminer.ExaminerNoSuchRecord.selector, 3, 3));
        court.proveBadRecord(evidence, 3);
    }

    function test_RevertWhen_TheReceiptIsForAnotherAssignment() public {
        receipt.assignment = keccak256("other");
        IExaminer.Evidence memory evidence = _evidence();
        bytes32 assignment = ledger.hashAssignment(work.assignment);
        vm.expectRevert(abi.encodeWithSelector(IExaminer.ExaminerUnrelated.selector, assignment, receipt.assignment));
        court.proveBadRecord(evidence, 0);
    }

    function test_RevertWhen_TheReceiptIsAnotherNodes() public {
        receipt.node = stranger;
        IExaminer.Evidence memory evidence = _evidence();
        vm.expectRevert(
            abi.encodeWithSelector(
                IExaminer.ExaminerUnrelated.selector,
                bytes32(uint256(uint160(worker))),
                bytes32(uint256(uint160(stranger)))
            )
        );
        court.proveBadRecord(evidence, 0);
    }

    function test_RevertWhen_SomebodyElseSigned() public {
        IExaminer.Evidence memory evidence = _evidence();
        evidence.receiptSignature = _signature(STRANGER_KEY, ledger.hashReceipt(receipt));
        vm.expectRevert(abi.encodeWithSelector(IDisputeCourt.DisputeCourtNotSignedBy.selector, worker, stranger));
        court.proveBadRecord(evidence, 0);
        evidence = _evidence();
        evidence.assignmentSignature = _signature(STRANGER_KEY, receipt.assignment);
        vm.expectRevert(abi.encodeWithSelector(IDisputeCourt.DisputeCourtNotSignedBy.selector, gateway, stranger));
        court.proveBadRecord(evidence, 0);
    }
}
