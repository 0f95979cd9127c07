// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IComputeDisputes} from "../../src/interfaces/IComputeDisputes.sol";
import {IDisputeCourt} from "../../src/interfaces/IDisputeCourt.sol";
import {IExaminer} from "../../src/interfaces/IExaminer.sol";
import {IJury} from "../../src/interfaces/IJury.sol";
import {Disputed} from "../helpers/Disputed.sol";

/// @notice Compute disputes from the bond to the last unit paid.
contract DisputeTest is Disputed {
    uint256 internal stake;

    function setUp() public override {
        super.setUp();
        stake = nodes.node(worker).stake;
    }

    // Opening

    function test_OpeningLocksTheBondAndTheCap() public {
        uint256 wallet = token.balanceOf(challenger);
        bytes32 expected = keccak256(abi.encode(receipt.assignment, uint32(1), bytes32(0)));
        IExaminer.Evidence memory evidence = _evidence();
        bytes32 digest = ledger.hashReceipt(receipt);
        vm.expectEmit();
        emit IComputeDisputes.DisputeOpened(
            expected, worker, challenger, receipt.assignment, digest, 1, uint96(stake / 2), DISPUTE_BOND
        );
        vm.prank(challenger);
        bytes32 dispute = court.openDispute(evidence, work.request, 1);
        vm.assertEq(dispute, expected);
        vm.assertEq(token.balanceOf(challenger), wallet - DISPUTE_BOND);
        IComputeDisputes.Dispute memory opened = court.dispute(dispute);
        vm.assertEq(opened.payer, payer);
        vm.assertEq(opened.cost, COST);
        vm.assertEq(opened.cap, stake / 2);
        vm.assertEq(uint256(opened.phase), uint256(IComputeDisputes.Phase.Opening));
        vm.assertEq(court.disputeOver(receipt.assignment, 1), dispute);
        vm.assertEq(court.bond(dispute, 0).owner, challenger);
        vm.assertEq(court.bond(dispute, 0).amount, DISPUTE_BOND);
        IJury.Case memory opened_ = jury.caseOf(dispute);
        vm.assertEq(opened_.charge.model, keccak256("tiny"));
        vm.assertEq(opened_.charge.receipt, digest);
        vm.assertEq(opened_.numSeats, NUM_AUDITORS);
    }

    function test_RevertWhen_TheRequestIsAnother() public {
        IExaminer.Evidence memory evidence = _evidence();
        bytes32 expected = work.assignment.request;
        work.request.nonce = 77;
        bytes32 given = ledger.hashRequest(work.request);
        vm.expectRevert(abi.encodeWithSelector(IExaminer.ExaminerUnrelated.selector, expected, given));
        vm.prank(challenger);
        court.openDispute(evidence, work.request, 1);
    }

    function test_RevertWhen_TooLate() public {
        // The assignment's deadline is later than the node says it was done.
        uint256 until = 1_800_003_600 + 1 hours;
        vm.warp(until + 1);
        IExaminer.Evidence memory evidence = _evidence();
        vm.expectRevert(abi.encodeWithSelector(IDisputeCourt.DisputeCourtTooLate.selector, receipt.assignment, until));
        vm.prank(challenger);
        court.openDispute(evidence, work.request, 1);
        vm.warp(until);
        _dispute(1);
    }

    function test_TheNodesOwnWordCountsWhenItIsLater() public {
        receipt.finishedAt = 1_800_003_600 + 1 hours;
        vm.warp(1_800_003_600 + 2 hours);
        _dispute(1);
        receipt.finishedAt = type(uint64).max;
        _fold();
        _dispute(2);
        vm.assertEq(uint256(jury.caseOf(court.disputeOver(receipt.assignment, 2)).charge.endedAt), type(uint48).max);
    }

    function test_RevertWhen_TheChunkIsDisputedAlready() public {
        bytes32 dispute = _dispute(1);
        _dispute(2);
        IExaminer.Evidence memory evidence = _evidence();
        bytes memory error_ = abi.encodeWithSelector(IComputeDisputes.DisputeCourtAlreadyDisputed.selector, dispute);
        vm.expectRevert(error_);
        vm.prank(challenger);
        court.openDispute(evidence, work.request, 1);
    }

    function test_RevertWhen_TheAccusedCouldNotPayForItsTrial() public {
        vm.prank(worker);
        nodes.deregister();
        vm.warp(vm.getBlockTimestamp() + STAKE_THAW);
        vm.prank(worker);
        nodes.withdraw();
        receipt.finishedAt = uint64(vm.getBlockTimestamp());
        IExaminer.Evidence memory evidence = _evidence();
        vm.expectRevert(
            abi.encodeWithSelector(IComputeDisputes.DisputeCourtTooLittleStake.selector, worker, 0, DISPUTE_BOND)
        );
        vm.prank(challenger);
        court.openDispute(evidence, work.request, 1);
    }

    function test_CostsAbove96BitsAreHeldToThem() public {
        receipt.cost = type(uint128).max;
        bytes32 dispute = _dispute(0);
        vm.assertEq(court.dispute(dispute).cost, type(uint96).max);
    }

    // The accused speaks or does not

    function test_SilenceConvicts() public {
        bytes32 dispute = _dispute(1);
        uint256 from = vm.getBlockTimestamp() + 6 hours;
        vm.warp(from - 1);
        vm.expectRevert(
            abi.encodeWithSelector(IComputeDisputes.DisputeCourtNotNow.selector, dispute, from, type(uint256).max)
        );
        court.finalize(dispute);
        vm.warp(from);
        vm.expectEmit();
        emit IComputeDisputes.Awarded(dispute, payer, COST);
        vm.expectEmit();
        emit IComputeDisputes.DisputeEnded(dispute, worker, IJury.Verdict.Convicted, uint128(stake / 2));
        court.finalize(dispute);
        vm.assertEq(nodes.node(worker).stake, stake / 2);
        vm.assertEq(court.balanceOf(payer), COST);
        uint256 reward = (stake / 2 - COST) / 5;
        vm.assertEq(court.balanceOf(challenger), DISPUTE_BOND + reward);
        vm.assertEq(court.balanceOf(treasury), stake / 2 - COST - reward);
        vm.assertFalse(nodes.isActive(worker, WORKER));
        vm.assertEq(nodes.jailedUntil(worker), vm.getBlockTimestamp() + 30 days);
        vm.assertTrue(court.isConvicted(receipt.assignment));
        vm.assertEq(_courtHolds(), 0);
    }

    function test_RevertWhen_SomebodyElseOpens() public {
        bytes32 dispute = _dispute(1);
        vm.expectRevert(abi.encodeWithSelector(IComputeDisputes.DisputeCourtNotAccused.selector, dispute, stranger));
        vm.prank(stranger);
        court.publishOpening(dispute, "bafk");
    }

    function test_RevertWhen_TheOpeningComesTooLate() public {
        bytes32 dispute = _dispute(1);
        uint256 from = vm.getBlockTimestamp();
        vm.warp(from + 6 hours);
        vm.expectRevert(
            abi.encodeWithSelector(IComputeDisputes.DisputeCourtNotNow.selector, dispute, from, from + 6 hours)
        );
        vm.prank(worker);
        court.publishOpening(dispute, "bafk");
    }

    function test_AnOpeningBeginsTheTrial() public {
        bytes32 dispute = _dispute(1);
        vm.expectEmit();
        emit IComputeDisputes.OpeningPublished(dispute, "bafkopening");
        vm.expectEmit();
        emit IJury.DrawFixed(dispute, 0, uint64(vm.getBlockNumber() + 4));
        vm.prank(worker);
        court.publishOpening(dispute, "bafkopening");
        bytes memory error_ = abi.encodeWithSelector(
            IComputeDisputes.DisputeCourtWrongPhase.selector, dispute, IComputeDisputes.Phase.Trial
        );
        vm.expectRevert(error_);
        vm.prank(worker);
        court.publishOpening(dispute, "bafkopening");
    }

    function test_ADeregisteredNodeStillSpeaks() public {
        bytes32 dispute = _dispute(1);
        vm.prank(worker);
        nodes.deregister();
        vm.prank(worker);
        court.publishOpening(dispute, "bafkopening");
    }

    // Verdicts

    function test_ACheatPaysPayerChallengerAndJurors() public {
        bytes32 dispute = _trial();
        address[] memory jurors = _jurors(dispute);
        _voteAll(dispute, GUILTY);
        _finalize(dispute);
        vm.assertEq(_verdict(dispute), uint256(IJury.Verdict.Convicted));
        uint256 reward = (stake / 2 - COST) / 5;
        vm.assertEq(court.balanceOf(payer), COST);
        vm.assertEq(court.balanceOf(challenger), DISPUTE_BOND + reward);
        for (uint256 i = 0; i < 5; ++i) {
            vm.assertEq(court.balanceOf(jurors[i]), FEE);
        }
        vm.assertEq(court.balanceOf(treasury), stake / 2 - COST - reward - 5 * FEE);
        vm.assertEq(_courtHolds(), 0);
        vm.assertTrue(nodes.reputation(worker) < 0.5e18);
        // Once.
        bytes memory error_ = abi.encodeWithSelector(
            IComputeDisputes.DisputeCourtWrongPhase.selector, dispute, IComputeDisputes.Phase.Ended
        );
        vm.expectRevert(error_);
        court.finalize(dispute);
        IExaminer.Evidence memory evidence = _evidence();
        vm.warp(1_800_003_600);
        vm.expectRevert(
            abi.encodeWithSelector(IComputeDisputes.DisputeCourtAlreadyConvicted.selector, receipt.assignment)
        );
        vm.prank(challenger);
        court.openDispute(evidence, work.request, 2);
    }

    function test_AFalseAccusationPaysJurorsAndTheAccused() public {
        bytes32 dispute = _trial();
        address[] memory jurors = _jurors(dispute);
        _voteAll(dispute, CLEAR);
        _finalize(dispute);
        vm.assertEq(_verdict(dispute), uint256(IJury.Verdict.Acquitted));
        vm.assertEq(nodes.node(worker).stake, stake);
        vm.assertEq(court.balanceOf(challenger), 0);
        vm.assertEq(court.balanceOf(jurors[0]), FEE);
        vm.assertEq(court.balanceOf(worker), DISPUTE_BOND - 5 * FEE);
        vm.assertTrue(nodes.isActive(worker, WORKER));
        vm.assertEq(_courtHolds(), 0);
        IExaminer.Evidence memory evidence = _evidence();
        vm.warp(1_800_003_600);
        vm.expectRevert(abi.encodeWithSelector(IComputeDisputes.DisputeCourtAlreadyDisputed.selector, dispute));
        vm.prank(challenger);
        court.openDispute(evidence, work.request, 1);
    }

    function test_PoorWorkIsUnpaidAndCostsItsTrial() public {
        bytes32 dispute = _trial();
        _vote(dispute, _votes(POOR, POOR, POOR, POOR, GUILTY));
        _finalize(dispute);
        vm.assertEq(_verdict(dispute), uint256(IJury.Verdict.Warned));
        // Four jurors were near the median, the fifth was far from it.
        vm.assertEq(nodes.node(worker).stake, stake - 2 * COST - 4 * FEE);
        vm.assertEq(court.balanceOf(payer), COST);
        vm.assertEq(court.balanceOf(challenger), DISPUTE_BOND);
        vm.assertEq(court.balanceOf(treasury), COST + PENALTY);
        vm.assertTrue(nodes.isActive(worker, WORKER));
        vm.assertTrue(nodes.reputation(worker) < 0.5e18);
        vm.assertTrue(court.isRefunded(receipt.assignment));
        vm.assertEq(_courtHolds(), 0);
    }

    /// @dev A node and a payer who are friends can write any cost into a receipt: it must not leave the jurors without pay.
    function test_JurorsOfPoorWorkArePaidWhateverItCost() public {
        receipt.cost = type(uint128).max;
        bytes32 dispute = _trial();
        address[] memory jurors = _jurors(dispute);
        _voteAll(dispute, POOR);
        _finalize(dispute);
        vm.assertEq(nodes.node(worker).stake, stake - stake / 2, "the cap");
        for (uint256 i = 0; i < jurors.length; ++i) {
            vm.assertEq(court.balanceOf(jurors[i]), FEE);
        }
        vm.assertEq(court.balanceOf(payer), (stake / 2 - 5 * FEE) / 2);
        vm.assertEq(_courtHolds(), 0);
    }

    /// @dev Or a node would bring its stake to safety by having friends convict it of what they invented.
    function test_FriendsOfAConvictGetLessThanHalfOfWhatItLoses() public {
        receipt.cost = type(uint128).max;
        bytes32 dispute = _trial();
        _voteAll(dispute, GUILTY);
        _finalize(dispute);
        uint256 taken = stake / 2;
        vm.assertEq(court.balanceOf(payer), taken / 4);
        vm.assertEq(court.balanceOf(challenger), DISPUTE_BOND + (taken - taken / 4) / 5);
        vm.assertEq(_courtHolds(), 0);
    }

    function test_NoTwoThirdsIsADraw() public {
        bytes32 dispute = _trial();
        address[] memory jurors = _jurors(dispute);
        uint64[] memory three = new uint64[](3);
        (three[0], three[1], three[2]) = (GUILTY, GUILTY, CLEAR);
        _vote(dispute, three);
        _finalize(dispute);
        vm.assertEq(_verdict(dispute), uint256(IJury.Verdict.None));
        vm.assertEq(nodes.node(worker).stake, stake);
        vm.assertEq(court.balanceOf(challenger), DISPUTE_BOND);
        // The two silent ones pay those who revealed.
        vm.assertEq(court.balanceOf(jurors[2]), FEE);
        vm.assertEq(nodes.node(jurors[3]).stake, MIN_AUDITOR - PENALTY);
        vm.assertEq(court.balanceOf(treasury), 2 * PENALTY - 3 * FEE);
        vm.assertEq(_courtHolds(), 0);
        // A draw does not stand in the way of another dispute.
        receipt.finishedAt = uint64(vm.getBlockTimestamp());
        _fold();
        vm.assertTrue(_dispute(1) != dispute);
    }

    function test_WithoutAVerdictOrSilenceNobodyPays() public {
        bytes32 dispute = _trial();
        address[] memory jurors = _jurors(dispute);
        _vote(dispute, _votes(GUILTY, GUILTY, POOR, CLEAR, CLEAR));
        _finalize(dispute);
        vm.assertEq(_verdict(dispute), uint256(IJury.Verdict.None));
        vm.assertEq(court.balanceOf(challenger), DISPUTE_BOND);
        for (uint256 i = 0; i < 5; ++i) {
            vm.assertEq(court.balanceOf(jurors[i]), 0);
        }
        vm.assertEq(_courtHolds(), 0);
    }

    function test_JurorsShareWhatThereIs() public {
        bytes32 dispute = _trial();
        address[] memory jurors = _jurors(dispute);
        // The one who stays silent has a single credit left to lose.
        vm.prank(address(court));
        nodes.slash(jurors[4], MIN_AUDITOR - 1e18, stranger);
        uint64[] memory four = new uint64[](4);
        (four[0], four[1], four[2], four[3]) = (GUILTY, GUILTY, CLEAR, CLEAR);
        _vote(dispute, four);
        _finalize(dispute);
        vm.assertEq(_verdict(dispute), uint256(IJury.Verdict.None));
        for (uint256 i = 0; i < 4; ++i) {
            vm.assertEq(court.balanceOf(jurors[i]), 0.25e18);
        }
        vm.assertEq(_courtHolds(), 0);
    }

    function test_AJurorWhoGuessesPays() public {
        bytes32 dispute = _trial();
        address[] memory jurors = _jurors(dispute);
        _vote(dispute, _votes(GUILTY, GUILTY, GUILTY + 100_000, CLEAR, GUILTY * 2));
        vm.expectEmit();
        emit IComputeDisputes.JurorPenalized(dispute, jurors[3], PENALTY);
        _finalize(dispute);
        vm.assertEq(_verdict(dispute), uint256(IJury.Verdict.Convicted));
        vm.assertEq(court.balanceOf(jurors[2]), FEE);
        vm.assertEq(nodes.node(jurors[3]).stake, MIN_AUDITOR - PENALTY);
        vm.assertEq(nodes.node(jurors[4]).stake, MIN_AUDITOR - PENALTY);
        vm.assertEq(court.balanceOf(jurors[4]), 0);
        vm.assertEq(_courtHolds(), 0);
    }

    function test_OneAssignmentIsSlashedAndRefundedOnce() public {
        bytes32 first = _dispute(0);
        bytes32 second = _dispute(2);
        vm.warp(vm.getBlockTimestamp() + 6 hours);
        court.finalize(first);
        uint256 left = nodes.node(worker).stake;
        court.finalize(second);
        vm.assertEq(nodes.node(worker).stake, left);
        vm.assertEq(court.balanceOf(payer), COST);
        vm.assertEq(_courtHolds(), 0);
    }

    /// @dev A warning over one chunk gave the payer its money back; a conviction over another one does not do so again.
    function test_ThePayerIsRefundedOnceOverAllChunks() public {
        bytes32 first = _trial();
        bytes32 second = _dispute(2);
        _voteAll(first, POOR);
        _finalize(first);
        vm.assertEq(court.balanceOf(payer), COST);
        court.finalize(second);
        vm.assertEq(_verdict(second), uint256(IJury.Verdict.Convicted));
        vm.assertEq(court.balanceOf(payer), COST);
        vm.assertEq(_courtHolds(), 0);
    }

    function test_ASecondWarningCostsItsJurors() public {
        bytes32[2] memory disputes = [_dispute(1), _dispute(2)];
        uint64[] memory votes = _votes(POOR, POOR, POOR, POOR, POOR);
        for (uint256 i = 0; i < 2; ++i) {
            vm.prank(worker);
            court.publishOpening(disputes[i], "bafkopening");
        }
        _draw(disputes[0]);
        jury.drawJury(disputes[1]);
        _commitVotes(disputes[0], votes);
        _commitVotes(disputes[1], votes);
        vm.warp(vm.getBlockTimestamp() + 12 hours);
        _revealVotes(disputes[0], votes);
        _revealVotes(disputes[1], votes);
        vm.warp(vm.getBlockTimestamp() + 6 hours);
        _finalize(disputes[0]);
        vm.assertEq(nodes.node(worker).stake, stake - 2 * COST - 5 * FEE);
        _finalize(disputes[1]);
        vm.assertEq(_verdict(disputes[1]), uint256(IJury.Verdict.Warned));
        vm.assertEq(nodes.node(worker).stake, stake - 2 * COST - 10 * FEE);
        vm.assertEq(court.balanceOf(payer), COST);
        vm.assertEq(_courtHolds(), 0);
    }

    /// @notice What is left of the stake goes to the jurors first; with nothing over, the payer is refunded by a later verdict.
    function test_AWarningOfAnEmptiedNodeRefundsNothing() public {
        bytes32 dispute = _trial();
        uint256 snapshot = vm.snapshotState();
        for (uint256 missing = 0; missing < 2; ++missing) {
            vm.prank(address(court));
            nodes.slash(worker, uint128(stake - 5 * FEE + missing), address(0x22));
            _voteAll(dispute, POOR);
            _finalize(dispute);
            vm.assertEq(_verdict(dispute), uint256(IJury.Verdict.Warned));
            vm.assertEq(nodes.node(worker).stake, 0);
            vm.assertEq(court.isRefunded(receipt.assignment), false);
            vm.assertEq(_courtHolds(), 0);
            vm.revertToState(snapshot);
        }
    }

    function test_AConvictionGivesThePayerAQuarterOfItAtMost() public {
        receipt.cost = uint128(stake);
        bytes32 dispute = _dispute(1);
        vm.warp(vm.getBlockTimestamp() + 6 hours);
        court.finalize(dispute);
        vm.assertEq(court.balanceOf(payer), stake / 8);
        vm.assertEq(court.balanceOf(challenger), DISPUTE_BOND + (stake / 2 - stake / 8) / 5);
        vm.assertEq(_courtHolds(), 0);
    }

    /// @dev And the other way round: after a conviction a warning costs no more than its jurors.
    function test_AWarningAfterAConvictionCostsItsJurors() public {
        bytes32 second = _dispute(2);
        bytes32 first = _dispute(1);
        vm.warp(vm.getBlockTimestamp() + 6 hours - 1);
        vm.prank(worker);
        court.publishOpening(first, "bafkopening");
        vm.warp(vm.getBlockTimestamp() + 1);
        court.finalize(second);
        uint256 left = nodes.node(worker).stake;
        _draw(first);
        _voteAll(first, POOR);
        _finalize(first);
        vm.assertEq(_verdict(first), uint256(IJury.Verdict.Warned));
        vm.assertEq(nodes.node(worker).stake, left - 5 * FEE);
        vm.assertEq(court.balanceOf(payer), COST);
        vm.assertEq(_courtHolds(), 0);
    }

    function test_AConvictionAfterAConvictionCostsItsJurors() public {
        bytes32 second = _dispute(2);
        bytes32 first = _dispute(1);
        vm.warp(vm.getBlockTimestamp() + 6 hours - 1);
        vm.prank(worker);
        court.publishOpening(first, "bafkopening");
        vm.warp(vm.getBlockTimestamp() + 1);
        court.finalize(second);
        uint256 left = nodes.node(worker).stake;
        uint256 rewarded = court.balanceOf(challenger);
        _draw(first);
        _voteAll(first, GUILTY);
        _finalize(first);
        vm.assertEq(_verdict(first), uint256(IJury.Verdict.Convicted));
        vm.assertEq(nodes.node(worker).stake, left - 5 * FEE);
        vm.assertEq(court.balanceOf(challenger), rewarded + DISPUTE_BOND);
        vm.assertEq(court.balanceOf(payer), COST);
        vm.assertEq(_courtHolds(), 0);
    }

    function test_TheCapIsASnapshot() public {
        bytes32 dispute = _dispute(1);
        vm.prank(worker);
        nodes.addStake(uint128(stake));
        vm.warp(vm.getBlockTimestamp() + 6 hours);
        court.finalize(dispute);
        vm.assertEq(nodes.node(worker).stake, 2 * stake - stake / 2);
    }

    function test_ThawingStakeIsSlashedToo() public {
        bytes32 dispute = _dispute(1);
        vm.prank(worker);
        nodes.deregister();
        vm.warp(vm.getBlockTimestamp() + 6 hours);
        court.finalize(dispute);
        vm.assertEq(nodes.node(worker).thawing, stake / 2);
    }

    // Appeals

    function test_AnAppealThatChangesTheVerdictGetsItsBondBack() public {
        bytes32 dispute = _trial();
        address[] memory first = _jurors(dispute);
        _voteAll(dispute, GUILTY);
        vm.expectEmit();
        emit IComputeDisputes.Appealed(dispute, 1, worker, 2 * DISPUTE_BOND);
        vm.prank(worker);
        court.appeal(dispute);
        _draw(dispute);
        vm.assertEq(_jurors(dispute).length, 11);
        _voteAll(dispute, CLEAR);
        _finalize(dispute);
        vm.assertEq(_verdict(dispute), uint256(IJury.Verdict.Acquitted));
        vm.assertEq(nodes.node(worker).stake, stake);
        // The first jury was wrong and pays; who sits in the second one too is paid for that.
        vm.assertTrue(nodes.node(first[0]).stake <= MIN_AUDITOR - PENALTY);
        vm.assertEq(court.balanceOf(worker), 2 * DISPUTE_BOND + DISPUTE_BOND - 11 * FEE);
        vm.assertEq(_courtHolds(), 0);
    }

    function test_AnAppealInVainPaysTheJurors() public {
        bytes32 dispute = _trial();
        _voteAll(dispute, GUILTY);
        vm.prank(worker);
        court.appeal(dispute);
        _draw(dispute);
        _voteAll(dispute, GUILTY);
        vm.prank(stranger);
        court.appeal(dispute);
        _draw(dispute);
        vm.assertEq(_jurors(dispute).length, 23);
        _voteAll(dispute, GUILTY);
        vm.assertEq(court.bond(dispute, 2).amount, 4 * DISPUTE_BOND);
        _finalize(dispute);
        vm.assertEq(court.balanceOf(worker), 0);
        vm.assertEq(court.balanceOf(stranger), 0);
        uint256 reward = (stake / 2 - COST) / 5;
        uint256 pot = 6 * DISPUTE_BOND + stake / 2 - COST - reward;
        vm.assertEq(court.balanceOf(treasury), pot - 39 * FEE);
        vm.assertEq(_courtHolds(), 0);
    }

    function test_AnAppealThatNobodyDrawsChangesNothing() public {
        bytes32 dispute = _trial();
        _voteAll(dispute, GUILTY);
        vm.prank(worker);
        court.appeal(dispute);
        vm.warp(vm.getBlockTimestamp() + 1 hours);
        court.finalize(dispute);
        vm.assertEq(_verdict(dispute), uint256(IJury.Verdict.Convicted));
        vm.assertEq(court.balanceOf(worker), 2 * DISPUTE_BOND, "no jury judged it in vain");
        vm.assertEq(_courtHolds(), 0);
    }

    function test_RevertWhen_AppealedOutOfTime() public {
        bytes32 dispute = _trial();
        uint256 from = vm.getBlockTimestamp() + 18 hours;
        bytes memory error_ = abi.encodeWithSelector(IJury.JuryNotNow.selector, dispute, from, from + 12 hours);
        vm.expectRevert(error_);
        vm.prank(worker);
        court.appeal(dispute);
        vm.warp(from + 12 hours);
        vm.expectRevert(error_);
        vm.prank(worker);
        court.appeal(dispute);
    }

    function test_RevertWhen_TheLastRoundIsAppealed() public {
        bytes32 dispute = _trial();
        for (uint256 i = 0; i < 2; ++i) {
            _voteAll(dispute, GUILTY);
            vm.prank(worker);
            court.appeal(dispute);
            _draw(dispute);
        }
        vm.warp(vm.getBlockTimestamp() + 18 hours);
        vm.expectRevert(abi.encodeWithSelector(IJury.JuryLastRound.selector, dispute));
        vm.prank(worker);
        court.appeal(dispute);
        // And there is nothing to wait for.
        court.finalize(dispute);
        vm.assertEq(_courtHolds(), 0);
    }

    function test_RevertWhen_ItIsNotOver() public {
        bytes32 dispute = _trial();
        uint256 from = vm.getBlockTimestamp() + 30 hours;
        vm.assertEq(jury.closesAt(dispute), from);
        vm.warp(from - 1);
        vm.expectRevert(abi.encodeWithSelector(IJury.JuryNotNow.selector, dispute, from, type(uint256).max));
        court.finalize(dispute);
        bytes memory error_ = abi.encodeWithSelector(IComputeDisputes.DisputeCourtWrongPhase.selector, bytes32(0), 0);
        vm.expectRevert(error_);
        court.finalize(0);
    }

    // Money

    /// @dev Whatever jurors say, every unit that came in is owed to somebody, and nobody's stake pays more than its cap.
    function testFuzz_EveryUnitHasAnOwner(uint64[5] memory distances, uint8 numSilent, bool appealed) public {
        bytes32 dispute = _trial();
        uint64[] memory spoken = new uint64[](5 - numSilent % 6);
        for (uint256 i = 0; i < spoken.length; ++i) {
            spoken[i] = distances[i] % 2_000_000;
        }
        _vote(dispute, spoken);
        if (appealed) {
            vm.prank(stranger);
            court.appeal(dispute);
            _draw(dispute);
            _voteAll(dispute, distances[0] % 2_000_000);
        }
        _finalize(dispute);
        vm.assertEq(_courtHolds(), 0);
        vm.assertTrue(nodes.node(worker).stake >= stake - stake / 2);
    }
}
