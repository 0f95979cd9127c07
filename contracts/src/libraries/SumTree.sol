// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @notice A node of a Merkle-sum tree.
/// @param hash Hash of the node.
/// @param sum Sum of the leaves under it, in base units.
struct SumNode {
    bytes32 hash;
    uint128 sum;
}

/// @title Merkle-sum trees over receipts and the Merkle tree over payouts
/// @notice All integers are big-endian and packed; every kind of node has a prefix of its own, so that none passes for another.
///
/// Receipts of one node in one batch, in any order the gateway chose:
///   leaf    hash = keccak256(0x00 || bytes32 receiptDigest || uint128 cost), sum = cost
///   inner   hash = keccak256(0x01 || left.hash || uint128 left.sum || right.hash || uint128 right.sum),
///           sum = left.sum + right.sum
///   subroot keccak256(0x02 || top.hash || uint128 top.sum || uint32 numLeaves)
/// Each level pairs neighbours from the left; an odd last node moves up as it is. A tree without leaves has a zero top hash.
///
/// Payouts of one batch, in strictly rising order of the nodes' addresses:
///   leaf    keccak256(0x03 || address node || bytes32 subroot || uint32 faults)
///   inner   keccak256(0x04 || left || right), odd nodes as above; the last one left is the batch's root
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

    function payoutLeaf(address node, bytes32 subroot, uint32 faults) internal pure returns (bytes32) {
        return keccak256(abi.encodePacked(bytes1(0x03), node, subroot, faults));
    }

    function payoutInner(bytes32 left, bytes32 right) internal pure returns (bytes32) {
        return keccak256(abi.encodePacked(bytes1(0x04), left, right));
    }

    /// @notice Root over payout leaves, at least one. Overwrites `leaves`.
    function payoutRoot(bytes32[] memory leaves) internal pure returns (bytes32) {
        for (uint256 width = leaves.length; width > 1; width = (width + 1) / 2) {
            for (uint256 i = 0; i < width / 2; ++i) {
                leaves[i] = payoutInner(leaves[2 * i], leaves[2 * i + 1]);
            }
            if (width & 1 == 1) leaves[width / 2] = leaves[width - 1];
        }
        return leaves[0];
    }

    /// @notice Whether a payout leaf is number `index` of `numLeaves` under the root.
    function verifyPayout(bytes32 root, bytes32 node, uint32 index, uint32 numLeaves, bytes32[] calldata proof)
        internal
        pure
        returns (bool)
    {
        if (index >= numLeaves) return false;
        uint256 used;
        uint256 position = index;
        for (uint256 width = numLeaves; width > 1; width = (width + 1) / 2) {
            if (position ^ 1 < width) {
                if (used == proof.length) return false;
                bytes32 sibling = proof[used++];
                node = position & 1 == 0 ? payoutInner(node, sibling) : payoutInner(sibling, node);
            }
            position /= 2;
        }
        return used == proof.length && node == root;
    }
}
