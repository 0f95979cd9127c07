// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {InferenceLedger} from "../src/InferenceLedger.sol";
import {IExaminer} from "../src/interfaces/IExaminer.sol";
import {IInferenceLedger} from "../src/interfaces/IInferenceLedger.sol";
import {IJury} from "../src/interfaces/IJury.sol";
import {InferenceReceipt, SessionClose} from "../src/libraries/Messages.sol";
import {Disputed} from "./helpers/Disputed.sol";

/// @notice Who could try what, and the most that comes of it: each of the protocol's guarantees, attacked by the one whom it
/// holds. (The last one, a stranger with a node's Redis password, is attacked where Redis is.)
contract GuaranteesTest is Disputed {
    /// @notice Charges for what was not asked, or more: at most `maxCost` of requests in flight, each signed by the payer.
    function test_GatewayAgainstPayer() public {
        // Two requests in flight, and one that the payer acknowledged to have cost 2.
        IInferenceLedger.Claim[] memory claims = new IInferenceLedger.Claim[](2);
        claims[0] = _claim(SESSION_KEY, _request(id, 1, MAX_COST, 1, 2e18), MAX_COST);
        claims[1] = _claim(SESSION_KEY, _request(id, 2, MAX_COST, 1, 2e18), MAX_COST);
        _mustNotSettle(_claim(SESSION_KEY, _request(id, 2, MAX_COST, 1, 2e18), MAX_COST + 1));
        _mustNotSettle(_claim(STRANGER_KEY, _request(id, 3, MAX_COST, 1, 90e18), 0));
        _mustNotSettle(_claim(GATEWAY_SIGNER_KEY, _request(id, 3, MAX_COST, 1, 90e18), 0));
        _mustNotSettle(_claim(SESSION_KEY, _request(id, 3, 200e18, 1, 2e18), 150e18));
        uint256[] memory everything = _one(_payout(worker, 2e18 + 2 * MAX_COST));
        _settle(claims, everything);
        vm.assertEq(_session(id).settled, 2e18 + 2 * MAX_COST);
        // The same again, and the same by another road, pay nothing more.
        _settle(claims, new uint256[](0));
        claims = _one(_claim(SESSION_KEY, _request(id, 2, MAX_COST, 1, 2e18), MAX_COST));
        IInferenceLedger.Batch memory less = _batch(claims, new uint256[](0));
        vm.prank(gatewaySigner);
        vm.expectRevert();
        ledger.settle(less);
        vm.assertEq(_session(id).settled, 2e18 + 2 * MAX_COST);
    }

    /// @notice Withdraws or walks away: what is in flight; the budget is locked until the thaw ends.
    function test_PayerAgainstNetwork() public {
        IInferenceLedger.SessionTerms memory terms = _terms(id);
        uint256 balance = ledger.balanceOf(payer);
        vm.warp(1_800_000_100);
        vm.startPrank(payer);
        vm.expectRevert();
        ledger.withdraw(balance + 1);
        ledger.closeSession(terms);
        vm.warp(vm.getBlockTimestamp() + SESSION_THAW - 1);
        vm.expectRevert();
        ledger.finalizeClose(terms);
        // Nor with a consent that the gateway never gave, or gave to another total.
        SessionClose memory consent = SessionClose(id, 0, uint64(vm.getBlockTimestamp()));
        vm.expectRevert();
        ledger.closeTogether(terms, consent, "", "");
        bytes memory given =
            _signature(GATEWAY_SIGNER_KEY, ledger.hashSessionClose(SessionClose(id, 1, type(uint64).max)));
        vm.expectRevert();
        ledger.closeTogether(terms, consent, "", given);
        vm.stopPrank();
        // What was served is still paid.
        _settle(_one(_claim(SESSION_KEY, work.request, COST)), _one(_payout(worker, COST)));
        vm.assertEq(ledger.balanceOf(worker), 10 * BOND + COST);
    }

    /// @notice Leaves a receipt out, or pays less than it accepted: nothing; its stake pays.
    function test_GatewayAgainstWorker() public {
        bytes32 digest = ledger.hashReceipt(receipt);
        bytes memory acceptance = _signature(GATEWAY_SIGNER_KEY, ledger.hashAcceptance(digest));
        // It settles the request and keeps the difference.
        InferenceReceipt memory smaller = receipt;
        smaller.cost = COST / 5;
        IInferenceLedger.Inclusion memory shown = _settleReceipt(work, smaller);
        vm.prank(worker);
        court.challengePayout(gateway, receipt, acceptance);
        vm.expectRevert();
        court.answerChallenge(digest, shown);
        shown.cost = COST;
        vm.expectRevert();
        court.answerChallenge(digest, shown);
        vm.warp(vm.getBlockTimestamp() + 12 hours);
        court.decideChallenge(gateway, digest);
        vm.assertEq(court.balanceOf(worker), BOND + COST);
        vm.assertEq(nodes.node(gateway).stake, MIN_GATEWAY - 2 * COST);
    }

    /// @notice Disappears: nothing; workers claim directly, payers close their sessions.
    function test_GatewayAgainstAll() public {
        IInferenceLedger.SessionTerms memory terms = _terms(id);
        vm.warp(1_800_000_100);
        vm.prank(gateway);
        nodes.deregister();
        vm.prank(payer);
        ledger.closeSession(terms);
        vm.warp(1_800_003_600 + 1 hours);
        vm.prank(worker);
        ledger.openClaim(terms, work, receipt);
        vm.warp(vm.getBlockTimestamp() + SESSION_THAW);
        uint256 before = ledger.balanceOf(payer);
        vm.expectRevert();
        ledger.finalizeClose(terms);
        ledger.payClaim(terms, receipt.assignment);
        ledger.finalizeClose(terms);
        vm.assertEq(ledger.balanceOf(worker), 10 * BOND + COST);
        vm.assertEq(ledger.balanceOf(payer), before + BUDGET - COST);
    }

    /// @notice Returns wrong numbers, another model, another token: loses more stake than it can gain.
    function test_WorkerAgainstPayer() public {
        uint256 stake = nodes.node(worker).stake;
        bytes32 dispute = _trial();
        // It leaves at once, but what it has staked is still there when the jury is done.
        vm.prank(worker);
        nodes.deregister();
        _voteAll(dispute, GUILTY);
        _finalize(dispute);
        uint256 lost = stake - nodes.node(worker).thawing;
        vm.assertTrue(lost > 50 * uint256(COST));
        vm.assertEq(court.balanceOf(payer), COST);
        // Another model or number format than assigned needs no jury.
        _setByte(30, 0x77);
        IExaminer.Evidence memory evidence = _evidence();
        court.proveBadRecord(evidence, 0);
        vm.assertTrue(nodes.node(worker).thawing <= (stake - lost) / 2);
    }

    /// @notice Copies another's answer: commit before reveal, and the commitment names who committed.
    function test_WorkerAgainstWorker() public {
        bytes32 dispute = _trial();
        address[] memory jurors = _jurors(dispute);
        bytes32 commitment = _commitment(dispute, 0, jurors[0], CLEAR);
        vm.prank(jurors[0]);
        jury.commitVote(dispute, commitment);
        vm.prank(jurors[1]);
        jury.commitVote(dispute, commitment);
        // Nothing is revealed while anybody can still commit.
        bytes32 salt = keccak256(abi.encode("salt", jurors[0]));
        vm.prank(jurors[0]);
        vm.expectRevert();
        jury.revealVote(dispute, CLEAR, keccak256("sketch"), salt);
        vm.warp(vm.getBlockTimestamp() + 12 hours);
        vm.prank(jurors[0]);
        jury.revealVote(dispute, CLEAR, keccak256("sketch"), salt);
        vm.prank(jurors[1]);
        vm.expectRevert();
        jury.revealVote(dispute, CLEAR, keccak256("sketch"), salt);
        // A receipt copied from another node is no receipt for one's own assignment.
        receipt.node = stranger;
        bytes memory signature = _signature(STRANGER_KEY, ledger.hashReceipt(receipt));
        IExaminer.Evidence memory evidence = _evidence();
        evidence.receiptSignature = signature;
        vm.expectRevert();
        court.proveBadRecord(evidence, 0);
    }

    /// @notice Votes with the crowd, sells a vote: commit-reveal, random draw, and who is wrong pays.
    function test_Juror() public {
        bytes32 dispute = _trial();
        address[] memory jurors = _jurors(dispute);
        // Nobody votes who was not drawn, nobody again, and nobody for another.
        vm.prank(stranger);
        vm.expectRevert();
        jury.commitVote(dispute, keccak256("x"));
        // The third one sold its vote to the accused, the fourth guesses, the fifth waits for the others.
        uint64[] memory distances = new uint64[](4);
        (distances[0], distances[1], distances[2], distances[3]) = (GUILTY, GUILTY + 1, CLEAR, 2 * GUILTY);
        _vote(dispute, distances);
        vm.prank(worker);
        court.appeal(dispute);
        _draw(dispute);
        _voteAll(dispute, GUILTY);
        _finalize(dispute);
        vm.assertEq(_verdict(dispute), uint256(IJury.Verdict.Convicted));
        for (uint256 i = 2; i < 5; ++i) {
            vm.assertTrue(nodes.node(jurors[i]).stake == MIN_AUDITOR - PENALTY);
        }
        vm.assertTrue(court.balanceOf(jurors[0]) >= FEE);
    }

    /// @notice Replays a signature on another chain, contract, session, attempt: nothing; the domain and the nonces.
    function test_StrangerReplaysASignature() public {
        IInferenceLedger.Claim memory claim = _claim(SESSION_KEY, work.request, COST);
        // Another session of the same payer, gateway and key.
        bytes32 other = _open(BUDGET);
        IInferenceLedger.Claim memory moved = claim;
        moved.session = other;
        _mustNotSettle(moved);
        claim = _claim(SESSION_KEY, work.request, COST);
        // Another ledger on the same chain.
        InferenceLedger twin = new InferenceLedger(token, nodes, _ledgerParameters());
        vm.assertTrue(twin.hashRequest(work.request) != ledger.hashRequest(work.request));
        // Another chain.
        vm.chainId(1);
        _mustNotSettle(claim);
        bytes memory signature = _signature(WORKER_SIGNER_KEY, ledger.hashReceipt(receipt));
        vm.chainId(31_337);
        IExaminer.Evidence memory evidence = _evidence();
        evidence.receiptSignature = signature;
        vm.expectRevert();
        court.proveBadRecord(evidence, 0);
        // Another attempt: the receipt is for the first one's assignment.
        evidence = _evidence();
        evidence.assignment.attempt = 2;
        evidence.assignmentSignature = _signature(GATEWAY_SIGNER_KEY, ledger.hashAssignment(evidence.assignment));
        vm.expectRevert();
        court.proveBadRecord(evidence, 0);
        // And a replay where it belongs pays nothing twice.
        _settle(_one(claim), _one(_payout(worker, COST)));
        _settle(_one(claim), new uint256[](0));
        vm.assertEq(_session(id).settled, COST);
    }

    function _mustNotSettle(IInferenceLedger.Claim memory claim) internal {
        IInferenceLedger.Batch memory batch = _batch(_one(claim), new uint256[](0));
        vm.prank(gatewaySigner);
        vm.expectRevert();
        ledger.settle(batch);
    }
}
