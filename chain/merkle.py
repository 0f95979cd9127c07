"""Merkle-sum trees over a node's receipts, and what a batch commits to.

The same trees as contracts/src/libraries/SumTree.sol, whose comment defines them; tests hold the two to each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from eth_utils.crypto import keccak


@dataclass(frozen=True)
class SumNode:
    """A node of a Merkle-sum tree: 32-byte hash, and the sum of the leaves under it in base units."""

    hash: bytes
    sum: int


def _uint128(value: int) -> bytes:
    return value.to_bytes(16, "big")


def sum_leaf(receipt: bytes, cost: int) -> SumNode:
    """Leaf of a receipt (its EIP-712 digest) and its cost."""
    return SumNode(keccak(b"\x00" + receipt + _uint128(cost)), cost)


def _inner(left: SumNode, right: SumNode) -> SumNode:
    packed = b"\x01" + left.hash + _uint128(left.sum) + right.hash + _uint128(right.sum)
    return SumNode(keccak(packed), left.sum + right.sum)


class SumTree:
    """The tree over one node's receipts in a batch, in the order given."""

    def __init__(self, leaves: Sequence[tuple[bytes, int]]) -> None:
        """`leaves`: (receipt digest, cost) each. Raises OverflowError when the costs exceed 128 bits."""
        self._levels = [[sum_leaf(receipt, cost) for receipt, cost in leaves]]
        while len(level := self._levels[-1]) > 1:
            above = [_inner(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
            self._levels.append(above + level[len(level) & ~1 :])
        _uint128(self.total)

    @property
    def num_leaves(self) -> int:
        return len(self._levels[0])

    @property
    def top(self) -> bytes:
        """Hash of the top node; zero when there is no leaf."""
        return self._levels[-1][0].hash if self.num_leaves else bytes(32)

    @property
    def total(self) -> int:
        return self._levels[-1][0].sum if self.num_leaves else 0

    @property
    def root(self) -> bytes:
        """The subroot: commits to the top, the total and the number of leaves."""
        return seal(self.top, self.total, self.num_leaves)

    def proof(self, index: int) -> list[SumNode]:
        """Siblings of leaf `index` up to the top, without the levels on which a node moves up alone."""
        if not 0 <= index < self.num_leaves:
            raise IndexError(f"leaf {index} of {self.num_leaves}")
        siblings = []
        for level in self._levels[:-1]:
            if index ^ 1 < len(level):
                siblings.append(level[index ^ 1])
            index //= 2
        return siblings


def seal(top: bytes, total: int, num_leaves: int) -> bytes:
    """Subroot of a tree from its top, its total and its number of leaves."""
    return keccak(b"\x02" + top + _uint128(total) + num_leaves.to_bytes(4, "big"))


def verify_sum_proof(
    subroot: bytes, total: int, num_leaves: int, receipt: bytes, cost: int, index: int, proof: Sequence[SumNode]
) -> bool:
    """Whether a receipt is leaf `index` of the tree with this subroot."""
    if not 0 <= index < num_leaves:
        return False
    node, siblings, width = sum_leaf(receipt, cost), list(proof), num_leaves
    while width > 1:
        if index ^ 1 < width:
            if not siblings:
                return False
            sibling = siblings.pop(0)
            if node.sum + sibling.sum >= 2**128:
                return False
            node = _inner(node, sibling) if index % 2 == 0 else _inner(sibling, node)
        index, width = index // 2, (width + 1) // 2
    return not siblings and node.sum == total and seal(node.hash, node.sum, num_leaves) == subroot


def header_block(subroots: Sequence[bytes], link: bytes) -> bytes:
    """The block whose sha2-256 digest a settled batch commits to: the nodes' subroots, then the link to the receipts.

    Args:
        subroots: 32 bytes each, in the order of the payouts.
        link: binary CID of the file that holds the receipts in full.
    """
    return b"".join(subroots) + link


def payout_word(node: str, amount: int) -> int:
    """What a node (0x-address) earned in one word: 160 bits of address, 96 of base units."""
    if not 0 <= amount < 2**96:
        raise OverflowError(f"{amount} base units exceed the 96 bits of a payout")
    return int(node, 16) << 96 | amount


def batch_root(payouts: Sequence[int], header: bytes) -> bytes:
    """What commits to a batch's payouts (a word each) and, by its header's digest, to its receipts."""
    return keccak(b"".join(word.to_bytes(32, "big") for word in payouts) + header)
