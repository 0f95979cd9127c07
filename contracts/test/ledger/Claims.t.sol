// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IInferenceLedger} from "../../src/interfaces/IInferenceLedger.sol";
import {Claims} from "../../src/libraries/Claims.sol";
import {InferenceRequest} from "../../src/libraries/Messages.sol";
import {Base} from "../helpers/Base.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";

/// @notice The assembly of libraries/Claims.sol against plain Solidity and OpenZeppelin's ECDSA.
contract ClaimsTest is Base {
    using Claims for IInferenceLedger.Claim;
    using Claims for IInferenceLedger.Claim[];

    function signerOf(IInferenceLedger.Claim calldata claim, bytes32 domain) external view returns (address) {
        return claim.signer(domain);
    }

    function get(IInferenceLedger.Claim[] calldata claims, uint256 index)
        external
        pure
        returns (IInferenceLedger.Claim memory)
    {
        return claims.get(index);
    }

    function test_TheSignerOfASignedRequest(InferenceRequest memory request, uint128 cost, uint256 key) public view {
        key = _bound(key, 1, 1e70);
        vm.assertEq(this.signerOf(_claim(key, request, cost), _domain()), vm.addr(key));
    }

    function test_AnySignatureMeansWhatOpenZeppelinSays(IInferenceLedger.Claim memory claim) public view {
        vm.assertEq(this.signerOf(claim, _domain()), _expected(claim));
    }

    function test_HighAndZeroParts(uint8 kind) public view {
        IInferenceLedger.Claim memory claim = _claim(bytes32(uint256(1)), 0, 1, 0, 0);
        uint256 half = 0x7fffffffffffffffffffffffffffffff5d576e7357a4501ddfe92f46681b20a0;
        if (kind % 5 == 0) claim.vs = bytes32(half);
        if (kind % 5 == 1) claim.vs = bytes32(half + 1);
        if (kind % 5 == 2) claim.vs = 0;
        if (kind % 5 == 3) claim.r = 0;
        if (kind % 5 == 4) claim.r = bytes32(type(uint256).max);
        vm.assertEq(this.signerOf(claim, _domain()), _expected(claim));
    }

    function test_GetIsTheArraysElement(IInferenceLedger.Claim[] memory claims, uint256 index) public view {
        vm.assume(claims.length != 0);
        index = index % claims.length;
        vm.assertEq(keccak256(abi.encode(this.get(claims, index))), keccak256(abi.encode(claims[index])));
    }

    function _expected(IInferenceLedger.Claim memory claim) internal view returns (address signer) {
        bytes32 typeHash = keccak256(
            "InferenceRequest(bytes32 session,uint64 nonce,uint128 maxCost,uint64 ackedBelow,uint128 spent,Work work)Work(bytes32 model,bytes32 body,uint32 maxTokens,uint8 tier,uint64 deadline)"
        );
        bytes memory head = abi.encode(typeHash, claim.session, claim.counts >> 192, claim.amounts >> 128);
        bytes memory tail = abi.encode(uint64(claim.counts >> 128), uint128(claim.amounts), claim.work);
        bytes32 digest = keccak256(abi.encodePacked(hex"1901", _domain(), keccak256(bytes.concat(head, tail))));
        (signer,,) = ECDSA.tryRecover(digest, claim.r, claim.vs);
    }

    function _domain() internal view returns (bytes32) {
        return keccak256(
            abi.encode(
                keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"),
                keccak256("DeCLAI"),
                keccak256("1"),
                block.chainid,
                address(ledger)
            )
        );
    }
}
