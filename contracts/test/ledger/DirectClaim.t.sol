// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IInferenceLedger} from "../../src/interfaces/IInferenceLedger.sol";
import {InferenceReceipt} from "../../src/libraries/Messages.sol";
import {Served} from "../helpers/Served.sol";

contract DirectClaimTest is Served {
    uint256 internal constant DEADLINE = 1_800_003_600;
    uint256 internal constant FROM = DEADLINE + 1 hours;

    IInferenceLedger.SignedWork internal work;
    InferenceReceipt internal receipt;
    bytes32 internal assignment;

    function setUp() public override {
        super.setUp();
        _make(_work(3, 3, 0));
        vm.warp(FROM);
    }

    /// @dev The work that is claimed, and its receipt.
    function _make(IInferenceLedger.SignedWork memory made) internal {
        work = made;
        receipt = _receipt(made);
        assignment = receipt.assignment;
    }

    function _openIt() internal {
        vm.prank(workerKey);
        ledger.openClaim(_terms(id), work, receipt);
    }

    // Opening

    function test_AClaimLocksTheBondAndNamesTheReceipt() public {
        bytes32 digest = ledger.hashReceipt(receipt);
        uint48 paysAt = uint48(FROM) + 12 hours;
        vm.expectEmit();
        emit IInferenceLedger.ClaimOpened(assignment, worker, id, digest, 3, COST, BOND, paysAt);
        _openIt();
        vm.assertEq(ledger.balanceOf(worker), 9 * BOND);
        vm.assertEq(_session(id).numClaims, 1);
        IInferenceLedger.DirectClaim memory claim = ledger.directClaim(assignment);
        vm.assertEq(claim.node, worker);
        vm.assertEq(claim.amount, COST);
        vm.assertEq(claim.receipt, digest);
        vm.assertEq(claim.session, id);
        vm.assertEq(claim.paysAt, paysAt);
    }

    function test_TheOperatorMayClaimToo() public {
        vm.prank(worker);
        ledger.openClaim(_terms(id), work, receipt);
        vm.assertEq(_session(id).numClaims, 1);
    }

    function test_AnOperatorThatLeftMayStillClaim() public {
        vm.prank(worker);
        nodes.deregister();
        vm.prank(worker);
        ledger.openClaim(_terms(id), work, receipt);
        vm.assertEq(_session(id).numClaims, 1);
    }

    function test_RevertWhen_ClaimedTwice() public {
        _openIt();
        _refused(abi.encodeWithSelector(IInferenceLedger.InferenceLedgerAlreadyClaimed.selector, assignment));
        vm.warp(FROM + 12 hours);
        ledger.payClaim(_terms(id), assignment);
        _refused(abi.encodeWithSelector(IInferenceLedger.InferenceLedgerAlreadyClaimed.selector, assignment));
    }

    /// @notice A gateway assigned work to account zero, for which everybody spoke who is nobody's signer: each opening counted, and
    /// the one payment left the session open for ever.
    function test_RevertWhen_TheWorkOfNobodyIsClaimedTwice() public {
        _settle(_one(_claim(id, 1, 2 * BOND, 1, 0)), _one(_payout(address(0), 2 * BOND)));
        (work.assignment.node, receipt.node, receipt.cost) = (address(0), address(0), 1);
        work.assignmentSignature = _signature(GATEWAY_SIGNER_KEY, ledger.hashAssignment(work.assignment));
        assignment = ledger.hashAssignment(work.assignment);
        receipt.assignment = assignment;
        IInferenceLedger.SessionTerms memory terms = _terms(id);
        vm.prank(stranger);
        ledger.openClaim(terms, work, receipt);
        vm.expectRevert(abi.encodeWithSelector(IInferenceLedger.InferenceLedgerAlreadyClaimed.selector, assignment));
        vm.prank(stranger);
        ledger.openClaim(terms, work, receipt);
        // Nor does anybody sign for nobody.
        InferenceReceipt memory other = receipt;
        other.outputs = keccak256("other");
        bytes32 digest = ledger.hashReceipt(other);
        vm.expectRevert(
            abi.encodeWithSelector(IInferenceLedger.InferenceLedgerNoOtherReceipt.selector, assignment, digest)
        );
        ledger.voidByReceipt(terms, work.assignment, other, new bytes(65));
        vm.warp(uint256(_session(id).endsAt) + SESSION_THAW);
        ledger.payClaim(terms, assignment);
        ledger.finalizeClose(terms);
    }

    function test_RevertWhen_ByAStranger() public {
        vm.expectRevert(abi.encodeWithSelector(IInferenceLedger.InferenceLedgerNotNode.selector, worker, stranger));
        vm.prank(stranger);
        ledger.openClaim(_terms(id), work, receipt);
        receipt.node = stranger;
        _refused(abi.encodeWithSelector(IInferenceLedger.InferenceLedgerNotNode.selector, worker, workerKey));
    }

    function test_RevertWhen_TooEarlyOrTooLate() public {
        uint256 until = DEADLINE + 1 days;
        bytes memory error_ = abi.encodeWithSelector(IInferenceLedger.InferenceLedgerNotClaimable.selector, FROM, until);
        vm.warp(FROM - 1);
        _refused(error_);
        // The session would be closed for good before.
        uint256 closesAt = uint256(_session(id).endsAt) + SESSION_THAW;
        vm.assertEq(closesAt, until);
        vm.warp(until + 1);
        _refused(error_);
        vm.warp(until);
        _openIt();
    }

    function test_RevertWhen_TheSessionClosesBeforeTheClaimsPeriodEnds() public {
        vm.warp(DEADLINE - 30 minutes);
        vm.prank(payer);
        ledger.closeSession(_terms(id));
        uint256 closesAt = vm.getBlockTimestamp() + SESSION_THAW;
        vm.warp(closesAt + 1);
        _refused(abi.encodeWithSelector(IInferenceLedger.InferenceLedgerNotClaimable.selector, FROM, closesAt));
        vm.warp(closesAt);
        _openIt();
    }

    function test_RevertWhen_TheClaimsPeriodEndsBeforeTheSession() public {
        id = _open(BUDGET);
        _make(_work(3, 3, 0));
        uint256 until = DEADLINE + 1 days;
        vm.warp(until + 1);
        _refused(abi.encodeWithSelector(IInferenceLedger.InferenceLedgerNotClaimable.selector, FROM, until));
        vm.warp(until);
        _openIt();
    }

    function test_RevertWhen_TheEvidenceIsOfSomethingElse() public {
        bytes4 unrelated = IInferenceLedger.InferenceLedgerUnrelated.selector;
        receipt.assignment = keccak256("other");
        _refused(abi.encodeWithSelector(unrelated, assignment, receipt.assignment));
        receipt.assignment = assignment;
        work.assignment.request = keccak256("other");
        _refused(abi.encodeWithSelector(unrelated, ledger.hashRequest(work.request), work.assignment.request));
        work.request.session = bytes32(uint256(7));
        _refused(abi.encodeWithSelector(unrelated, id, work.request.session));
    }

    function test_RevertWhen_ASignatureIsMissing() public {
        bytes memory good = work.requestSignature;
        work.requestSignature = _signature(STRANGER_KEY, ledger.hashRequest(work.request));
        _refused(abi.encodeWithSelector(IInferenceLedger.InferenceLedgerInvalidSignature.selector, id, 3));
        work.requestSignature = "";
        _refused(abi.encodeWithSelector(IInferenceLedger.InferenceLedgerInvalidSignature.selector, id, 3));
        work.requestSignature = good;
        bytes memory error_ =
            abi.encodeWithSelector(IInferenceLedger.InferenceLedgerNotAssigned.selector, gateway, assignment);
        work.assignmentSignature = "";
        _refused(error_);
        work.assignmentSignature = _signature(STRANGER_KEY, assignment);
        _refused(error_);
    }

    function test_AnAssignmentByTheGatewaysOperatorCounts() public {
        work.assignmentSignature = _signature(uint256(keccak256("gateway")) >> 1, assignment);
        _openIt();
        vm.assertEq(_session(id).numClaims, 1);
    }

    function test_ARetiredGatewaySignerCountsForAWhile() public {
        vm.prank(gateway);
        nodes.setSigner(stranger);
        uint256 snapshot = vm.snapshotState();
        _openIt();
        vm.revertToState(snapshot);
        // A new request, signed long after the key was retired.
        id = _open(BUDGET);
        vm.warp(FROM + 1 days + 12 hours + 1);
        IInferenceLedger.SignedWork memory late = _work(0, 0, 0);
        late.assignment.deadline = uint64(block.timestamp - 1 hours);
        _sign(late);
        bytes32 digest = ledger.hashAssignment(late.assignment);
        InferenceReceipt memory made = _receipt(late);
        IInferenceLedger.SessionTerms memory terms = _terms(id);
        vm.expectRevert(abi.encodeWithSelector(IInferenceLedger.InferenceLedgerNotAssigned.selector, gateway, digest));
        vm.prank(workerKey);
        ledger.openClaim(terms, late, made);
    }

    function test_ARetiredGatewaySignerCountsToTheLastSecond() public {
        vm.prank(gateway);
        nodes.setSigner(stranger);
        vm.warp(FROM + 1 days + 12 hours);
        id = _open(BUDGET);
        IInferenceLedger.SignedWork memory made = _work(0, 0, 0);
        made.assignment.deadline = uint64(block.timestamp - 1 hours);
        _sign(made);
        _make(made);
        _openIt();
        vm.assertEq(_session(id).numClaims, 1);
    }

    function test_ThePriceFollowsTheTier() public {
        uint128[4] memory prices = [uint128(2e18), COST, 2 * COST, 2 * COST];
        bytes4 selector = IInferenceLedger.InferenceLedgerCostAbovePrice.selector;
        for (uint8 tier = 0; tier < 4; ++tier) {
            IInferenceLedger.SignedWork memory made = _work(3, 3, 0);
            made.request.work.tier = tier;
            made.assignment.request = ledger.hashRequest(made.request);
            _sign(made);
            _make(made);
            receipt.cost = prices[tier] + 1;
            _refused(abi.encodeWithSelector(selector, receipt.cost, prices[tier]));
        }
    }

    function test_LayersThatAreNoneCostNothing() public {
        for (uint16 endLayer = 1; endLayer <= 2; ++endLayer) {
            IInferenceLedger.SignedWork memory made = _work(3, 3, 0);
            made.assignment.endLayer = endLayer;
            _sign(made);
            _make(made);
            _refused(abi.encodeWithSelector(IInferenceLedger.InferenceLedgerCostAbovePrice.selector, COST, 0));
        }
    }

    function test_RevertWhen_TheCostHasMoreThan96Bits() public {
        IInferenceLedger.SignedWork memory made = _work(3, 3, 0);
        made.request.maxCost = type(uint128).max;
        made.assignment.request = ledger.hashRequest(made.request);
        made.assignment.promptPrice = type(uint128).max;
        _sign(made);
        _make(made);
        uint256 most = type(uint96).max;
        receipt.cost = uint128(most + 1);
        _refused(abi.encodeWithSelector(IInferenceLedger.InferenceLedgerCostAbovePrice.selector, most + 1, most));
        receipt.cost = uint128(most);
        _openIt();
        vm.assertEq(ledger.directClaim(assignment).amount, most);
    }

    function test_AllTokensThatWereOrderedCanBeClaimed() public {
        receipt.outputTokens = 64;
        _openIt();
        vm.assertEq(_session(id).numClaims, 1);
    }

    function test_RevertWhen_TheCostIsAboveThePrice() public {
        bytes4 selector = IInferenceLedger.InferenceLedgerCostAbovePrice.selector;
        receipt.cost = COST + 1;
        _refused(abi.encodeWithSelector(selector, COST + 1, COST));
        receipt.cost = 0;
        _refused(abi.encodeWithSelector(IInferenceLedger.InferenceLedgerZeroAmount.selector));
        (receipt.cost, receipt.outputTokens) = (COST, 65);
        _refused(abi.encodeWithSelector(selector, 65, 64));
        (receipt.outputTokens, receipt.promptTokens, receipt.cost) = (20, 100, 9e18);
        _refused(abi.encodeWithSelector(selector, 9e18, MAX_COST));
    }

    function test_RevertWhen_ClaimsOnARequestExceedItsCap() public {
        _openIt();
        // Another stage of the same request: together they would cost more than the payer's cap.
        work.assignment.stage = 1;
        work.assignmentSignature = _signature(GATEWAY_SIGNER_KEY, ledger.hashAssignment(work.assignment));
        receipt.assignment = ledger.hashAssignment(work.assignment);
        bytes4 selector = IInferenceLedger.InferenceLedgerCostAbovePrice.selector;
        _refused(abi.encodeWithSelector(selector, 2 * COST, MAX_COST));
        receipt.cost = MAX_COST - COST;
        _openIt();
        vm.assertEq(_session(id).numClaims, 2);
    }

    function test_RevertWhen_TheBondCannotBePaid() public {
        vm.prank(worker);
        ledger.withdraw(10 * BOND);
        bytes4 selector = IInferenceLedger.InferenceLedgerInsufficientBalance.selector;
        _refused(abi.encodeWithSelector(selector, worker, 0, BOND));
    }

    // Paying

    function test_AnUnansweredClaimIsPaidFromTheSession() public {
        _openIt();
        vm.expectRevert(
            abi.encodeWithSelector(IInferenceLedger.InferenceLedgerClaimRunning.selector, assignment, FROM + 12 hours)
        );
        ledger.payClaim(_terms(id), assignment);
        vm.warp(FROM + 12 hours);
        vm.expectEmit();
        emit IInferenceLedger.ClaimPaid(assignment, worker, id, COST);
        vm.prank(stranger);
        ledger.payClaim(_terms(id), assignment);
        vm.assertEq(ledger.balanceOf(worker), 10 * BOND + COST);
        vm.assertEq(_session(id).settled, COST);
        vm.assertEq(_session(id).numClaims, 0);
        vm.expectRevert(abi.encodeWithSelector(IInferenceLedger.InferenceLedgerNoClaim.selector, assignment));
        ledger.payClaim(_terms(id), assignment);
    }

    function test_AGatewayThatReturnsDebitsThePayerOnlyForTheRest() public {
        _openIt();
        vm.warp(FROM + 12 hours);
        ledger.payClaim(_terms(id), assignment);
        // The payer's total for this request, fee included, is 6; the stage's 5 are paid already.
        _settle(_one(_claim(SESSION_KEY, work.request, 6e18)), _one(_payout(address(0x22), 1e18)));
        vm.assertEq(_session(id).settled, 6e18);
    }

    /// @notice A batch says how much it takes for a request, and nothing on chain remembers it.
    function test_ABatchAndAClaimTogetherTakeNoMoreThanWasSigned() public {
        _settle(_one(_claim(SESSION_KEY, work.request, MAX_COST - 1)), _one(_payout(address(0x22), MAX_COST - 1)));
        _openIt();
        vm.assertEq(ledger.directClaim(assignment).cap, MAX_COST);
        vm.warp(FROM + 12 hours);
        ledger.payClaim(_terms(id), assignment);
        vm.assertEq(_session(id).settled, MAX_COST);
        vm.assertEq(ledger.directClaim(assignment).amount, 1);
    }

    function test_WhatIsNotKnownToBeSignedForLimitsNothing() public {
        uint256 snapshot = vm.snapshotState();
        // A total of more than 96 bits; and a request that says it acknowledges itself.
        IInferenceLedger.SignedWork[2] memory works = [_work(3, 3, 2 ** 96), _work(3, 4, 0)];
        for (uint256 i = 0; i < 2; ++i) {
            (work, receipt) = (works[i], _receipt(works[i]));
            _openIt();
            vm.assertEq(ledger.directClaim(receipt.assignment).cap, type(uint96).max);
            vm.revertToState(snapshot);
        }
    }

    /// @notice With more requests in flight the chain does not know what was signed for: what a gateway and a node of its own can
    /// take twice is one cap.
    function test_AGatewayWithANodeOfItsOwnTakesACapTwiceAndNoMore() public {
        work = _work(3, 2, 0);
        receipt = _receipt(work);
        assignment = receipt.assignment;
        _settle(_one(_claim(SESSION_KEY, work.request, MAX_COST)), _one(_payout(address(0x22), MAX_COST)));
        (receipt.promptTokens, receipt.cost) = (100, MAX_COST);
        _openIt();
        vm.warp(FROM + 12 hours);
        ledger.payClaim(_terms(id), assignment);
        vm.assertEq(_session(id).settled, 2 * MAX_COST);
        work.assignment.stage = 1;
        work.assignmentSignature = _signature(GATEWAY_SIGNER_KEY, ledger.hashAssignment(work.assignment));
        (receipt.assignment, receipt.cost) = (ledger.hashAssignment(work.assignment), 1);
        _refused(
            abi.encodeWithSelector(
                IInferenceLedger.InferenceLedgerCostAbovePrice.selector, uint256(MAX_COST) + 1, MAX_COST
            )
        );
    }

    function test_AClaimIsPaidAsFarAsTheBudgetGoes() public {
        work = _work(3, 2, 0);
        receipt = _receipt(work);
        assignment = receipt.assignment;
        _settle(_one(_claim(id, 2, BUDGET - 2e18, 2, 0)), _one(_payout(address(0x22), BUDGET - 2e18)));
        _openIt();
        vm.warp(FROM + 12 hours);
        ledger.payClaim(_terms(id), assignment);
        vm.assertEq(_session(id).settled, BUDGET);
        vm.assertEq(ledger.balanceOf(worker), 10 * BOND + 2e18);
        vm.assertEq(ledger.directClaim(assignment).amount, 2e18);
    }

    function test_AClaimAboveWhatIsLeftUnderItsCapIsPaidNothing() public {
        _openIt();
        ledger.voidByAcknowledgement(_terms(id), assignment, _work(4, 4, 2e18));
        _settle(_one(_claim(id, 5, 3e18, 5, 0)), _one(_payout(address(0x22), 3e18)));
        vm.warp(FROM + 12 hours);
        ledger.payClaim(_terms(id), assignment);
        vm.assertEq(_session(id).settled, 3e18);
        vm.assertEq(ledger.balanceOf(worker), 10 * BOND, "the bond comes back");
    }

    function test_RevertWhen_ASessionIsClosedUnderAClaim() public {
        _openIt();
        vm.warp(uint256(_session(id).endsAt) + SESSION_THAW);
        vm.expectRevert(abi.encodeWithSelector(IInferenceLedger.InferenceLedgerClaimsOpen.selector, id, 1));
        ledger.finalizeClose(_terms(id));
        ledger.payClaim(_terms(id), assignment);
        ledger.finalizeClose(_terms(id));
        vm.assertEq(ledger.balanceOf(payer), BUDGET - COST);
    }

    function test_RevertWhen_TheTermsAreOfAnotherSession() public {
        _openIt();
        bytes32 other = _open(BUDGET);
        vm.warp(FROM + 12 hours);
        vm.expectRevert(abi.encodeWithSelector(IInferenceLedger.InferenceLedgerUnrelated.selector, id, other));
        ledger.payClaim(_terms(other), assignment);
    }

    // Voiding by inclusion

    function test_AReceiptThatWasSettledVoidsTheClaim() public {
        IInferenceLedger.Inclusion memory inclusion = _settleReceipt(work, receipt);
        vm.warp(FROM + 1);
        _openIt();
        vm.expectEmit();
        emit IInferenceLedger.ClaimVoided(assignment, stranger);
        vm.prank(stranger);
        ledger.voidByInclusion(_terms(id), assignment, inclusion);
        vm.assertEq(ledger.balanceOf(stranger), BOND);
        vm.assertEq(ledger.balanceOf(worker), 9 * BOND + COST);
        vm.assertEq(_session(id).settled, COST, "paid once");
        vm.assertEq(_session(id).numClaims, 0);
        vm.assertEq(ledger.directClaim(assignment).amount, 0);
    }

    function test_RevertWhen_AnotherReceiptIsShown() public {
        _openIt();
        InferenceReceipt memory other = receipt;
        other.outputs = keccak256("other");
        IInferenceLedger.Inclusion memory inclusion = _settleReceipt(work, other);
        bytes4 selector = IInferenceLedger.InferenceLedgerNotIncluded.selector;
        bytes memory error_ = abi.encodeWithSelector(selector, ledger.directClaim(assignment).receipt);
        vm.expectRevert(error_);
        ledger.voidByInclusion(_terms(id), assignment, inclusion);
        inclusion.receipt = ledger.directClaim(assignment).receipt;
        vm.expectRevert(error_);
        ledger.voidByInclusion(_terms(id), assignment, inclusion);
    }

    function test_RevertWhen_TheReceiptWasSettledForAnotherCostOrNode() public {
        _openIt();
        IInferenceLedger.DirectClaim memory claim = ledger.directClaim(assignment);
        bytes memory error_ =
            abi.encodeWithSelector(IInferenceLedger.InferenceLedgerNotIncluded.selector, claim.receipt);
        IInferenceLedger.Inclusion memory less =
            _settleInclusion(_work(4, 4, 0), _inclusionOf(claim.receipt, worker, COST - 1, nextSlot));
        vm.expectRevert(error_);
        ledger.voidByInclusion(_terms(id), assignment, less);
        IInferenceLedger.Inclusion memory more =
            _settleInclusion(_work(6, 6, COST), _inclusionOf(claim.receipt, worker, COST + 1, nextSlot));
        vm.expectRevert(error_);
        ledger.voidByInclusion(_terms(id), assignment, more);
        IInferenceLedger.Inclusion memory another =
            _settleInclusion(_work(7, 7, 2 * COST + 1), _inclusionOf(claim.receipt, stranger, COST, nextSlot));
        vm.expectRevert(error_);
        ledger.voidByInclusion(_terms(id), assignment, another);
    }

    function test_RevertWhen_AnotherGatewaySettledTheReceipt() public {
        _openIt();
        bytes32 digest = ledger.directClaim(assignment).receipt;
        IInferenceLedger.Inclusion memory inclusion = _inclusionOf(digest, worker, COST, nextSlot);
        inclusion.gateway = stranger;
        _settleInclusion(_workOfAnotherGateway(), inclusion);
        vm.assertTrue(ledger.isIncluded(inclusion));
        vm.expectRevert(abi.encodeWithSelector(IInferenceLedger.InferenceLedgerNotIncluded.selector, digest));
        ledger.voidByInclusion(_terms(id), assignment, inclusion);
    }

    function test_AGatewayThatSettlesAfterTheClaimWinsNoBond() public {
        _openIt();
        vm.warp(FROM + 1);
        IInferenceLedger.Inclusion memory inclusion = _settleReceipt(work, receipt);
        vm.expectEmit();
        emit IInferenceLedger.ClaimVoided(assignment, worker);
        vm.prank(gateway);
        ledger.voidByInclusion(_terms(id), assignment, inclusion);
        vm.assertEq(ledger.balanceOf(gateway), 0);
        vm.assertEq(ledger.balanceOf(worker), 10 * BOND + COST);
    }

    function test_ABatchOfTheClaimsOwnSecondIsTooLate() public {
        IInferenceLedger.Inclusion memory inclusion = _settleReceipt(work, receipt);
        _openIt();
        vm.expectEmit();
        emit IInferenceLedger.ClaimVoided(assignment, worker);
        ledger.voidByInclusion(_terms(id), assignment, inclusion);
    }

    // Voiding by equivocation

    function test_AClaimFallsWhenTheNodeSignedAnotherReceipt() public {
        // A batch paid what the node signed; it claims the same work again, in words that it signs nowhere.
        InferenceReceipt memory signed = receipt;
        bytes memory signature = _signature(WORKER_SIGNER_KEY, ledger.hashReceipt(signed));
        _settleReceipt(work, signed);
        receipt.finishedAt += 1;
        (receipt.promptTokens, receipt.cost) = (100, MAX_COST);
        _openIt();
        IInferenceLedger.SessionTerms memory terms = _terms(id);
        // The node itself wins nothing by being the first to show it.
        vm.expectEmit();
        emit IInferenceLedger.ClaimVoided(assignment, payer);
        vm.prank(worker);
        ledger.voidByReceipt(terms, work.assignment, signed, signature);
        vm.assertEq(ledger.balanceOf(payer), BOND);
        vm.assertEq(ledger.balanceOf(worker), 9 * BOND + COST);
        vm.assertEq(_session(id).settled, COST, "the session paid once");
        vm.assertEq(_session(id).numClaims, 0);
    }

    function test_AVoidClaimOfAnotherReceiptLeavesRoomForOtherNodes() public {
        InferenceReceipt memory signed = _receipt(work);
        bytes memory signature = _signature(WORKER_SIGNER_KEY, ledger.hashReceipt(signed));
        (receipt.promptTokens, receipt.cost) = (100, MAX_COST);
        _openIt();
        ledger.voidByReceipt(_terms(id), work.assignment, signed, signature);
        // Another stage of the request, whose pay the inflated claim had taken.
        work.assignment.stage = 1;
        work.assignmentSignature = _signature(GATEWAY_SIGNER_KEY, ledger.hashAssignment(work.assignment));
        receipt = _receipt(work);
        _openIt();
        vm.assertEq(_session(id).numClaims, 1);
    }

    function test_RevertWhen_TheOtherReceiptProvesNothing() public {
        _openIt();
        IInferenceLedger.SessionTerms memory terms = _terms(id);
        InferenceReceipt memory other = receipt;
        bytes32 digest = ledger.hashReceipt(other);
        bytes memory signature = _signature(WORKER_SIGNER_KEY, digest);
        bytes4 none = IInferenceLedger.InferenceLedgerNoOtherReceipt.selector;
        vm.expectRevert(abi.encodeWithSelector(none, assignment, digest));
        ledger.voidByReceipt(terms, work.assignment, other, signature);
        other.outputs = keccak256("other");
        digest = ledger.hashReceipt(other);
        vm.expectRevert(abi.encodeWithSelector(none, assignment, digest));
        ledger.voidByReceipt(terms, work.assignment, other, signature);
        signature = _signature(GATEWAY_SIGNER_KEY, digest);
        vm.expectRevert(abi.encodeWithSelector(none, assignment, digest));
        ledger.voidByReceipt(terms, work.assignment, other, signature);
        other.assignment = keccak256("other");
        digest = ledger.hashReceipt(other);
        signature = _signature(WORKER_SIGNER_KEY, digest);
        vm.expectRevert(abi.encodeWithSelector(none, assignment, digest));
        ledger.voidByReceipt(terms, work.assignment, other, signature);
    }

    // Voiding by acknowledgement

    function test_AnAcknowledgementThatBatchesTookVoidsTheClaim() public {
        _openIt();
        IInferenceLedger.SignedWork memory later = _work(4, 4, 6e18);
        _settle(_one(_claim(SESSION_KEY, later.request, 0)), _one(_payout(address(0x22), 6e18)));
        vm.prank(stranger);
        ledger.voidByAcknowledgement(_terms(id), assignment, later);
        vm.assertEq(ledger.balanceOf(stranger), BOND);
        vm.assertEq(_session(id).numClaims, 0);
    }

    function test_AnAcknowledgementOfLessThanBatchesTookVoidsTheClaim() public {
        _openIt();
        _settle(_one(_claim(id, 4, 6e18, 4, 0)), _one(_payout(address(0x22), 6e18)));
        ledger.voidByAcknowledgement(_terms(id), assignment, _work(5, 5, 5e18));
        vm.assertEq(_session(id).numClaims, 0);
    }

    function test_AnAcknowledgementThatNobodySettledCapsTheClaim() public {
        _openIt();
        IInferenceLedger.SignedWork memory later = _work(4, 4, 2e18);
        vm.expectEmit();
        emit IInferenceLedger.ClaimCapped(assignment, 2e18);
        ledger.voidByAcknowledgement(_terms(id), assignment, later);
        // The same or a lower one changes nothing, a higher one counts.
        IInferenceLedger.SignedWork memory lower = _work(4, 4, 1e18);
        vm.expectRevert(abi.encodeWithSelector(IInferenceLedger.InferenceLedgerCapNotHigher.selector, 1e18, 2e18));
        ledger.voidByAcknowledgement(_terms(id), assignment, lower);
        vm.expectRevert(abi.encodeWithSelector(IInferenceLedger.InferenceLedgerCapNotHigher.selector, 2e18, 2e18));
        ledger.voidByAcknowledgement(_terms(id), assignment, later);
        ledger.voidByAcknowledgement(_terms(id), assignment, _work(9, 9, 3e18));
        vm.warp(FROM + 12 hours);
        ledger.payClaim(_terms(id), assignment);
        vm.assertEq(_session(id).settled, 3e18, "what payer and gateway agreed on, and not more");
    }

    function test_AHugeAcknowledgementLeavesTheBudgetAsTheLimit() public {
        _settle(_one(_claim(id, 2, BUDGET - 2e18, 2, 0)), _one(_payout(address(0x22), BUDGET - 2e18)));
        _openIt();
        ledger.voidByAcknowledgement(_terms(id), assignment, _work(4, 4, 2 ** 96 + 5));
        vm.assertEq(ledger.directClaim(assignment).cap, type(uint96).max);
        vm.warp(FROM + 12 hours);
        ledger.payClaim(_terms(id), assignment);
        vm.assertEq(_session(id).settled, BUDGET);
    }

    /// @notice What was signed for up to a request counts whatever the session paid meanwhile, claims on later requests too. The
    /// node shows the later request, which acknowledges both, and is paid.
    function test_ALaterRequestLiftsAClaimThatClaimsOnLaterOnesLeftNothing() public {
        IInferenceLedger.SignedWork memory older = _work(1, 1, 0);
        (older.assignment.stage, older.request.maxCost) = (1, COST);
        older.assignment.request = ledger.hashRequest(older.request);
        _sign(older);
        InferenceReceipt memory made = _receipt(older);
        work = _work(3, 3, COST);
        receipt = _receipt(work);
        assignment = receipt.assignment;
        _openIt();
        vm.warp(FROM + 12 hours);
        ledger.payClaim(_terms(id), assignment);
        IInferenceLedger.SessionTerms memory terms = _terms(id);
        vm.prank(workerKey);
        ledger.openClaim(terms, older, made);
        vm.warp(FROM + 1 days);
        uint256 snapshot = vm.snapshotState();
        ledger.payClaim(terms, made.assignment);
        vm.assertEq(ledger.directClaim(made.assignment).amount, 0, "the later claim took what the payer had signed for");
        vm.revertToState(snapshot);
        ledger.voidByAcknowledgement(terms, made.assignment, _work(4, 4, 2 * COST));
        ledger.payClaim(terms, made.assignment);
        vm.assertEq(ledger.directClaim(made.assignment).amount, COST);
    }

    function test_WhatClaimsTookDoesNotVoidOthers() public {
        _openIt();
        vm.warp(FROM + 12 hours);
        ledger.payClaim(_terms(id), assignment);
        // A claim on an older request; the payer agreed on 4 for it, and no batch ever took that.
        IInferenceLedger.SignedWork memory older = _work(1, 1, 0);
        InferenceReceipt memory made = _receipt(older);
        IInferenceLedger.SessionTerms memory terms = _terms(id);
        vm.prank(workerKey);
        ledger.openClaim(terms, older, made);
        ledger.voidByAcknowledgement(terms, made.assignment, _work(2, 2, 4e18));
        vm.assertEq(_session(id).numClaims, 1, "capped, not void");
    }

    function test_RevertWhen_TheAcknowledgementIsNoneOfIt() public {
        _openIt();
        bytes4 selector = IInferenceLedger.InferenceLedgerNotAcknowledged.selector;
        IInferenceLedger.SignedWork memory later = _work(3, 3, 0);
        vm.expectRevert(abi.encodeWithSelector(selector, 3, 3));
        ledger.voidByAcknowledgement(_terms(id), assignment, later);
        later = _work(3, 2, 0);
        vm.expectRevert(abi.encodeWithSelector(selector, 3, 2));
        ledger.voidByAcknowledgement(_terms(id), assignment, later);
        // Signed by the payer alone: the gateway accepted nothing.
        later = _work(4, 4, 0);
        later.assignmentSignature = "";
        bytes32 digest = ledger.hashAssignment(later.assignment);
        vm.expectRevert(abi.encodeWithSelector(IInferenceLedger.InferenceLedgerNotAssigned.selector, gateway, digest));
        ledger.voidByAcknowledgement(_terms(id), assignment, later);
    }

    function _refused(bytes memory error_) internal {
        IInferenceLedger.SessionTerms memory terms = _terms(id);
        vm.expectRevert(error_);
        vm.prank(workerKey);
        ledger.openClaim(terms, work, receipt);
    }
}
