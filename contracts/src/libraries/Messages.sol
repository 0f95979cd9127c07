// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @notice What a request asks for.
/// @param model keccak256 of the model's UTF-8 name.
/// @param body Salted hash of the canonical request body.
/// @param maxTokens Most tokens that may be generated.
/// @param tier 0 research, 1 production, 2 real-time.
/// @param deadline Unix time, in seconds, after which nobody should start the work.
struct Work {
    bytes32 model;
    bytes32 body;
    uint32 maxTokens;
    uint8 tier;
    uint64 deadline;
}

/// @notice A payer's order, signed by the session's key. What is asked for stands in a struct of its own, so that who
/// settles shows its hash alone.
/// @param session Session that pays.
/// @param nonce Number of the request within the session, strictly rising.
/// @param maxCost Most that this request may cost, in base units of the credit.
/// @param ackedBelow All requests of the session with a nonce below this one are acknowledged ...
/// @param spent ... to have cost this much in total, in base units.
/// @param work What is asked for.
struct InferenceRequest {
    bytes32 session;
    uint64 nonce;
    uint128 maxCost;
    uint64 ackedBelow;
    uint128 spent;
    Work work;
}

/// @notice A gateway's order to one node for one stage, signed by the gateway's signer.
/// @param request EIP-712 digest of the request.
/// @param stage Place in the pipeline, counted from 0.
/// @param firstLayer First layer of the stage.
/// @param endLayer Layer after the last one of the stage.
/// @param numericProfile Number format to compute in, as in the node's offer.
/// @param shard Root over the weights of these layers, as the model's manifest lists them.
/// @param node Operator that serves the stage.
/// @param promptPrice Base units per million token-layers of prompt.
/// @param outputPrice Base units per million token-layers of output.
/// @param attempt Counts up when a stage is placed anew.
/// @param deadline Unix time, in seconds.
struct Assignment {
    bytes32 request;
    uint8 stage;
    uint16 firstLayer;
    uint16 endLayer;
    uint8 numericProfile;
    bytes32 shard;
    address node;
    uint128 promptPrice;
    uint128 outputPrice;
    uint32 attempt;
    uint64 deadline;
}

/// @notice A node's account of what it did for an assignment, signed by the node's signer.
/// @param assignment EIP-712 digest of the assignment.
/// @param node Operator that served it.
/// @param promptTokens Prompt tokens fed.
/// @param outputTokens Tokens that the last stage sampled and delivered.
/// @param inputs Head of the commitment chain over what the stage received.
/// @param outputs Head of the commitment chain over what the stage sent.
/// @param cost Base units of the credit that the stage earns.
/// @param startedAt Unix time, in seconds.
/// @param finishedAt Unix time, in seconds.
struct InferenceReceipt {
    bytes32 assignment;
    address node;
    uint32 promptTokens;
    uint32 outputTokens;
    bytes32 inputs;
    bytes32 outputs;
    uint128 cost;
    uint64 startedAt;
    uint64 finishedAt;
}

/// @notice A gateway's word, by its signer, that a receipt is true and that it owes what the receipt costs.
/// @param receipt EIP-712 digest of the receipt.
struct Acceptance {
    bytes32 receipt;
}

/// @notice Consent to close a session at once, given by its payer and by its gateway.
/// @param session Session to close.
/// @param settled The total that the gateway took from the session and keeps: consent to any other total is void.
/// @param deadline Unix time, in seconds, after which the consent is void.
struct SessionClose {
    bytes32 session;
    uint128 settled;
    uint64 deadline;
}

/// @title EIP-712 struct hashes of the messages that DeCLAI signs
/// @notice One place for types and hashes; Python's types are tested against these.
library Messages {
    bytes32 internal constant REQUEST_TYPEHASH = keccak256(
        "InferenceRequest(bytes32 session,uint64 nonce,uint128 maxCost,uint64 ackedBelow,uint128 spent,Work work)Work(bytes32 model,bytes32 body,uint32 maxTokens,uint8 tier,uint64 deadline)"
    );
    bytes32 internal constant WORK_TYPEHASH =
        keccak256("Work(bytes32 model,bytes32 body,uint32 maxTokens,uint8 tier,uint64 deadline)");
    bytes32 internal constant ASSIGNMENT_TYPEHASH = keccak256(
        "Assignment(bytes32 request,uint8 stage,uint16 firstLayer,uint16 endLayer,uint8 numericProfile,bytes32 shard,address node,uint128 promptPrice,uint128 outputPrice,uint32 attempt,uint64 deadline)"
    );
    bytes32 internal constant RECEIPT_TYPEHASH = keccak256(
        "InferenceReceipt(bytes32 assignment,address node,uint32 promptTokens,uint32 outputTokens,bytes32 inputs,bytes32 outputs,uint128 cost,uint64 startedAt,uint64 finishedAt)"
    );
    bytes32 internal constant ACCEPTANCE_TYPEHASH = keccak256("Acceptance(bytes32 receipt)");
    bytes32 internal constant CLOSE_TYPEHASH =
        keccak256("SessionClose(bytes32 session,uint128 settled,uint64 deadline)");

    function hash(InferenceRequest calldata request) internal pure returns (bytes32) {
        return keccak256(
            abi.encode(
                REQUEST_TYPEHASH,
                request.session,
                request.nonce,
                request.maxCost,
                request.ackedBelow,
                request.spent,
                hash(request.work)
            )
        );
    }

    /// @dev Here and below all members are static, so abi.encode of the struct is EIP-712's encodeData.
    function hash(Work calldata work) internal pure returns (bytes32) {
        return keccak256(abi.encode(WORK_TYPEHASH, work));
    }

    function hash(Assignment calldata assignment) internal pure returns (bytes32) {
        return keccak256(abi.encode(ASSIGNMENT_TYPEHASH, assignment));
    }

    function hash(InferenceReceipt calldata receipt) internal pure returns (bytes32) {
        return keccak256(abi.encode(RECEIPT_TYPEHASH, receipt));
    }

    function hash(Acceptance memory acceptance) internal pure returns (bytes32) {
        return keccak256(abi.encode(ACCEPTANCE_TYPEHASH, acceptance));
    }

    function hash(SessionClose calldata consent) internal pure returns (bytes32) {
        return keccak256(abi.encode(CLOSE_TYPEHASH, consent));
    }
}
