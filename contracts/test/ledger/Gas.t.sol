// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IInferenceLedger} from "../../src/interfaces/IInferenceLedger.sol";
import {Base} from "../helpers/Base.sol";

/// @notice A batch of ten payers and six nodes, accounts that exist, one request in flight per session: what it costs as a
/// transaction. The number of receipts does not matter to the chain.
contract GasTest is Base {
    uint256 internal constant NUM_SESSIONS = 10;
    uint160 internal constant NUM_NODES = 6;
    uint128 internal constant COST = 1.234567890123456789e18;
    uint256 internal constant BUDGET_OF_BATCH = 202_000;

    bytes32[] internal ids;

    function setUp() public override {
        super.setUp();
        _registerGateway();
        for (uint256 i = 0; i < NUM_SESSIONS; ++i) {
            ids.push(_open(100e18));
        }
        _settle(_claims(0), _payouts());
        vm.warp(block.timestamp + RETENTION);
        // The first batch of an epoch also reports the last one's work.
        _settle(_claims(1), _payouts());
        nextSlot = 0;
    }

    function test_ABatchInAUsedSlotStaysWithinItsGas() public {
        bytes memory data = abi.encodeCall(IInferenceLedger.settle, (_batch(_claims(2), _payouts())));
        vm.cool(address(ledger));
        vm.cool(address(nodes));
        vm.prank(gatewaySigner);
        uint256 before = gasleft();
        (bool success,) = address(ledger).call(data);
        uint256 used = before - gasleft();
        vm.assertTrue(success);
        vm.assertLe(21_000 + _calldataGas(data) + used, BUDGET_OF_BATCH, "gas of a batch");
    }

    function _claims(uint64 nonce) internal view returns (IInferenceLedger.Claim[] memory claims) {
        claims = new IInferenceLedger.Claim[](NUM_SESSIONS);
        for (uint256 i = 0; i < NUM_SESSIONS; ++i) {
            claims[i] = _claim(ids[i], nonce, COST, nonce, nonce * COST);
        }
    }

    function _payouts() internal pure returns (uint256[] memory payouts) {
        payouts = new uint256[](NUM_NODES);
        for (uint160 i = 0; i < NUM_NODES; ++i) {
            payouts[i] = _payout(address((uint160(0x1234567890123456789012345678901234567890) / 7) * (i + 1)), 2e18);
        }
    }

    function _calldataGas(bytes memory data) internal pure returns (uint256 gas) {
        for (uint256 i = 0; i < data.length; ++i) {
            gas += data[i] == 0 ? 4 : 16;
        }
    }
}
