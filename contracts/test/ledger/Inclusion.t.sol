// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IInferenceLedger} from "../../src/interfaces/IInferenceLedger.sol";
import {SumNode, SumTree} from "../../src/libraries/SumTree.sol";
import {Base} from "../helpers/Base.sol";

/// @notice Sum trees of every size, built here as their definition reads, against the proofs that the ledger accepts.
contract InclusionTest is Base {
    uint256 internal constant MAX_LEAVES = 17;
    bytes internal constant LINK = "a link, like others, of 36 bytes: ab";

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
        inclusion.payouts[inclusion.payoutIndex] += 1;
        vm.assertFalse(ledger.isIncluded(inclusion));
        inclusion.payouts[inclusion.payoutIndex] -= 1;
        inclusion.subroots[inclusion.payoutIndex] ^= bytes32(uint256(1));
        vm.assertFalse(ledger.isIncluded(inclusion));
        inclusion.subroots[inclusion.payoutIndex] ^= bytes32(uint256(1));
        inclusion.link = "other";
        vm.assertFalse(ledger.isIncluded(inclusion));
        inclusion.link = LINK;
        inclusion.slot += 1;
        vm.assertFalse(ledger.isIncluded(inclusion));
        inclusion.slot -= 1;
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
    }

    function test_PayoutsAndSubrootsBelongTogether() public {
        IInferenceLedger.Inclusion memory inclusion = _settled(3, 2, 0);
        bytes32[] memory subroots = inclusion.subroots;
        inclusion.subroots = new bytes32[](1);
        inclusion.subroots[0] = subroots[0];
        vm.assertFalse(ledger.isIncluded(inclusion));
        // The same bytes cut otherwise: a subroot that moved into the link.
        inclusion.link = bytes.concat(subroots[1], LINK);
        vm.assertFalse(ledger.isIncluded(inclusion));
        // And the beginning of the link that moved into the subroots.
        inclusion.subroots = new bytes32[](3);
        (inclusion.subroots[0], inclusion.subroots[1]) = (subroots[0], subroots[1]);
        inclusion.subroots[2] = bytes32(LINK);
        inclusion.link = ": ab";
        vm.assertFalse(ledger.isIncluded(inclusion));
    }

    function test_ARootThatDoesNotCarryThePayoutProvesNothing() public {
        IInferenceLedger.Inclusion memory inclusion = _settled(3, 1, 0);
        inclusion.numReceipts += 1;
        vm.assertFalse(ledger.isIncluded(inclusion));
        inclusion.numReceipts -= 1;
        inclusion.top ^= bytes32(uint256(1));
        vm.assertFalse(ledger.isIncluded(inclusion));
    }

    /// @dev Who pays a node less than its receipts say, or more, has shown none of them.
    function test_ATreeMustSumToItsPayout() public {
        SumNode memory top = SumTree.leaf(_receipt(0), 5);
        for (uint128 amount = 4; amount <= 6; ++amount) {
            IInferenceLedger.Inclusion memory inclusion;
            (inclusion.gateway, inclusion.slot, inclusion.link) = (gateway, nextSlot, LINK);
            (inclusion.receipt, inclusion.cost) = (_receipt(0), 5);
            (inclusion.top, inclusion.numReceipts) = (top.hash, 1);
            inclusion.payouts = _one(_payout(worker, amount));
            inclusion.subroots = new bytes32[](1);
            inclusion.subroots[0] = SumTree.seal(top.hash, amount, 1);
            bytes32 id = _open(uint96(amount));
            IInferenceLedger.Batch memory batch = _batch(_one(_claim(id, 0, amount, 0, 0)), inclusion.payouts);
            batch.header = sha256(abi.encodePacked(inclusion.subroots, LINK));
            vm.prank(gatewaySigner);
            ledger.settle(batch);
            vm.assertTrue(ledger.isIncluded(inclusion) == (amount == 5));
        }
    }

    function test_IndicesBeyondTheTreesFail() public {
        IInferenceLedger.Inclusion memory inclusion = _settled(1, 1, 0);
        inclusion.receiptIndex = 1;
        vm.assertFalse(ledger.isIncluded(inclusion));
        inclusion.receiptIndex = 2;
        vm.assertFalse(ledger.isIncluded(inclusion));
        inclusion.receiptIndex = 0;
        inclusion.payoutIndex = 1;
        vm.assertFalse(ledger.isIncluded(inclusion));
        inclusion.payoutIndex = 2;
        vm.assertFalse(ledger.isIncluded(inclusion));
    }

    function test_RevertWhen_ASumTreeHasNoShape() public {
        IInferenceLedger.Inclusion memory inclusion = _settled(1, 1, 0);
        bytes4 selector = SumTree.SumTreeInvalidShape.selector;
        inclusion.top = 0;
        vm.expectRevert(abi.encodeWithSelector(selector, bytes32(0), 1, 1));
        ledger.isIncluded(inclusion);
        inclusion.numReceipts = 0;
        vm.expectRevert(abi.encodeWithSelector(selector, bytes32(0), 1, 0));
        ledger.isIncluded(inclusion);
    }

    function test_AnEmptyTreeHasASubroot() public pure {
        bytes32 expected = keccak256(abi.encodePacked(bytes1(0x02), bytes32(0), uint128(0), uint32(0)));
        vm.assertEq(SumTree.seal(0, 0, 0), expected);
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
        inclusion.gateway = gateway;
        inclusion.slot = nextSlot;
        inclusion.link = LINK;
        inclusion.receipt = _receipt(inclusion.receiptIndex);
        inclusion.cost = _cost(inclusion.receiptIndex);
        inclusion.numReceipts = numReceipts;

        SumNode[] memory level = new SumNode[](numReceipts);
        for (uint32 i = 0; i < numReceipts; ++i) {
            level[i] = SumTree.leaf(_receipt(i), _cost(i));
        }
        SumNode memory top;
        (top, inclusion.receiptProof) = _prove(level, inclusion.receiptIndex);
        inclusion.top = top.hash;

        inclusion.payouts = new uint256[](numPayouts);
        inclusion.subroots = new bytes32[](numPayouts);
        uint128 total;
        for (uint32 i = 0; i < numPayouts; ++i) {
            bool proved = i == inclusion.payoutIndex;
            uint128 amount = proved ? top.sum : 5;
            inclusion.payouts[i] = _payout(address(uint160(0x1000 + i)), amount);
            inclusion.subroots[i] = proved ? SumTree.seal(top.hash, top.sum, numReceipts) : bytes32(uint256(i));
            total += amount;
        }
        bytes32 id = _open(uint96(total) + 1);
        IInferenceLedger.Batch memory batch = _batch(_one(_claim(id, 0, total, 0, 0)), inclusion.payouts);
        batch.header = sha256(abi.encodePacked(inclusion.subroots, LINK));
        vm.prank(gatewaySigner);
        ledger.settle(batch);
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

    function _receipt(uint32 index) internal pure returns (bytes32) {
        return keccak256(abi.encode("receipt", index));
    }

    function _cost(uint32 index) internal pure returns (uint128) {
        return 1 + 3 * uint128(index);
    }
}
