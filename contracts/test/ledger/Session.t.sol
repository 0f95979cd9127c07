// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IInferenceLedger} from "../../src/interfaces/IInferenceLedger.sol";
import {Base} from "../helpers/Base.sol";

/// @notice openSession, topUp, closeSession, finalizeClose.
contract SessionTest is Base {
    uint96 internal constant BUDGET = 50e18;

    function setUp() public override {
        super.setUp();
        _registerGateway();
    }

    function test_OpenLocksTheBudget(uint96 budget, uint32 duration) public {
        budget = uint96(_bound(budget, 1, FUNDS));
        duration = uint32(_bound(duration, 1, type(uint32).max));
        _deposit(payer, FUNDS);
        bytes32 expected = bytes32(uint256(uint160(payer)) << 96 | 1);
        uint48 endsAt = uint48(block.timestamp) + duration;
        vm.expectEmit();
        emit IInferenceLedger.SessionOpened(expected, payer, gateway, sessionKey, 1, budget, endsAt);
        vm.prank(payer);
        bytes32 id = ledger.openSession(gateway, sessionKey, budget, duration);
        vm.assertEq(id, expected);
        vm.assertEq(ledger.balanceOf(payer), FUNDS - budget);
        vm.assertEq(ledger.sessionId(_terms(id)), id);
        IInferenceLedger.Session memory session = _session(id);
        vm.assertEq(session.budget, budget);
        vm.assertEq(session.settled, 0);
        vm.assertEq(session.endsAt, endsAt);
    }

    function test_IdsNeverRepeat() public {
        vm.assertTrue(_open(1) != _open(1));
    }

    function test_RevertWhen_OpenedWithInvalidArguments() public {
        _deposit(payer, BUDGET);
        vm.startPrank(payer);
        vm.expectRevert(abi.encodeWithSelector(IInferenceLedger.InferenceLedgerGatewayNotActive.selector, worker));
        ledger.openSession(worker, sessionKey, BUDGET, HOUR);
        vm.expectRevert(
            abi.encodeWithSelector(IInferenceLedger.InferenceLedgerGatewayNotActive.selector, gatewaySigner)
        );
        ledger.openSession(gatewaySigner, sessionKey, BUDGET, HOUR);
        vm.expectRevert(IInferenceLedger.InferenceLedgerZeroKey.selector);
        ledger.openSession(gateway, address(0), BUDGET, HOUR);
        vm.expectRevert(IInferenceLedger.InferenceLedgerZeroAmount.selector);
        ledger.openSession(gateway, sessionKey, 0, HOUR);
        vm.expectRevert(IInferenceLedger.InferenceLedgerZeroDuration.selector);
        ledger.openSession(gateway, sessionKey, BUDGET, 0);
        vm.expectRevert(
            abi.encodeWithSelector(
                IInferenceLedger.InferenceLedgerInsufficientBalance.selector, payer, BUDGET, BUDGET + 1
            )
        );
        ledger.openSession(gateway, sessionKey, BUDGET + 1, HOUR);
        vm.stopPrank();
    }

    function test_TopUp() public {
        bytes32 id = _open(BUDGET);
        _deposit(payer, 7);
        vm.expectEmit();
        emit IInferenceLedger.SessionToppedUp(id, 7, BUDGET + 7);
        vm.prank(payer);
        ledger.topUp(_terms(id), 7);
        vm.assertEq(_session(id).budget, BUDGET + 7);
        vm.assertEq(ledger.balanceOf(payer), 0);
    }

    function test_RevertWhen_ATopUpIsInvalid() public {
        bytes32 id = _open(BUDGET);
        vm.startPrank(payer);
        vm.expectRevert(IInferenceLedger.InferenceLedgerZeroAmount.selector);
        ledger.topUp(_terms(id), 0);
        vm.expectRevert(
            abi.encodeWithSelector(IInferenceLedger.InferenceLedgerInsufficientBalance.selector, payer, 0, 1)
        );
        ledger.topUp(_terms(id), 1);
        vm.expectRevert(abi.encodeWithSelector(IInferenceLedger.InferenceLedgerUnknownSession.selector, 0));
        ledger.topUp(_terms(0), 1);
        uint256 endsAt = block.timestamp + HOUR;
        vm.warp(endsAt);
        vm.expectRevert(abi.encodeWithSelector(IInferenceLedger.InferenceLedgerSessionOver.selector, id, endsAt));
        ledger.topUp(_terms(id), 1);
        vm.warp(endsAt + 1);
        vm.expectRevert(abi.encodeWithSelector(IInferenceLedger.InferenceLedgerSessionOver.selector, id, endsAt));
        ledger.topUp(_terms(id), 1);
        vm.stopPrank();
    }

    function test_OtherTermsFindNoSession() public {
        bytes32 id = _open(BUDGET);
        IInferenceLedger.SessionTerms memory terms = _terms(id);
        terms.gateway = stranger;
        _finds(id, terms, 0);
        terms = _terms(id);
        terms.key = stranger;
        _finds(id, terms, 0);
        // All bits count.
        terms = _terms(id);
        terms.gateway = address(uint160(gateway) ^ 1);
        _finds(id, terms, 0);
        terms = _terms(id);
        terms.key = address(uint160(sessionKey) ^ 1);
        _finds(id, terms, 0);
        terms = _terms(id);
        terms.payer = stranger;
        _finds(bytes32(uint256(uint160(stranger)) << 96 | 1), terms, 0);
        _finds(id, _terms(id), BUDGET);
    }

    function _finds(bytes32 id, IInferenceLedger.SessionTerms memory terms, uint256 budget) internal {
        vm.assertEq(ledger.session(terms).budget, budget);
        if (budget != 0) return;
        bytes memory error_ = abi.encodeWithSelector(IInferenceLedger.InferenceLedgerUnknownSession.selector, id);
        vm.startPrank(terms.payer);
        vm.expectRevert(error_);
        ledger.topUp(terms, 1);
        vm.expectRevert(error_);
        ledger.closeSession(terms);
        vm.expectRevert(error_);
        ledger.finalizeClose(terms);
        vm.stopPrank();
    }

    function test_CloseEndsTheSessionNow() public {
        bytes32 id = _open(BUDGET);
        vm.warp(block.timestamp + 5);
        vm.expectEmit();
        emit IInferenceLedger.SessionEnded(id, uint48(vm.getBlockTimestamp()));
        vm.prank(payer);
        ledger.closeSession(_terms(id));
        vm.assertEq(_session(id).endsAt, vm.getBlockTimestamp());
        vm.assertEq(ledger.balanceOf(payer), 0);
    }

    function test_RevertWhen_ClosedTwiceOrAfterItsEnd() public {
        bytes32 id = _open(BUDGET);
        vm.startPrank(payer);
        ledger.closeSession(_terms(id));
        vm.expectRevert(
            abi.encodeWithSelector(IInferenceLedger.InferenceLedgerSessionOver.selector, id, block.timestamp)
        );
        ledger.closeSession(_terms(id));
        vm.stopPrank();
    }

    function test_RevertWhen_NotThePayer() public {
        bytes32 id = _open(BUDGET);
        bytes memory error_ = abi.encodeWithSelector(IInferenceLedger.InferenceLedgerNotPayer.selector, id, stranger);
        _deposit(stranger, 5);
        vm.startPrank(stranger);
        vm.expectRevert(error_);
        ledger.closeSession(_terms(id));
        vm.expectRevert(error_);
        ledger.topUp(_terms(id), 5);
        vm.stopPrank();
    }

    function test_FinalizeReturnsTheRestAfterTheThaw() public {
        bytes32 id = _open(BUDGET);
        vm.prank(payer);
        ledger.closeSession(_terms(id));
        vm.warp(block.timestamp + SESSION_THAW);
        vm.expectEmit();
        emit IInferenceLedger.SessionClosed(id, payer, BUDGET, 0);
        vm.prank(stranger);
        ledger.finalizeClose(_terms(id));
        vm.assertEq(ledger.balanceOf(payer), BUDGET);
        vm.assertEq(_session(id).budget, 0);
        vm.assertEq(_session(id).endsAt, 0);
        vm.expectRevert(abi.encodeWithSelector(IInferenceLedger.InferenceLedgerUnknownSession.selector, id));
        ledger.finalizeClose(_terms(id));
    }

    function test_ASessionEndsByItself() public {
        bytes32 id = _open(BUDGET);
        vm.warp(block.timestamp + HOUR + SESSION_THAW);
        ledger.finalizeClose(_terms(id));
        vm.assertEq(ledger.balanceOf(payer), BUDGET);
    }

    function test_RevertWhen_OneSecondIsMissing() public {
        bytes32 id = _open(BUDGET);
        uint256 closesAt = block.timestamp + HOUR + SESSION_THAW;
        vm.warp(closesAt - 1);
        vm.expectRevert(abi.encodeWithSelector(IInferenceLedger.InferenceLedgerStillThawing.selector, id, closesAt));
        ledger.finalizeClose(_terms(id));
        vm.warp(closesAt);
        ledger.finalizeClose(_terms(id));
    }

    function test_RevertWhen_StillThawing(uint256 wait) public {
        bytes32 id = _open(BUDGET);
        uint256 closesAt = block.timestamp + HOUR + SESSION_THAW;
        vm.warp(_bound(wait, block.timestamp, closesAt - 1));
        vm.expectRevert(abi.encodeWithSelector(IInferenceLedger.InferenceLedgerStillThawing.selector, id, closesAt));
        ledger.finalizeClose(_terms(id));
    }
}
