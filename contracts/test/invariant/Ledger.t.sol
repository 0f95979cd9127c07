// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IInferenceLedger} from "../../src/interfaces/IInferenceLedger.sol";
import {Base} from "../helpers/Base.sol";
import {LedgerHandler} from "./LedgerHandler.sol";

contract LedgerInvariantTest is Base {
    LedgerHandler internal handler;

    function setUp() public override {
        super.setUp();
        _registerGateway();
        handler = new LedgerHandler(token, ledger, treasury, gateway);
        for (uint256 i = 0; i < handler.numPeople(); ++i) {
            handler.mint(i, 500e18);
            handler.deposit(i, 400e18);
            handler.open(i, 100e18, 7 days);
        }
    }

    function targetContracts() external view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(handler);
    }

    /// @dev One campaign for all properties: each of them is checked after every deed.
    function invariant_All() external view {
        _ledgerHoldsBalancesPlusLockedBudgets();
        _noSessionPaysMoreThanItsBudgetOrThanItsPayerRisked();
        _everyDebitIsCredited();
        _supplyChangesByTheMinterAlone();
        _nothingIsStolen();
    }

    function _ledgerHoldsBalancesPlusLockedBudgets() internal view {
        uint256 owed = ledger.balanceOf(gateway) + _fees();
        for (uint256 i = 0; i < handler.numPeople(); ++i) {
            owed += ledger.balanceOf(handler.people(i));
        }
        for (uint256 i = 0; i < handler.numSessions(); ++i) {
            IInferenceLedger.Session memory session = handler.sessionOf(handler.sessions(i));
            owed += session.budget - session.settled;
        }
        vm.assertEq(token.balanceOf(address(ledger)), owed);
    }

    function _noSessionPaysMoreThanItsBudgetOrThanItsPayerRisked() internal view {
        for (uint256 i = 0; i < handler.numSessions(); ++i) {
            bytes32 id = handler.sessions(i);
            IInferenceLedger.Session memory session = handler.sessionOf(id);
            vm.assertLe(session.settled, session.budget, "settled <= budget");
            vm.assertLe(session.settled, handler.exposure(id), "settled <= signed");
        }
    }

    function _everyDebitIsCredited() internal view {
        vm.assertEq(handler.credited(), handler.debited());
    }

    function _supplyChangesByTheMinterAlone() internal view {
        vm.assertEq(token.totalSupply(), 4 * FUNDS + handler.minted());
    }

    function _nothingIsStolen() internal view {
        vm.assertEq(handler.numStolen(), 0);
    }
}
