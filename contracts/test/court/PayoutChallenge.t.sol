// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IDisputeCourt} from "../../src/interfaces/IDisputeCourt.sol";
import {IInferenceLedger} from "../../src/interfaces/IInferenceLedger.sol";
import {InferenceReceipt} from "../../src/libraries/Messages.sol";
import {Served} from "../helpers/Served.sol";

contract PayoutChallengeTest is Served {
    IInferenceLedger.SignedWork internal work;
    InferenceReceipt internal receipt;
    bytes32 internal digest;
    bytes internal acceptance;
    uint256 internal start;

    function setUp() public override {
        super.setUp();
        IInferenceLedger.SignedWork memory made = _work(0, 0, 0);
        work = made;
        receipt = _receipt(made);
        digest = ledger.hashReceipt(receipt);
        acceptance = _signature(GATEWAY_SIGNER_KEY, ledger.hashAcceptance(digest));
        start = block.timestamp;
    }

    function _challenge() internal {
        vm.prank(worker);
        court.challengePayout(gateway, receipt, acceptance);
    }

    function test_AnUnpaidReceiptIsPaidFromTheGatewaysStake() public {
        uint256 wallet = token.balanceOf(worker);
        uint48 decidedAt = uint48(start) + 12 hours;
        vm.expectEmit();
        emit IDisputeCourt.PayoutChallenged(digest, gateway, worker, worker, COST, BOND, decidedAt);
        _challenge();
        vm.assertEq(token.balanceOf(worker), wallet - BOND);
        vm.assertTrue(court.isChallenged(gateway, digest));
        vm.assertEq(court.challenge(gateway, digest).challenger, worker);
        vm.assertEq(uint256(court.challenge(gateway, digest).decidedAt), decidedAt);
        vm.expectRevert(abi.encodeWithSelector(IDisputeCourt.DisputeCourtStillOpen.selector, digest, decidedAt));
        court.decideChallenge(gateway, digest);

        vm.warp(decidedAt);
        vm.expectEmit();
        emit IDisputeCourt.ChallengeUpheld(digest, gateway, worker, 10e18, 5e18);
        vm.prank(stranger);
        court.decideChallenge(gateway, digest);
        vm.assertEq(nodes.node(gateway).stake, MIN_GATEWAY - 10e18);
        vm.assertEq(court.balanceOf(worker), BOND + COST);
        vm.assertEq(court.balanceOf(treasury), 5e18);
        vm.assertTrue(nodes.reputation(gateway) < 0.5e18);
        vm.assertFalse(nodes.isActive(gateway, GATEWAY));
        vm.expectRevert(abi.encodeWithSelector(IDisputeCourt.DisputeCourtNoChallenge.selector, digest));
        court.decideChallenge(gateway, digest);

        vm.expectEmit();
        emit IDisputeCourt.Withdrawn(worker, BOND + COST);
        vm.prank(worker);
        court.withdraw();
        vm.assertEq(token.balanceOf(worker), wallet + COST);
        vm.expectRevert(abi.encodeWithSelector(IDisputeCourt.DisputeCourtNothingToWithdraw.selector, worker));
        vm.prank(worker);
        court.withdraw();
    }

    function test_ThawingStakePaysToo() public {
        vm.prank(gateway);
        nodes.deregister();
        _challenge();
        vm.warp(start + 12 hours);
        court.decideChallenge(gateway, digest);
        vm.assertEq(court.balanceOf(worker), BOND + COST);
        vm.assertEq(nodes.node(gateway).thawing, MIN_GATEWAY - 10e18);
    }

    function test_AReceiptThatWasSettledEndsTheChallenge() public {
        IInferenceLedger.Inclusion memory inclusion = _settleReceipt(work, receipt);
        vm.warp(++start);
        _challenge();
        vm.expectEmit();
        emit IDisputeCourt.ChallengeAnswered(digest, gateway, stranger);
        vm.prank(stranger);
        court.answerChallenge(digest, inclusion);
        vm.assertEq(court.balanceOf(stranger), BOND);
        vm.assertEq(nodes.node(gateway).stake, MIN_GATEWAY);
        bytes memory error_ = abi.encodeWithSelector(IDisputeCourt.DisputeCourtNoChallenge.selector, digest);
        vm.expectRevert(error_);
        court.answerChallenge(digest, inclusion);
        vm.warp(start + 12 hours);
        vm.expectRevert(error_);
        court.decideChallenge(gateway, digest);
        vm.expectRevert(abi.encodeWithSelector(IDisputeCourt.DisputeCourtAlreadyChallenged.selector, digest));
        _challenge();
    }

    function test_AGatewayThatSettlesAfterTheChallengeWinsNoBond() public {
        _challenge();
        IInferenceLedger.Inclusion memory inclusion = _settleReceipt(work, receipt);
        vm.expectEmit();
        emit IDisputeCourt.ChallengeAnswered(digest, gateway, worker);
        vm.prank(gateway);
        court.answerChallenge(digest, inclusion);
        vm.assertEq(court.balanceOf(gateway), 0);
        vm.assertEq(court.balanceOf(worker), BOND);
    }

    function test_ABatchLongAfterTheChallengeWinsNoBondEither() public {
        _challenge();
        vm.warp(vm.getBlockTimestamp() + 1 hours);
        IInferenceLedger.Inclusion memory inclusion = _settleReceipt(work, receipt);
        vm.prank(gateway);
        court.answerChallenge(digest, inclusion);
        vm.assertEq(court.balanceOf(gateway), 0);
        vm.assertEq(court.balanceOf(worker), BOND);
    }

    function test_ABatchWithTheWholeReceiptAnswersForTheRestOfIt() public {
        IInferenceLedger.Inclusion memory inclusion = _settleReceipt(work, receipt);
        IInferenceLedger.SessionTerms memory terms = _claimFor(1);
        vm.warp(vm.getBlockTimestamp() + 12 hours);
        ledger.payClaim(terms, receipt.assignment);
        _challenge();
        vm.assertEq(court.challenge(gateway, digest).amount, COST - 1);
        vm.prank(gateway);
        court.answerChallenge(digest, inclusion);
        vm.assertEq(court.balanceOf(gateway), BOND);
    }

    function test_RevertWhen_TheAnswerShowsSomethingElse() public {
        InferenceReceipt memory other = receipt;
        other.outputs = keccak256("other");
        IInferenceLedger.Inclusion memory inclusion = _settleReceipt(work, other);
        _challenge();
        bytes memory error_ = abi.encodeWithSelector(IDisputeCourt.DisputeCourtNotIncluded.selector, digest);
        vm.expectRevert(error_);
        court.answerChallenge(digest, inclusion);
        inclusion.receipt = digest;
        vm.expectRevert(error_);
        court.answerChallenge(digest, inclusion);
        inclusion.gateway = stranger;
        vm.expectRevert(abi.encodeWithSelector(IDisputeCourt.DisputeCourtNoChallenge.selector, digest));
        court.answerChallenge(digest, inclusion);
    }

    function test_RevertWhen_TheReceiptWasSettledForLessOrForAnother() public {
        _challenge();
        bytes memory error_ = abi.encodeWithSelector(IDisputeCourt.DisputeCourtNotIncluded.selector, digest);
        IInferenceLedger.Inclusion memory less =
            _settleInclusion(_work(1, 1, 0), _inclusionOf(digest, worker, COST - 1, nextSlot));
        vm.expectRevert(error_);
        court.answerChallenge(digest, less);
        IInferenceLedger.Inclusion memory another =
            _settleInclusion(_work(3, 3, COST), _inclusionOf(digest, stranger, COST, nextSlot));
        vm.expectRevert(error_);
        court.answerChallenge(digest, another);
    }

    function test_RevertWhen_AnotherGatewaySettledTheReceipt() public {
        _challenge();
        IInferenceLedger.Inclusion memory inclusion = _inclusionOf(digest, worker, COST, nextSlot);
        inclusion.gateway = stranger;
        _settleInclusion(_workOfAnotherGateway(), inclusion);
        vm.assertTrue(ledger.isIncluded(inclusion));
        vm.expectRevert(abi.encodeWithSelector(IDisputeCourt.DisputeCourtNoChallenge.selector, digest));
        court.answerChallenge(digest, inclusion);
    }

    function test_RevertWhen_TheGatewayAcceptedNothing() public {
        bytes4 selector = IDisputeCourt.DisputeCourtNotSignedBy.selector;
        acceptance = _signature(WORKER_SIGNER_KEY, ledger.hashAcceptance(digest));
        vm.expectRevert(abi.encodeWithSelector(selector, gateway, workerKey));
        _challenge();
        acceptance = "";
        vm.expectRevert(abi.encodeWithSelector(selector, gateway, address(0)));
        _challenge();
        // An acceptance of another receipt.
        acceptance = _signature(GATEWAY_SIGNER_KEY, ledger.hashAcceptance(keccak256("other")));
        vm.expectRevert();
        _challenge();
    }

    function test_TheOperatorsOwnAcceptanceCounts() public {
        uint256 key = uint256(keccak256("gateway")) >> 1;
        acceptance = _signature(key, ledger.hashAcceptance(digest));
        _challenge();
        vm.assertTrue(court.isChallenged(gateway, digest));
    }

    function test_ARetiredSignerCountsForTheEvidencePeriod() public {
        vm.prank(gateway);
        nodes.setSigner(stranger);
        receipt.finishedAt = uint64(start + 7 days);
        digest = ledger.hashReceipt(receipt);
        acceptance = _signature(GATEWAY_SIGNER_KEY, ledger.hashAcceptance(digest));
        vm.warp(start + 7 days + 1);
        vm.expectRevert(abi.encodeWithSelector(IDisputeCourt.DisputeCourtNotSignedBy.selector, gateway, gatewaySigner));
        _challenge();
        vm.warp(start + 7 days);
        _challenge();
    }

    function test_RevertWhen_TooLate() public {
        uint256 until = uint256(receipt.finishedAt) + 2 days;
        vm.warp(until + 1);
        vm.expectRevert(abi.encodeWithSelector(IDisputeCourt.DisputeCourtTooLate.selector, digest, until));
        _challenge();
        vm.warp(until);
        _challenge();
    }

    function test_RevertWhen_NothingIsOwed() public {
        receipt.cost = 0;
        _acceptAgain();
        vm.expectRevert(abi.encodeWithSelector(IDisputeCourt.DisputeCourtNothingOwed.selector, digest));
        _challenge();
        receipt.cost = uint128(type(uint96).max) + 1;
        _acceptAgain();
        vm.expectRevert(abi.encodeWithSelector(IDisputeCourt.DisputeCourtNothingOwed.selector, digest));
        _challenge();
        receipt.cost = type(uint96).max;
        _acceptAgain();
        _challenge();
        vm.assertEq(court.challenge(gateway, digest).amount, type(uint96).max);
    }

    // One receipt, one payment

    function test_RevertWhen_TheReceiptIsClaimedFromTheSession() public {
        vm.warp(1_800_003_600 + 1 hours);
        IInferenceLedger.SessionTerms memory terms = _terms(id);
        vm.prank(worker);
        ledger.openClaim(terms, work, receipt);
        bytes memory error_ = abi.encodeWithSelector(IDisputeCourt.DisputeCourtClaimedDirectly.selector, digest);
        vm.expectRevert(error_);
        _challenge();
        vm.warp(block.timestamp + 12 hours);
        ledger.payClaim(terms, receipt.assignment);
        vm.expectRevert(error_);
        _challenge();
    }

    function test_AClaimThatFellCanBeChallenged() public {
        vm.warp(1_800_003_600 + 1 hours);
        IInferenceLedger.SessionTerms memory terms = _terms(id);
        vm.prank(worker);
        ledger.openClaim(terms, work, receipt);
        IInferenceLedger.SignedWork memory later = _work(1, 1, 6e18);
        _settle(_one(_claim(SESSION_KEY, later.request, 0)), _one(_payout(address(0x22), 6e18)));
        ledger.voidByAcknowledgement(terms, receipt.assignment, later);
        _challenge();
        vm.assertTrue(court.isChallenged(gateway, digest));
    }

    function test_RevertWhen_AChallengedReceiptIsClaimedFromTheSession() public {
        _challenge();
        vm.warp(1_800_003_600 + 1 hours);
        IInferenceLedger.SessionTerms memory terms = _terms(id);
        vm.expectRevert(abi.encodeWithSelector(IInferenceLedger.InferenceLedgerPayoutChallenged.selector, digest));
        vm.prank(worker);
        ledger.openClaim(terms, work, receipt);
    }

    function test_AGatewayWithoutEnoughStakePaysWhatItHas() public {
        vm.prank(gateway);
        nodes.deregister();
        vm.warp(start + STAKE_THAW - 1);
        receipt.finishedAt = uint64(block.timestamp);
        _acceptAgain();
        _challenge();
        vm.warp(start + STAKE_THAW);
        vm.prank(gateway);
        nodes.withdraw();
        vm.warp(start + STAKE_THAW + 12 hours);
        court.decideChallenge(gateway, digest);
        vm.assertEq(court.balanceOf(worker), BOND, "nothing was left to take");
    }

    /// @dev It would take the direct claim from a node whose gateway has no stake left.
    function test_RevertWhen_SomebodyElseChooses() public {
        vm.expectRevert(abi.encodeWithSelector(IDisputeCourt.DisputeCourtNotNode.selector, worker, stranger));
        vm.prank(stranger);
        court.challengePayout(gateway, receipt, acceptance);
    }

    function test_TheSignerMayChallengeToo() public {
        vm.prank(worker);
        token.transfer(workerKey, BOND);
        vm.startPrank(workerKey);
        token.approve(address(court), BOND);
        court.challengePayout(gateway, receipt, acceptance);
        vm.stopPrank();
        vm.assertEq(court.challenge(gateway, digest).challenger, workerKey);
    }

    function test_WhoeverElseAcceptsAReceiptTakesNoRemedyFromItsNode() public {
        // Not even registered, let alone the gateway of the session; its stake would pay, if it had any.
        address nobody = vm.addr(0x1234);
        bytes memory forged = _signature(0x1234, ledger.hashAcceptance(digest));
        vm.prank(worker);
        court.challengePayout(nobody, receipt, forged);
        uint256 snapshot = vm.snapshotState();
        _challenge();
        vm.assertEq(court.challenge(gateway, digest).challenger, worker);
        vm.revertToState(snapshot);
        vm.warp(1_800_003_600 + 1 hours);
        IInferenceLedger.SessionTerms memory terms = _terms(id);
        vm.prank(worker);
        ledger.openClaim(terms, work, receipt);
        vm.assertEq(_session(id).numClaims, 1);
    }

    function test_WhatADirectClaimLeftUnpaidIsStillOwed() public {
        vm.warp(1_800_003_600 + 1 hours);
        IInferenceLedger.SessionTerms memory terms = _terms(id);
        vm.prank(worker);
        ledger.openClaim(terms, work, receipt);
        // The gateway takes all but one unit of what the payer signed for; what is left goes to the claim.
        _settle(_one(_claim(id, 9, MAX_COST - 1, 9, 0)), _one(_payout(address(0x22), MAX_COST - 1)));
        vm.warp(vm.getBlockTimestamp() + 12 hours);
        ledger.payClaim(terms, receipt.assignment);
        vm.assertEq(ledger.directClaim(receipt.assignment).amount, 1);
        _challenge();
        vm.assertEq(court.challenge(gateway, digest).amount, COST - 1);
        vm.warp(vm.getBlockTimestamp() + 12 hours);
        court.decideChallenge(gateway, digest);
        vm.assertEq(court.balanceOf(worker), BOND + COST - 1);
    }

    function _claimFor(uint96 cost) internal returns (IInferenceLedger.SessionTerms memory terms) {
        vm.warp(1_800_003_600 + 1 hours);
        terms = _terms(id);
        InferenceReceipt memory other = receipt;
        other.cost = cost;
        vm.prank(worker);
        ledger.openClaim(terms, work, other);
    }

    function test_RevertWhen_AClaimForLessIsUnderWay() public {
        _claimFor(COST - 1);
        vm.expectRevert(abi.encodeWithSelector(IDisputeCourt.DisputeCourtClaimedDirectly.selector, digest));
        _challenge();
    }

    function test_RevertWhen_AClaimPaidMore() public {
        (receipt.promptTokens, receipt.cost) = (100, COST - 1);
        digest = ledger.hashReceipt(receipt);
        acceptance = _signature(GATEWAY_SIGNER_KEY, ledger.hashAcceptance(digest));
        IInferenceLedger.SessionTerms memory terms = _claimFor(COST);
        vm.warp(vm.getBlockTimestamp() + 12 hours);
        ledger.payClaim(terms, receipt.assignment);
        vm.expectRevert(abi.encodeWithSelector(IDisputeCourt.DisputeCourtClaimedDirectly.selector, digest));
        _challenge();
    }

    function test_NobodyBringsMostOfAStakeToSafetyByAcceptingAnInvention() public {
        // Before a jury can take it: work that never was, and an accomplice who is owed the whole stake for it.
        uint128 stake = nodes.node(worker).stake;
        (receipt.node, receipt.cost) = (stranger, stake);
        digest = ledger.hashReceipt(receipt);
        acceptance = _signature(WORKER_SIGNER_KEY, ledger.hashAcceptance(digest));
        vm.prank(stranger);
        court.challengePayout(worker, receipt, acceptance);
        vm.warp(start + 12 hours);
        court.decideChallenge(worker, digest);
        vm.assertEq(nodes.node(worker).stake, 0);
        vm.assertEq(court.balanceOf(stranger), BOND + stake / 2);
        vm.assertEq(court.balanceOf(treasury), stake / 2);
    }

    function _acceptAgain() internal {
        digest = ledger.hashReceipt(receipt);
        acceptance = _signature(GATEWAY_SIGNER_KEY, ledger.hashAcceptance(digest));
    }
}
