// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IComputeDisputes} from "../../src/interfaces/IComputeDisputes.sol";
import {IExaminer} from "../../src/interfaces/IExaminer.sol";
import {IInferenceLedger} from "../../src/interfaces/IInferenceLedger.sol";
import {IJury} from "../../src/interfaces/IJury.sol";
import {InferenceReceipt} from "../../src/libraries/Messages.sol";
import {Served} from "./Served.sol";

/// @notice A receipt with its records, a challenger, and auditors with seats who hold the layers.
abstract contract Disputed is Served {
    uint96 internal constant DISPUTE_BOND = 25e18;
    uint96 internal constant FEE = 0.5e18;
    uint96 internal constant PENALTY = 2e18;
    uint256 internal constant NUM_AUDITORS = 60;
    uint64 internal constant GUILTY = 3_000_000;
    uint64 internal constant POOR = 700_000;
    uint64 internal constant CLEAR = 100_000;

    IInferenceLedger.SignedWork internal work;
    InferenceReceipt internal receipt;
    bytes internal records;
    address internal challenger = _person("challenger");
    address[] internal auditors;

    function setUp() public virtual override {
        super.setUp();
        _fund(challenger);
        work = _work(0, 0, 0);
        receipt = _receipt(work);
        // 79 positions: three records.
        (receipt.promptTokens, receipt.outputTokens) = (60, 20);
        _commit();
        for (uint256 i = 0; i < _numAuditors(); ++i) {
            auditors.push(_auditor(i));
        }
        vm.warp(1_800_003_600);
    }

    function _numAuditors() internal pure virtual returns (uint256) {
        return NUM_AUDITORS;
    }

    function _auditor(uint256 number) internal returns (address operator) {
        operator = vm.addr(0xA0D17000 + number);
        _fund(operator);
        _register(operator, vm.addr(0x51960000 + number), AUDITOR, MIN_AUDITOR);
        vm.prank(operator);
        nodes.setOffer(keccak256("tiny"), 0, 8, 0, 0, 0);
        vm.prank(operator);
        jury.takeSeat();
    }

    // Evidence

    /// @dev Records as an honest stage makes them, and the heads over them in the receipt.
    function _commit() internal {
        delete records;
        uint256 positions = uint256(receipt.promptTokens) + receipt.outputTokens - 1;
        for (uint256 i = 0; 32 * i < positions; ++i) {
            uint256 left = positions - 32 * i;
            records = bytes.concat(records, _record(1, i, uint16(left < 32 ? left : 32)));
        }
        _fold();
    }

    function _record(uint8 version, uint256 index, uint16 numTokens) internal view returns (bytes memory) {
        bytes memory head = abi.encodePacked(version, uint8(0), uint8(0), uint8(0), uint32(index), uint32(32 * index));
        bytes memory roots = abi.encodePacked(keccak256("weights"), sha256(abi.encode("in", index)));
        return
            abi.encodePacked(head, numTokens, bytes16(_job()), roots, sha256(abi.encode("out", index)), new bytes(128));
    }

    function _job() internal view returns (bytes32) {
        return sha256(abi.encodePacked(work.assignment.request, work.assignment.attempt));
    }

    /// @dev Heads of the receipt over the records as they are.
    function _fold() internal {
        bytes32 head = ledger.hashAssignment(work.assignment);
        bytes32 link = sha256(abi.encodePacked("DeCLAI link", _job(), work.assignment.stage));
        for (uint256 i = 0; i < records.length / 254; ++i) {
            bytes memory record = _slice(i);
            head = sha256(abi.encodePacked(head, record));
            bytes32 root;
            // The input root lies 62 bytes into a record.
            assembly ("memory-safe") {
                root := mload(add(record, 94))
            }
            link = sha256(abi.encodePacked(link, root));
        }
        (receipt.outputs, receipt.inputs) = (head, link);
        receipt.assignment = ledger.hashAssignment(work.assignment);
    }

    function _slice(uint256 index) internal view returns (bytes memory record) {
        record = new bytes(254);
        for (uint256 i = 0; i < 254; ++i) {
            record[i] = records[254 * index + i];
        }
    }

    /// @dev Changes one byte of the records, as the node signed them.
    function _setByte(uint256 index, bytes1 value) internal {
        bytes memory changed = records;
        changed[index] = value;
        records = changed;
        _fold();
    }

    function _evidence() internal view returns (IExaminer.Evidence memory) {
        return IExaminer.Evidence({
            gateway: gateway,
            assignment: work.assignment,
            assignmentSignature: work.assignmentSignature,
            receipt: receipt,
            receiptSignature: _signature(WORKER_SIGNER_KEY, ledger.hashReceipt(receipt)),
            records: records,
            tail: 0
        });
    }

    // Steps of a dispute

    function _dispute(uint32 chunk) internal returns (bytes32) {
        IExaminer.Evidence memory evidence = _evidence();
        vm.prank(challenger);
        return court.openDispute(evidence, work.request, chunk);
    }

    /// @dev A dispute whose first jury is drawn.
    function _trial() internal returns (bytes32 dispute) {
        dispute = _dispute(1);
        vm.prank(workerKey);
        court.publishOpening(dispute, "bafkopening");
        _draw(dispute);
    }

    function _draw(bytes32 dispute) internal {
        vm.roll(vm.getBlockNumber() + 5);
        jury.drawJury(dispute);
    }

    function _jurors(bytes32 dispute) internal view returns (address[] memory) {
        return jury.round(dispute, jury.caseOf(dispute).round).jurors;
    }

    function _commitment(bytes32 dispute, uint8 round, address juror, uint64 distance) internal view returns (bytes32) {
        bytes32 sketch = keccak256("sketch");
        bytes32 salt = keccak256(abi.encode("salt", juror));
        return keccak256(abi.encode(block.chainid, address(jury), dispute, round, juror, distance, sketch, salt));
    }

    /// @dev All jurors of the present round vote: juror i measured `distances[i]`, and those without one stay silent.
    function _vote(bytes32 dispute, uint64[] memory distances) internal {
        _commitVotes(dispute, distances);
        vm.warp(vm.getBlockTimestamp() + 12 hours);
        _revealVotes(dispute, distances);
        vm.warp(vm.getBlockTimestamp() + 6 hours);
    }

    function _commitVotes(bytes32 dispute, uint64[] memory distances) internal {
        address[] memory jurors = _jurors(dispute);
        uint8 round = jury.caseOf(dispute).round;
        for (uint256 i = 0; i < distances.length; ++i) {
            bytes32 commitment = _commitment(dispute, round, jurors[i], distances[i]);
            vm.prank(jurors[i]);
            jury.commitVote(dispute, commitment);
        }
    }

    function _revealVotes(bytes32 dispute, uint64[] memory distances) internal {
        address[] memory jurors = _jurors(dispute);
        for (uint256 i = 0; i < distances.length; ++i) {
            vm.prank(jurors[i]);
            jury.revealVote(dispute, distances[i], keccak256("sketch"), keccak256(abi.encode("salt", jurors[i])));
        }
    }

    /// @dev `all` votes of one distance.
    function _voteAll(bytes32 dispute, uint64 distance) internal {
        uint64[] memory distances = new uint64[](_jurors(dispute).length);
        for (uint256 i = 0; i < distances.length; ++i) {
            distances[i] = distance;
        }
        _vote(dispute, distances);
    }

    function _votes(uint64 a, uint64 b, uint64 c, uint64 d, uint64 e) internal pure returns (uint64[] memory all) {
        all = new uint64[](5);
        (all[0], all[1], all[2], all[3], all[4]) = (a, b, c, d, e);
    }

    function _finalize(bytes32 dispute) internal {
        vm.warp(vm.getBlockTimestamp() + 12 hours);
        vm.prank(stranger);
        court.finalize(dispute);
    }

    function _verdict(bytes32 dispute) internal view returns (uint256) {
        return uint256(court.dispute(dispute).verdict);
    }

    /// @dev What the court holds but owes to nobody: nothing, once no dispute is open.
    function _courtHolds() internal view returns (uint256 surplus) {
        surplus = token.balanceOf(address(court)) - court.balanceOf(treasury) - court.balanceOf(challenger)
            - court.balanceOf(worker) - court.balanceOf(payer) - court.balanceOf(stranger) - court.balanceOf(gateway);
        for (uint256 i = 0; i < auditors.length; ++i) {
            surplus -= court.balanceOf(auditors[i]);
        }
    }
}
