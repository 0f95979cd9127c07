// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IInferenceLedger} from "../../src/interfaces/IInferenceLedger.sol";
import {InferenceRequest} from "../../src/libraries/Messages.sol";

/// @notice A signed request as the ledger takes it, spelled out.
library Packing {
    bytes32 internal constant WORK_TYPEHASH =
        keccak256("Work(bytes32 model,bytes32 body,uint32 maxTokens,uint8 tier,uint64 deadline)");

    function claim(InferenceRequest memory request, uint128 cost, bytes32 r, bytes32 vs)
        internal
        pure
        returns (IInferenceLedger.Claim memory)
    {
        return IInferenceLedger.Claim({
            session: request.session,
            work: keccak256(abi.encode(WORK_TYPEHASH, request.work)),
            counts: uint256(request.nonce) << 192 | uint256(request.ackedBelow) << 128 | cost,
            amounts: uint256(request.maxCost) << 128 | request.spent,
            r: r,
            vs: vs
        });
    }
}
