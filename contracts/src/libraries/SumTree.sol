// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @notice A node of a Merkle-sum tree.
/// @param hash Hash of the node.
/// @param sum Sum of the leaves under it, in base units.
struct SumNode {
    bytes32 hash;
    uint128 sum;
}

/// @title Merkle-sum trees over the receipts of a batch
/// @notice All integers are big-endian and packed; every kind of node has a prefix of its own, so that none passes for another.
///
/// Receipts of one node in one batch, in any order the gateway chose:
///   leaf    hash = keccak256(0x00 || bytes32 receiptDigest || uint128 cost), sum = cost
///   inner   hash = keccak256(0x01 || left.hash || uint128 left.sum || right.hash || uint128 right.sum),
///           sum = left.sum + right.sum
///   subroot keccak256(0x02 || top.hash || uint128 top.sum || uint32 numLeaves)
/// Each level pairs neighbours from the left; an odd last node moves up as it is. A tree without leaves has a zero top hash.
///
/// Receipts of one batch, over its nodes in the order of the payouts, as one block of IPFS (CIDv1, raw, sha2-256):
///   header sha256(subroot of the first node || ... || subroot of the last one || link)
/// where link is the binary CID of the file that holds the receipts in full.
library SumTree {
    /// @notice Only an empty tree has a zero top hash, and an empty tree sums to nothing.
    error SumTreeInvalidShape(bytes32 top, uint128 total, uint32 numLeaves);

    function leaf(bytes32 receipt, uint128 cost) internal pure returns (SumNode memory) {
        return SumNode(keccak256(abi.encodePacked(bytes1(0x00), receipt, cost)), cost);
    }

    function inner(SumNode memory left, SumNode memory right) internal pure returns (SumNode memory) {
        bytes32 hash = keccak256(abi.encodePacked(bytes1(0x01), left.hash, left.sum, right.hash, right.sum));
        return SumNode(hash, left.sum + right.sum);
    }

    /// @notice Subroot of a tree, from its top. It commits to the total and to the number of leaves.
    function seal(bytes32 top, uint128 total, uint32 numLeaves) internal pure returns (bytes32) {
        if ((top == 0) != (numLeaves == 0) || (numLeaves == 0 && total != 0)) {
            revert SumTreeInvalidShape(top, total, numLeaves);
        }
        return keccak256(abi.encodePacked(bytes1(0x02), top, total, numLeaves));
    }

    /// @notice Whether a receipt is leaf `index` of the tree with this top hash, total and number of leaves.
    /// @param proof Siblings from the leaf to the top, without the levels on which the node moves up alone.
    function verify(
        bytes32 top,
        uint128 total,
        uint32 numLeaves,
        bytes32 receipt,
        uint128 cost,
        uint32 index,
        SumNode[] calldata proof
    ) internal pure returns (bool) {
        if (index >= numLeaves) return false;
        SumNode memory node = leaf(receipt, cost);
        uint256 used;
        uint256 position = index;
        for (uint256 width = numLeaves; width > 1; width = (width + 1) / 2) {
            if (position ^ 1 < width) {
                if (used == proof.length) return false;
                SumNode memory sibling = proof[used++];
                // Sums of a forged proof could overflow; none that is part of a real tree does.
                if (sibling.sum > type(uint128).max - node.sum) return false;
                node = position & 1 == 0 ? inner(node, sibling) : inner(sibling, node);
            }
            position /= 2;
        }
        return used == proof.length && node.hash == top && node.sum == total;
    }

    /// @notice What a batch commits to about its receipts. Nodes are few: a flat hash is cheaper than a tree.
    function header(bytes32[] calldata subroots, bytes calldata link) internal pure returns (bytes32) {
        return sha256(abi.encodePacked(subroots, link));
    }
}
