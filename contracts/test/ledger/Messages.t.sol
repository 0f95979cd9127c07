// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Assignment, InferenceReceipt, InferenceRequest, SessionClose, Work} from "../../src/libraries/Messages.sol";
import {Base} from "../helpers/Base.sol";

/// @notice Digests against EIP-712 spelled out field by field.
contract MessagesTest is Base {
    function test_HashRequest(InferenceRequest memory m) public view {
        bytes32 typeHash = keccak256(
            "InferenceRequest(bytes32 session,uint64 nonce,uint128 maxCost,uint64 ackedBelow,uint128 spent,Work work)Work(bytes32 model,bytes32 body,uint32 maxTokens,uint8 tier,uint64 deadline)"
        );
        bytes32 workType = keccak256("Work(bytes32 model,bytes32 body,uint32 maxTokens,uint8 tier,uint64 deadline)");
        Work memory w = m.work;
        bytes32 work = keccak256(abi.encode(workType, w.model, w.body, w.maxTokens, w.tier, w.deadline));
        bytes32 structHash = keccak256(abi.encode(typeHash, m.session, m.nonce, m.maxCost, m.ackedBelow, m.spent, work));
        vm.assertEq(ledger.hashRequest(m), _digest(structHash));
    }

    function test_HashAcceptance(bytes32 receipt) public view {
        bytes32 structHash = keccak256(abi.encode(keccak256("Acceptance(bytes32 receipt)"), receipt));
        vm.assertEq(ledger.hashAcceptance(receipt), _digest(structHash));
    }

    function test_HashAssignment(Assignment memory m) public view {
        bytes32 typeHash = keccak256(
            "Assignment(bytes32 request,uint8 stage,uint16 firstLayer,uint16 endLayer,uint8 numericProfile,bytes32 shard,address node,uint128 promptPrice,uint128 outputPrice,uint32 attempt,uint64 deadline)"
        );
        bytes memory head = abi.encode(typeHash, m.request, m.stage, m.firstLayer, m.endLayer, m.numericProfile);
        bytes memory tail = abi.encode(m.shard, m.node, m.promptPrice, m.outputPrice, m.attempt, m.deadline);
        vm.assertEq(ledger.hashAssignment(m), _digest(keccak256(bytes.concat(head, tail))));
    }

    function test_HashReceipt(InferenceReceipt memory m) public view {
        bytes32 typeHash = keccak256(
            "InferenceReceipt(bytes32 assignment,address node,uint32 promptTokens,uint32 outputTokens,bytes32 inputs,bytes32 outputs,uint128 cost,uint64 startedAt,uint64 finishedAt)"
        );
        bytes memory head = abi.encode(typeHash, m.assignment, m.node, m.promptTokens, m.outputTokens);
        bytes memory tail = abi.encode(m.inputs, m.outputs, m.cost, m.startedAt, m.finishedAt);
        vm.assertEq(ledger.hashReceipt(m), _digest(keccak256(bytes.concat(head, tail))));
    }

    function test_HashSessionClose(SessionClose memory m) public view {
        bytes32 typeHash = keccak256("SessionClose(bytes32 session,uint128 settled,uint64 deadline)");
        bytes32 structHash = keccak256(abi.encode(typeHash, m.session, m.settled, m.deadline));
        vm.assertEq(ledger.hashSessionClose(m), _digest(structHash));
    }

    function _digest(bytes32 structHash) internal view returns (bytes32) {
        bytes32 domain = keccak256(
            abi.encode(
                keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"),
                keccak256("DeCLAI"),
                keccak256("1"),
                block.chainid,
                address(ledger)
            )
        );
        return keccak256(abi.encodePacked(hex"1901", domain, structHash));
    }
}
