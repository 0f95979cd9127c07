// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IInferenceLedger} from "../interfaces/IInferenceLedger.sol";
import {Messages} from "./Messages.sol";

/// @title What a claim says, and who signed its request
/// @notice The innermost loop of a settlement.
library Claims {
    /// @dev Half the order of secp256k1. A signature with a higher s is the twin of a valid one (EIP-2).
    uint256 private constant HALF_ORDER = 0x7fffffffffffffffffffffffffffffff5d576e7357a4501ddfe92f46681b20a0;

    /// @notice The claim number `index`, which callers have compared with the number of claims.
    /// @dev The array of calldata was checked as a whole when the call was decoded; each claim takes six words of it.
    function get(IInferenceLedger.Claim[] calldata claims, uint256 index)
        internal
        pure
        returns (IInferenceLedger.Claim calldata claim)
    {
        assembly ("memory-safe") {
            claim := add(claims.offset, mul(index, 0xc0))
        }
    }

    function nonce(IInferenceLedger.Claim calldata self) internal pure returns (uint256) {
        return self.counts >> 192;
    }

    function ackedBelow(IInferenceLedger.Claim calldata self) internal pure returns (uint256) {
        // casting to 'uint64' is what these bits are
        // forge-lint: disable-next-line(unsafe-typecast)
        return uint64(self.counts >> 128);
    }

    function cost(IInferenceLedger.Claim calldata self) internal pure returns (uint256) {
        // casting to 'uint128' is what these bits are
        // forge-lint: disable-next-line(unsafe-typecast)
        return uint128(self.counts);
    }

    function maxCost(IInferenceLedger.Claim calldata self) internal pure returns (uint256) {
        return self.amounts >> 128;
    }

    function spent(IInferenceLedger.Claim calldata self) internal pure returns (uint256) {
        // casting to 'uint128' is what these bits are
        // forge-lint: disable-next-line(unsafe-typecast)
        return uint128(self.amounts);
    }

    /// @notice Its cost, which is at most its cap.
    function checkedCost(IInferenceLedger.Claim calldata self) internal pure returns (uint256) {
        if (cost(self) > maxCost(self)) {
            revert IInferenceLedger.InferenceLedgerCostAboveCap(self.session, nonce(self), cost(self), maxCost(self));
        }
        return cost(self);
    }

    /// @notice Who signed the claim's request; zero when the signature is no good.
    /// @param domain EIP-712 domain separator.
    /// @dev The same as hashing with abi.encode and recovering with OpenZeppelin's ECDSA, which costs 1,500 gas more; a fuzz test
    /// holds the two to each other. It is safe because
    /// - it reads the claim by its struct's layout: six words of calldata, whose presence is checked by the caller's access to
    ///   the array of static structs that it stands in;
    /// - it writes from the free memory pointer on and to the scratch space (0x00-0x3f) alone, and moves no pointer: nobody owns
    ///   that memory, and nothing of it is used later;
    /// - a failing precompile returns nothing, so that the word at 0x00, cleared before, stays zero.
    function signer(IInferenceLedger.Claim calldata self, bytes32 domain) internal view returns (address account) {
        bytes32 typeHash = Messages.REQUEST_TYPEHASH;
        uint256 halfOrder = HALF_ORDER;
        assembly ("memory-safe") {
            let counts := calldataload(add(self, 0x40))
            let amounts := calldataload(add(self, 0x60))
            let memory_ := mload(0x40)
            mstore(memory_, typeHash)
            mstore(add(memory_, 0x20), calldataload(self)) // session
            mstore(add(memory_, 0x40), shr(192, counts)) // nonce
            mstore(add(memory_, 0x60), shr(128, amounts)) // maxCost
            mstore(add(memory_, 0x80), and(shr(128, counts), 0xffffffffffffffff)) // ackedBelow
            mstore(add(memory_, 0xa0), and(amounts, 0xffffffffffffffffffffffffffffffff)) // spent
            mstore(add(memory_, 0xc0), calldataload(add(self, 0x20))) // work
            let structHash := keccak256(memory_, 0xe0)
            mstore(memory_, shl(240, 0x1901))
            mstore(add(memory_, 0x02), domain)
            mstore(add(memory_, 0x22), structHash)
            mstore(memory_, keccak256(memory_, 0x42))
            let vs := calldataload(add(self, 0xa0))
            let s := shr(1, shl(1, vs))
            mstore(add(memory_, 0x20), add(shr(255, vs), 27))
            mstore(add(memory_, 0x40), calldataload(add(self, 0x80))) // r
            mstore(add(memory_, 0x60), s)
            mstore(0x00, 0)
            if iszero(gt(s, halfOrder)) {
                pop(staticcall(gas(), 0x01, memory_, 0x80, 0x00, 0x20))
            }
            account := mload(0x00)
        }
    }
}
