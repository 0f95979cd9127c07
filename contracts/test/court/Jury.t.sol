// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IExaminer} from "../../src/interfaces/IExaminer.sol";
import {IJury} from "../../src/interfaces/IJury.sol";
import {Disputed} from "../helpers/Disputed.sol";

/// @notice Seats, draws and ballots.
contract JuryTest is Disputed {
    // Seats

    function test_SeatsAreTakenAndLeft() public {
        vm.assertEq(jury.numSeats(), NUM_AUDITORS);
        vm.expectEmit();
        emit IJury.SeatLeft(auditors[3], 3);
        vm.prank(auditors[3]);
        jury.leaveSeat(auditors[3]);
        vm.assertEq(jury.seat(3).operator, address(0));
        (bool seated,) = jury.seatOf(auditors[3]);
        vm.assertFalse(seated);
        // The gap is filled first.
        address late = _auditor(1_000);
        vm.assertEq(jury.seat(3).operator, late);
        vm.assertEq(uint256(jury.seat(3).since), vm.getBlockTimestamp());
        vm.assertEq(jury.numSeats(), NUM_AUDITORS);
        uint32 index;
        (seated, index) = jury.seatOf(late);
        vm.assertTrue(seated);
        vm.assertEq(index, 3);
    }

    function test_ASignerTakesAndLeavesItsOperatorsSeat() public {
        vm.prank(vm.addr(0x51960000));
        jury.leaveSeat(auditors[0]);
        vm.expectEmit();
        emit IJury.SeatTaken(auditors[0], 0);
        vm.prank(vm.addr(0x51960000));
        jury.takeSeat();
    }

    function test_RevertWhen_SeatedTwice() public {
        vm.expectRevert(abi.encodeWithSelector(IJury.JuryAlreadySeated.selector, auditors[0]));
        vm.prank(auditors[0]);
        jury.takeSeat();
    }

    function test_RevertWhen_NoAuditorSits() public {
        vm.expectRevert();
        vm.prank(worker);
        jury.takeSeat();
    }

    function test_RevertWhen_LeavingAnothersSeat() public {
        vm.expectRevert(abi.encodeWithSelector(IJury.JuryNotYourSeat.selector, auditors[0], stranger));
        vm.prank(stranger);
        jury.leaveSeat(auditors[0]);
        vm.expectRevert(abi.encodeWithSelector(IJury.JuryNotSeated.selector, stranger));
        jury.leaveSeat(stranger);
    }

    function test_AnybodyClearsTheSeatOfOneWhoIsGone() public {
        vm.prank(auditors[0]);
        nodes.deregister();
        vm.prank(stranger);
        jury.leaveSeat(auditors[0]);
        vm.assertEq(jury.seat(0).operator, address(0));
    }

    // Draws

    function _opened() internal returns (bytes32 dispute) {
        dispute = _dispute(1);
        vm.prank(worker);
        court.publishOpening(dispute, "bafk");
    }

    function test_ADrawFindsDifferentJurors() public {
        bytes32 dispute = _trial();
        address[] memory jurors = _jurors(dispute);
        vm.assertEq(jurors.length, 5);
        for (uint256 i = 0; i < 5; ++i) {
            (bool seated,) = jury.seatOf(jurors[i]);
            vm.assertTrue(seated);
            vm.assertEq(uint256(jury.vote(dispute, 0, jurors[i]).ballot), uint256(IJury.Ballot.Drawn));
            for (uint256 j = 0; j < i; ++j) {
                vm.assertTrue(jurors[i] != jurors[j]);
            }
        }
    }

    function test_RevertWhen_DrawnBeforeTheBlock() public {
        bytes32 dispute = _opened();
        uint256 drawBlock = vm.getBlockNumber() + 4;
        vm.roll(drawBlock);
        vm.expectRevert(abi.encodeWithSelector(IJury.JuryDrawNotReady.selector, dispute, drawBlock));
        jury.drawJury(dispute);
        vm.expectRevert(abi.encodeWithSelector(IJury.JuryDrawStands.selector, dispute, drawBlock));
        jury.fixDraw(dispute);
        vm.roll(drawBlock + 1);
        jury.drawJury(dispute);
        vm.expectRevert(abi.encodeWithSelector(IJury.JuryWrongPhase.selector, dispute, IJury.Phase.Voting));
        jury.drawJury(dispute);
    }

    function test_AMissedDrawIsFixedAnew() public {
        bytes32 dispute = _opened();
        uint256 drawBlock = vm.getBlockNumber() + 4;
        vm.roll(drawBlock + 257);
        vm.expectRevert(abi.encodeWithSelector(IJury.JuryDrawMissed.selector, dispute, drawBlock));
        jury.drawJury(dispute);
        vm.expectEmit();
        emit IJury.DrawFixed(dispute, 0, uint64(drawBlock + 257 + 4));
        jury.fixDraw(dispute);
        _draw(dispute);
        vm.assertEq(_jurors(dispute).length, 5);
    }

    function test_RevertWhen_TheDrawsTimeIsOver() public {
        bytes32 dispute = _opened();
        uint256 from = vm.getBlockTimestamp();
        vm.roll(vm.getBlockNumber() + 5);
        vm.warp(from + 1 hours);
        vm.expectRevert(abi.encodeWithSelector(IJury.JuryNotNow.selector, dispute, from, from + 1 hours));
        jury.drawJury(dispute);
        // Nobody can freeze it by silence: without a jury there is no verdict.
        court.finalize(dispute);
        vm.assertEq(_verdict(dispute), uint256(IJury.Verdict.None));
        vm.assertEq(court.balanceOf(challenger), DISPUTE_BOND);
    }

    function test_WhoCameAfterTheDisputeIsNotDrawn() public {
        for (uint256 i = 0; i < NUM_AUDITORS; ++i) {
            vm.prank(auditors[i]);
            jury.leaveSeat(auditors[i]);
        }
        bytes32 dispute = _dispute(1);
        for (uint256 i = 0; i < 10; ++i) {
            vm.prank(auditors[i]);
            jury.takeSeat();
        }
        vm.prank(worker);
        court.publishOpening(dispute, "bafk");
        vm.expectEmit();
        emit IJury.JuryTooSmall(dispute, 0, 0, 3);
        _draw(dispute);
        // It can end at once.
        vm.assertEq(jury.closesAt(dispute), vm.getBlockTimestamp());
        court.finalize(dispute);
        vm.assertEq(court.balanceOf(challenger), DISPUTE_BOND);
    }

    function test_OnlyThoseWithTheLayersAreDrawn() public {
        for (uint256 i = 0; i < NUM_AUDITORS; ++i) {
            vm.startPrank(auditors[i]);
            if (i < 4) nodes.setOffer(keccak256("tiny"), 2, 6, 0, 0, 0);
            else if (i < 20) nodes.setOffer(keccak256("tiny"), 3, 6, 0, 0, 0);
            else if (i < 40) nodes.setOffer(keccak256("tiny"), 2, 5, 0, 0, 0);
            else nodes.removeOffer(keccak256("tiny"), 0);
            vm.stopPrank();
        }
        bytes32 dispute = _trial();
        address[] memory jurors = _jurors(dispute);
        vm.assertTrue(jurors.length == 4 || jurors.length == 3);
        for (uint256 i = 0; i < jurors.length; ++i) {
            (, uint32 index) = jury.seatOf(jurors[i]);
            vm.assertTrue(index < 4);
        }
    }

    function test_NoPartyAndNobodyInactiveJudges() public {
        // All parties are auditors, too, and hold the layers.
        address[3] memory parties = [challenger, gateway, worker];
        for (uint256 i = 0; i < NUM_AUDITORS; ++i) {
            vm.prank(auditors[i]);
            if (i < 50) nodes.deregister();
            else jury.leaveSeat(auditors[i]);
        }
        _register(challenger, vm.addr(0xC4A), AUDITOR, MIN_AUDITOR);
        for (uint256 i = 0; i < 3; ++i) {
            vm.startPrank(parties[i]);
            nodes.addStake(2 * MIN_GATEWAY);
            nodes.setRoles(7);
            nodes.setOffer(keccak256("tiny"), 0, 8, 0, 0, 0);
            jury.takeSeat();
            vm.stopPrank();
        }
        vm.warp(vm.getBlockTimestamp() + 1);
        bytes32 dispute = _opened();
        vm.expectEmit();
        emit IJury.JuryTooSmall(dispute, 0, 0, 3);
        _draw(dispute);
    }

    function test_AnAppealNeedsMoreJurorsThanJudgedBefore() public {
        for (uint256 i = 5; i < NUM_AUDITORS; ++i) {
            vm.prank(auditors[i]);
            jury.leaveSeat(auditors[i]);
        }
        bytes32 dispute = _trial();
        _voteAll(dispute, GUILTY);
        vm.prank(worker);
        court.appeal(dispute);
        uint256 before = jury.round(dispute, 0).jurors.length;
        vm.expectEmit();
        emit IJury.JuryTooSmall(dispute, 1, 5, before + 1);
        _draw(dispute);
        court.finalize(dispute);
        vm.assertEq(_verdict(dispute), uint256(IJury.Verdict.Convicted));
        vm.assertEq(court.balanceOf(worker), 2 * DISPUTE_BOND);
    }

    function test_TheAppellantDoesNotJudge() public {
        bytes32 dispute = _trial();
        _voteAll(dispute, CLEAR);
        vm.prank(auditors[7]);
        court.appeal(dispute);
        _draw(dispute);
        address[] memory jurors = _jurors(dispute);
        for (uint256 i = 0; i < jurors.length; ++i) {
            vm.assertTrue(jurors[i] != auditors[7]);
        }
    }

    // Ballots

    function test_BallotsAreCommittedThenRevealed() public {
        bytes32 dispute = _trial();
        address juror = _jurors(dispute)[0];
        bytes32 commitment = _commitment(dispute, 0, juror, 42);
        vm.expectEmit();
        emit IJury.VoteCommitted(dispute, 0, juror, commitment);
        vm.prank(juror);
        jury.commitVote(dispute, commitment);
        vm.assertEq(jury.vote(dispute, 0, juror).commitment, commitment);
        vm.warp(vm.getBlockTimestamp() + 12 hours);
        vm.expectEmit();
        emit IJury.VoteRevealed(dispute, 0, juror, 42, keccak256("sketch"));
        vm.prank(juror);
        jury.revealVote(dispute, 42, keccak256("sketch"), keccak256(abi.encode("salt", juror)));
        vm.assertEq(uint256(jury.vote(dispute, 0, juror).distance), 42);
        vm.assertEq(uint256(jury.round(dispute, 0).numClear), 1);
    }

    function test_AJurorsSignerVotes() public {
        bytes32 dispute = _trial();
        address juror = _jurors(dispute)[0];
        (, uint32 index) = jury.seatOf(juror);
        bytes32 commitment = _commitment(dispute, 0, juror, 42);
        vm.prank(vm.addr(0x51960000 + uint256(index)));
        jury.commitVote(dispute, commitment);
        vm.assertEq(jury.vote(dispute, 0, juror).commitment, commitment);
    }

    function test_RevertWhen_NoJurorVotes() public {
        bytes32 dispute = _trial();
        vm.expectRevert(abi.encodeWithSelector(IJury.JuryNotJuror.selector, dispute, stranger));
        vm.prank(stranger);
        jury.commitVote(dispute, keccak256("x"));
    }

    function test_RevertWhen_CommittedTwiceOrLate() public {
        bytes32 dispute = _trial();
        uint256 from = vm.getBlockTimestamp();
        address juror = _jurors(dispute)[0];
        vm.prank(juror);
        jury.commitVote(dispute, keccak256("x"));
        vm.expectRevert(abi.encodeWithSelector(IJury.JuryWrongBallot.selector, dispute, juror, IJury.Ballot.Committed));
        vm.prank(juror);
        jury.commitVote(dispute, keccak256("y"));
        vm.warp(from + 12 hours);
        vm.expectRevert(abi.encodeWithSelector(IJury.JuryNotNow.selector, dispute, from, from + 12 hours));
        vm.prank(juror);
        jury.commitVote(dispute, keccak256("y"));
    }

    function test_RevertWhen_RevealedEarlyOrLateOrTwiceOrUncommitted() public {
        bytes32 dispute = _trial();
        uint256 from = vm.getBlockTimestamp();
        address[] memory jurors = _jurors(dispute);
        bytes32 commitment = _commitment(dispute, 0, jurors[0], 42);
        vm.prank(jurors[0]);
        jury.commitVote(dispute, commitment);
        bytes32 salt = keccak256(abi.encode("salt", jurors[0]));
        bytes memory error_ =
            abi.encodeWithSelector(IJury.JuryNotNow.selector, dispute, from + 12 hours, from + 18 hours);
        vm.expectRevert(error_);
        vm.prank(jurors[0]);
        jury.revealVote(dispute, 42, keccak256("sketch"), salt);
        vm.warp(from + 12 hours);
        vm.expectRevert(abi.encodeWithSelector(IJury.JuryWrongBallot.selector, dispute, jurors[1], IJury.Ballot.Drawn));
        vm.prank(jurors[1]);
        jury.revealVote(dispute, 42, keccak256("sketch"), salt);
        vm.prank(jurors[0]);
        jury.revealVote(dispute, 42, keccak256("sketch"), salt);
        vm.expectRevert(
            abi.encodeWithSelector(IJury.JuryWrongBallot.selector, dispute, jurors[0], IJury.Ballot.Revealed)
        );
        vm.prank(jurors[0]);
        jury.revealVote(dispute, 42, keccak256("sketch"), salt);
        vm.warp(from + 18 hours);
        vm.expectRevert(error_);
        vm.prank(jurors[0]);
        jury.revealVote(dispute, 42, keccak256("sketch"), salt);
    }

    /// @dev A juror who copies another's commitment can't reveal it: the juror is in it.
    function test_RevertWhen_ACopyIsRevealed() public {
        bytes32 dispute = _trial();
        address[] memory jurors = _jurors(dispute);
        bytes32 commitment = _commitment(dispute, 0, jurors[0], 42);
        vm.prank(jurors[0]);
        jury.commitVote(dispute, commitment);
        vm.prank(jurors[1]);
        jury.commitVote(dispute, commitment);
        vm.warp(vm.getBlockTimestamp() + 12 hours);
        bytes32 sketch = keccak256("sketch");
        bytes32 salt = keccak256(abi.encode("salt", jurors[0]));
        vm.prank(jurors[0]);
        jury.revealVote(dispute, 42, sketch, salt);
        bytes32 revealed =
            keccak256(abi.encode(block.chainid, address(jury), dispute, uint8(0), jurors[1], uint64(42), sketch, salt));
        vm.expectRevert(abi.encodeWithSelector(IJury.JuryWrongReveal.selector, commitment, revealed));
        vm.prank(jurors[1]);
        jury.revealVote(dispute, 42, sketch, salt);
    }

    function test_BandsAndTheirEdges() public {
        bytes32 dispute = _trial();
        _vote(dispute, _votes(499_999, 500_000, 1_000_000, 1_000_001, type(uint64).max));
        IJury.Round memory first = jury.round(dispute, 0);
        vm.assertEq(first.numClear, 1);
        vm.assertEq(first.numWarning, 2);
        vm.assertEq(first.numGuilty, 2);
    }

    function test_TwoThirdsAreOfAllThatWereDrawn() public {
        bytes32 dispute = _trial();
        uint64[] memory three = new uint64[](3);
        (three[0], three[1], three[2]) = (GUILTY, GUILTY, GUILTY);
        _vote(dispute, three);
        _finalize(dispute);
        vm.assertEq(_verdict(dispute), uint256(IJury.Verdict.None));
    }

    // The court's alone

    function test_RevertWhen_SomebodyPlaysCourt() public {
        IExaminer.Charge memory charge;
        bytes memory error_ = abi.encodeWithSelector(IJury.JuryNotCourt.selector, stranger);
        vm.startPrank(stranger);
        vm.expectRevert(error_);
        jury.open(0, charge, stranger);
        vm.expectRevert(error_);
        jury.summon(0);
        vm.expectRevert(error_);
        jury.summonAgain(0, stranger);
        vm.expectRevert(error_);
        jury.close(0);
        vm.stopPrank();
    }

    function test_UnknownDisputesAreNowhere() public {
        bytes memory error_ = abi.encodeWithSelector(IJury.JuryWrongPhase.selector, bytes32(0), IJury.Phase.None);
        vm.expectRevert(error_);
        jury.closesAt(0);
        vm.expectRevert(error_);
        jury.drawJury(0);
        vm.expectRevert(error_);
        jury.fixDraw(0);
        vm.expectRevert(error_);
        jury.commitVote(0, 0);
        vm.expectRevert(error_);
        jury.revealVote(0, 0, 0, 0);
    }
}
