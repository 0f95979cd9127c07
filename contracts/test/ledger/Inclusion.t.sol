// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IInferenceLedger} from "../../src/interfaces/IInferenceLedger.sol";
import {SumNode, SumTree} from "../../src/libraries/SumTree.sol";
import {Base} from "../helpers/Base.sol";

/// @notice Sum trees of every size, built here as their definition reads, against the proofs that the ledger accepts.
contract InclusionTest is Base {
    uint256 internal constant MAX_LEAVES = 17;

    function setUp() public override {
        super.setUp();
        _registerGateway();
    }

    function test_EveryReceiptIsIncludedAndNoOther(uint8 numReceipts, uint8 numPayouts, uint256 seed) public {
        uint32 receipts = uint32(_bound(numReceipts, 1, MAX_LEAVES));
        uint32 payouts = uint32(_bound(numPayouts, 1, MAX_LEAVES));
        IInferenceLedger.Inclusion memory inclusion = _settled(receipts, payouts, seed);
        vm.assertTrue(ledger.isIncluded(inclusion));

        inclusion.cost += 1;
        vm.assertFalse(ledger.isIncluded(inclusion));
        inclusion.cost -= 1;
        inclusion.receipt = keccak256("another");
        vm.assertFalse(ledger.isIncluded(inclusion));
        inclusion.receipt = _receipt(inclusion.receiptIndex);
        inclusion.payout.amount += 1;
        vm.assertFalse(ledger.isIncluded(inclusion));
        inclusion.payout.amount -= 1;
        inclusion.payout.faults += 1;
        vm.assertFalse(ledger.isIncluded(inclusion));
        inclusion.payout.faults -= 1;
        inclusion.gateway = stranger;
        vm.assertFalse(ledger.isIncluded(inclusion));
        inclusion.gateway = gateway;
        vm.assertTrue(ledger.isIncluded(inclusion));
    }

    function test_ProofsOfTheWrongLengthFail() public {
        IInferenceLedger.Inclusion memory inclusion = _settled(6, 6, 1);
        SumNode[] memory receiptProof = inclusion.receiptProof;
        inclusion.receiptProof = new SumNode[](0);
        vm.assertFalse(ledger.isIncluded(inclusion));
        inclusion.receiptProof = new SumNode[](receiptProof.length + 1);
        for (uint256 i = 0; i < receiptProof.length; ++i) {
            inclusion.receiptProof[i] = receiptProof[i];
        }
        vm.assertFalse(ledger.isIncluded(inclusion));
        inclusion.receiptProof = receiptProof;
        bytes32[] memory payoutProof = inclusion.payoutProof;
        inclusion.payoutProof = new bytes32[](0);
        vm.assertFalse(ledger.isIncluded(inclusion));
        inclusion.payoutProof = new bytes32[](payoutProof.length + 1);
        for (uint256 i = 0; i < payoutProof.length; ++i) {
            inclusion.payoutProof[i] = payoutProof[i];
        }
        vm.assertFalse(ledger.isIncluded(inclusion));
    }

    function test_IndicesBeyondTheTreesFail() public {
        IInferenceLedger.Inclusion memory inclusion = _settled(1, 1, 0);
        inclusion.receiptIndex = 1;
        vm.assertFalse(ledger.isIncluded(inclusion));
        inclusion.receiptIndex = 0;
        inclusion.payoutIndex = 1;
        vm.assertFalse(ledger.isIncluded(inclusion));
    }

    function test_AnEmptyTreeIncludesNothing() public {
        IInferenceLedger.Inclusion memory inclusion = _settled(1, 1, 0);
        inclusion.payout.top = 0;
        vm.assertFalse(ledger.isIncluded(inclusion));
        inclusion.payout.receipts = 0;
        vm.assertFalse(ledger.isIncluded(inclusion));
    }

    function test_SumsThatOverflowFailWithoutAPanic() public {
        IInferenceLedger.Inclusion memory inclusion = _settled(2, 1, 0);
        inclusion.receiptProof[0].sum = type(uint128).max;
        vm.assertFalse(ledger.isIncluded(inclusion));
    }

    /// @dev Settles a batch in which the node at a random place has `numReceipts` receipts, and proves a random one.
    function _settled(uint32 numReceipts, uint32 numPayouts, uint256 seed)
        internal
        returns (IInferenceLedger.Inclusion memory inclusion)
    {
        inclusion.receiptIndex = uint32(seed % numReceipts);
        inclusion.payoutIndex = uint32((seed >> 32) % numPayouts);
        inclusion.numPayouts = numPayouts;
        inclusion.gateway = gateway;
        inclusion.receipt = _receipt(inclusion.receiptIndex);
        inclusion.cost = _cost(inclusion.receiptIndex);

        SumNode[] memory level = new SumNode[](numReceipts);
        for (uint32 i = 0; i < numReceipts; ++i) {
            level[i] = SumTree.leaf(_receipt(i), _cost(i));
        }
        SumNode memory top;
        (top, inclusion.receiptProof) = _prove(level, inclusion.receiptIndex);

        IInferenceLedger.Payout[] memory payouts = new IInferenceLedger.Payout[](numPayouts);
        bytes32[] memory leaves = new bytes32[](numPayouts);
        uint128 total;
        for (uint32 i = 0; i < numPayouts; ++i) {
            payouts[i] = _payout(address(uint160(0x1000 + i)), 5);
            if (i == inclusion.payoutIndex) {
                (payouts[i].top, payouts[i].amount, payouts[i].receipts) = (top.hash, top.sum, numReceipts);
            }
            total += payouts[i].amount;
            bytes32 subroot = SumTree.seal(payouts[i].top, payouts[i].amount, payouts[i].receipts);
            leaves[i] = SumTree.payoutLeaf(payouts[i].node, subroot, payouts[i].faults);
        }
        inclusion.payout = payouts[inclusion.payoutIndex];
        bytes32 expected;
        (expected, inclusion.payoutProof) = _prove(leaves, inclusion.payoutIndex);

        bytes32 id = _open(uint96(total) + 1);
        inclusion.root = _settle(_one(_claim(id, 0, total, 0, 0)), payouts);
        vm.assertEq(inclusion.root, expected);
    }

    /// @dev Recursive and plain, unlike what it checks.
    function _prove(SumNode[] memory level, uint256 index) internal pure returns (SumNode memory, SumNode[] memory) {
        if (level.length == 1) return (level[0], new SumNode[](0));
        SumNode[] memory next = new SumNode[]((level.length + 1) / 2);
        for (uint256 i = 0; i < next.length; ++i) {
            next[i] = 2 * i + 1 < level.length ? SumTree.inner(level[2 * i], level[2 * i + 1]) : level[2 * i];
        }
        (SumNode memory top, SumNode[] memory rest) = _prove(next, index / 2);
        uint256 sibling = index % 2 == 0 ? index + 1 : index - 1;
        if (sibling >= level.length) return (top, rest);
        SumNode[] memory proof = new SumNode[](rest.length + 1);
        proof[0] = level[sibling];
        for (uint256 i = 0; i < rest.length; ++i) {
            proof[i + 1] = rest[i];
        }
        return (top, proof);
    }

    function _prove(bytes32[] memory level, uint256 index) internal pure returns (bytes32, bytes32[] memory) {
        if (level.length == 1) return (level[0], new bytes32[](0));
        bytes32[] memory next = new bytes32[]((level.length + 1) / 2);
        for (uint256 i = 0; i < next.length; ++i) {
            next[i] = 2 * i + 1 < level.length ? SumTree.payoutInner(level[2 * i], level[2 * i + 1]) : level[2 * i];
        }
        (bytes32 top, bytes32[] memory rest) = _prove(next, index / 2);
        uint256 sibling = index % 2 == 0 ? index + 1 : index - 1;
        if (sibling >= level.length) return (top, rest);
        bytes32[] memory proof = new bytes32[](rest.length + 1);
        proof[0] = level[sibling];
        for (uint256 i = 0; i < rest.length; ++i) {
            proof[i + 1] = rest[i];
        }
        return (top, proof);
    }

    function _receipt(uint32 index) internal pure returns (bytes32) {
        return keccak256(abi.encode("receipt", index));
    }

    function _cost(uint32 index) internal pure returns (uint128) {
        return 1 + 3 * uint128(index);
    }
}
