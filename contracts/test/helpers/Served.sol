// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IInferenceLedger} from "../../src/interfaces/IInferenceLedger.sol";
import {Assignment, InferenceReceipt, InferenceRequest} from "../../src/libraries/Messages.sol";
import {SumNode, SumTree} from "../../src/libraries/SumTree.sol";
import {Base} from "./Base.sol";

/// @notice A session whose requests a registered worker served: signed requests, assignments, receipts, and batches of them.
abstract contract Served is Base {
    uint256 internal constant WORKER_SIGNER_KEY = 0x3A3;
    uint96 internal constant BUDGET = 100e18;
    /// @dev What one stage costs: 10 prompt and 20 output tokens, 4 layers, production tier.
    uint96 internal constant COST = 5e18;
    uint128 internal constant MAX_COST = 8e18;

    bytes32 internal id;
    address internal workerKey = vm.addr(WORKER_SIGNER_KEY);

    function setUp() public virtual override {
        super.setUp();
        _registerGateway();
        _register(worker, workerKey, WORKER, 10 * MIN_WORKER);
        id = _open(BUDGET);
        _deposit(worker, 10 * BOND);
    }

    function _work(uint64 nonce, uint64 ackedBelow, uint128 spent)
        internal
        view
        returns (IInferenceLedger.SignedWork memory work)
    {
        work.request = _request(id, nonce, MAX_COST, ackedBelow, spent);
        work.request.work.deadline = 1_800_003_600;
        work.assignment = Assignment({
            request: ledger.hashRequest(work.request),
            stage: 0,
            firstLayer: 2,
            endLayer: 6,
            numericProfile: 0,
            shard: keccak256("weights"),
            node: worker,
            promptPrice: 10_000e18,
            outputPrice: 20_000e18,
            attempt: 1,
            deadline: 1_800_003_600
        });
        _sign(work);
    }

    function _sign(IInferenceLedger.SignedWork memory work) internal view {
        work.requestSignature = _signature(SESSION_KEY, ledger.hashRequest(work.request));
        work.assignmentSignature = _signature(GATEWAY_SIGNER_KEY, ledger.hashAssignment(work.assignment));
    }

    function _receipt(IInferenceLedger.SignedWork memory work) internal view returns (InferenceReceipt memory) {
        return InferenceReceipt({
            assignment: ledger.hashAssignment(work.assignment),
            node: worker,
            promptTokens: 10,
            outputTokens: 20,
            inputs: keccak256("inputs"),
            outputs: keccak256("outputs"),
            cost: COST,
            startedAt: 1_800_000_000,
            finishedAt: 1_800_000_100
        });
    }

    function _signature(uint256 key, bytes32 digest) internal pure returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, digest);
        return abi.encodePacked(r, s, v);
    }

    /// @dev Path of a receipt that is the only one of the batch in a slot.
    function _inclusionOf(InferenceReceipt memory receipt, uint256 slot)
        internal
        view
        returns (IInferenceLedger.Inclusion memory)
    {
        return _inclusionOf(ledger.hashReceipt(receipt), worker, receipt.cost, slot);
    }

    function _inclusionOf(bytes32 digest, address node, uint128 cost, uint256 slot)
        internal
        view
        returns (IInferenceLedger.Inclusion memory inclusion)
    {
        bytes32 top = SumTree.leaf(digest, cost).hash;
        inclusion.gateway = gateway;
        inclusion.slot = slot;
        inclusion.payouts = _one(_payout(node, cost));
        inclusion.subroots = new bytes32[](1);
        inclusion.subroots[0] = SumTree.seal(top, cost, 1);
        inclusion.link = "link";
        inclusion.top = top;
        inclusion.numReceipts = 1;
        inclusion.receipt = digest;
        inclusion.cost = cost;
        inclusion.receiptProof = new SumNode[](0);
    }

    /// @dev Settles one request whose one receipt is this, and gives its path.
    function _settleReceipt(IInferenceLedger.SignedWork memory work, InferenceReceipt memory receipt)
        internal
        returns (IInferenceLedger.Inclusion memory)
    {
        return _settleInclusion(work, _inclusionOf(receipt, nextSlot));
    }

    function _settleInclusion(IInferenceLedger.SignedWork memory work, IInferenceLedger.Inclusion memory inclusion)
        internal
        returns (IInferenceLedger.Inclusion memory)
    {
        IInferenceLedger.Claim memory claim = _claim(SESSION_KEY, work.request, inclusion.cost);
        IInferenceLedger.Batch memory batch = _batch(_one(claim), inclusion.payouts);
        (batch.gateway, batch.header) =
        (inclusion.gateway, sha256(abi.encodePacked(inclusion.subroots, inclusion.link)));
        vm.prank(inclusion.gateway);
        ledger.settle(batch);
        return inclusion;
    }

    /// @dev A session with another gateway, and a request in it.
    function _workOfAnotherGateway() internal returns (IInferenceLedger.SignedWork memory work) {
        _register(stranger, stranger, GATEWAY, MIN_GATEWAY);
        _deposit(payer, BUDGET);
        vm.prank(payer);
        bytes32 other = ledger.openSession(stranger, sessionKey, BUDGET, HOUR);
        work.request = _request(other, 0, MAX_COST, 0, 0);
    }
}
