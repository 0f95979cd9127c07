// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IComputeDisputes} from "../../src/interfaces/IComputeDisputes.sol";
import {IExaminer} from "../../src/interfaces/IExaminer.sol";
import {IInferenceLedger} from "../../src/interfaces/IInferenceLedger.sol";
import {IJury} from "../../src/interfaces/IJury.sol";
import {InferenceReceipt} from "../../src/libraries/Messages.sol";
import {Disputed} from "../helpers/Disputed.sol";

/// @notice A worker, a gateway that settles or does not, challengers, jurors who say anything, and thieves, at random. Each
/// function is one deed; what cannot succeed is left out, and what must not succeed is tried in `steal`. Whoever can show
/// that a claim or a challenge is void does so in time: that is what its window is for.
contract CourtHandler is Disputed {
    struct Job {
        bytes32 session;
        uint64 deadline;
        uint96 cost;
        bytes32 assignment;
        bytes32 digest;
        bool isSettled;
        uint256 slot;
    }

    Job[] public jobs;
    bytes32[] public disputes;
    /// @notice Times that a receipt was paid for, over all paths.
    mapping(bytes32 receipt => uint256) public timesPaid;
    uint256 public numStolen;
    uint256 public deposited;
    uint256 public withdrawn;
    uint256 public slashed;

    /// @dev What a deed took from stakes.
    modifier slashing() {
        uint256 before = nodes.totalStaked();
        _;
        slashed += before - nodes.totalStaked();
    }

    function setUp() public override {
        super.setUp();
        deposited = nodes.totalStaked();
        vm.prank(gateway);
        nodes.addStake(50 * MIN_GATEWAY);
        deposited += 50 * MIN_GATEWAY;
    }

    function _numAuditors() internal pure override returns (uint256) {
        return 13;
    }

    // Work and pay

    function serve(uint96 cost) public {
        Job memory job;
        job.session = id = _open(10e18);
        job.deadline = uint64(block.timestamp + HOUR);
        job.cost = uint96(_bound(cost, 1, COST));
        _load(job);
        job.assignment = ledger.hashAssignment(work.assignment);
        job.digest = ledger.hashReceipt(receipt);
        jobs.push(job);
    }

    function settle(uint256 which) external {
        (Job storage job, bool exists) = _job(which);
        if (!exists || job.isSettled || timesPaid[job.digest] != 0) return;
        job.slot = nextSlot;
        job.isSettled = true;
        _settleReceipt(work, receipt);
        ++timesPaid[job.digest];
    }

    function claim(uint256 which) external {
        (Job storage job, bool exists) = _job(which);
        if (!exists || ledger.directClaim(job.assignment).node != address(0) || court.isChallenged(gateway, job.digest))
        {
            return;
        }
        if (!_reach(uint256(job.deadline) + 1 hours, uint256(job.deadline) + 1 days)) return;
        _deposit(worker, BOND);
        vm.prank(worker);
        ledger.openClaim(_terms(job.session), work, receipt);
    }

    function endClaim(uint256 which, bool acknowledged) external {
        (Job storage job, bool exists) = _job(which);
        IInferenceLedger.DirectClaim memory open = ledger.directClaim(job.assignment);
        if (!exists || open.paysAt == 0) return;
        IInferenceLedger.SessionTerms memory terms = _terms(job.session);
        if (acknowledged) {
            IInferenceLedger.SignedWork memory later = _work(1, 1, job.cost);
            if (!job.isSettled && open.cap >= job.cost) return;
            vm.prank(stranger);
            ledger.voidByAcknowledgement(terms, job.assignment, later);
            return;
        }
        if (job.isSettled) {
            IInferenceLedger.Inclusion memory inclusion = _inclusionOf(receipt, job.slot);
            vm.prank(stranger);
            ledger.voidByInclusion(terms, job.assignment, inclusion);
            return;
        }
        if (block.timestamp < open.paysAt) vm.warp(open.paysAt);
        ledger.payClaim(terms, job.assignment);
        if (ledger.directClaim(job.assignment).amount != 0) ++timesPaid[job.digest];
    }

    function challenge(uint256 which) external {
        (Job storage job, bool exists) = _job(which);
        if (
            !exists || court.isChallenged(gateway, job.digest) || block.timestamp > uint256(receipt.finishedAt) + 2 days
        ) {
            return;
        }
        if (ledger.directClaim(job.assignment).amount != 0) return;
        bytes memory acceptance = _signature(GATEWAY_SIGNER_KEY, ledger.hashAcceptance(job.digest));
        vm.prank(worker);
        court.challengePayout(gateway, receipt, acceptance);
    }

    function endChallenge(uint256 which) external slashing {
        (Job storage job, bool exists) = _job(which);
        uint256 decidedAt = court.challenge(gateway, job.digest).decidedAt;
        if (!exists || decidedAt == 0) return;
        if (job.isSettled) {
            IInferenceLedger.Inclusion memory inclusion = _inclusionOf(receipt, job.slot);
            vm.prank(stranger);
            court.answerChallenge(job.digest, inclusion);
            return;
        }
        if (block.timestamp < decidedAt) vm.warp(decidedAt);
        court.decideChallenge(gateway, job.digest);
        ++timesPaid[job.digest];
    }

    // Proofs and disputes

    function equivocate(uint256 which) external slashing {
        (Job storage job, bool exists) = _job(which);
        if (!exists || which % 8 != 0 || court.equivocated(worker, job.assignment)) return;
        InferenceReceipt memory other = receipt;
        other.outputs = keccak256("other");
        bytes memory one = _signature(WORKER_SIGNER_KEY, job.digest);
        bytes memory two = _signature(WORKER_SIGNER_KEY, ledger.hashReceipt(other));
        vm.prank(stranger);
        court.proveEquivocation(receipt, one, other, two);
    }

    function dispute(uint256 which) external {
        // Old work can't be disputed any more, and nobody without stake.
        if (which % 2 == 0) serve(uint96(which));
        if (nodes.node(worker).stake < 2 * DISPUTE_BOND) restake(1_000e18);
        (Job storage job, bool exists) = _job(which);
        if (!exists || court.isConvicted(job.assignment)) return;
        bytes32 last = court.disputeOver(job.assignment, 0);
        bool isOpen = last != 0 && court.dispute(last).phase != IComputeDisputes.Phase.Ended;
        if (isOpen || (last != 0 && court.dispute(last).verdict != IJury.Verdict.None)) return;
        if (block.timestamp > uint256(job.deadline) + 1 hours) return;
        vm.roll(vm.getBlockNumber() + 1);
        disputes.push(_dispute(0));
    }

    /// @notice The next steps of the newest disputes; now and then nobody takes it.
    function proceed(uint256 which, uint256 seed) external slashing {
        if (disputes.length == 0) return;
        bytes32 open = disputes[disputes.length - 1 - which % (disputes.length < 3 ? disputes.length : 3)];
        for (uint256 i = 0; i < 1 + seed % 4; ++i) {
            IComputeDisputes.Phase phase = court.dispute(open).phase;
            if (phase == IComputeDisputes.Phase.Opening) _answer(open, seed >> i);
            else if (phase == IComputeDisputes.Phase.Trial) _try(open, seed >> i);
        }
    }

    // Stakes

    function restake(uint128 amount) public {
        amount = uint128(_bound(amount, 1, 1_000e18));
        if (nodes.node(worker).stake > 20_000e18 || token.balanceOf(worker) < amount) return;
        vm.prank(worker);
        nodes.addStake(amount);
        deposited += amount;
    }

    function unstake(uint128 amount) external {
        uint128 stake = nodes.node(worker).stake;
        if (stake == 0) return;
        vm.prank(worker);
        nodes.beginUnstake(uint128(_bound(amount, 1, stake / 2 + 1)));
    }

    function takeBack() external {
        uint256 thawing = nodes.node(worker).thawing;
        if (thawing == 0 || block.timestamp < nodes.node(worker).thawEndsAt) return;
        if (nodes.node(worker).stake < nodes.lockedStake(worker)) return;
        vm.prank(worker);
        nodes.withdraw();
        withdrawn += thawing;
    }

    function collect(uint256 who) external {
        address[4] memory people = [worker, challenger, treasury, payer];
        address person = people[who % 4];
        if (court.balanceOf(person) == 0) return;
        vm.prank(person);
        court.withdraw();
    }

    function wait(uint32 duration) external {
        vm.warp(block.timestamp + _bound(duration, 0, 12 hours));
        vm.roll(vm.getBlockNumber() + 1);
    }

    /// @notice What must not work, whoever tries.
    function steal(uint256 which, uint256 amount) external {
        (Job storage job, bool exists) = _job(which);
        if (!exists) return;
        IExaminer.Charge memory charge;
        IInferenceLedger.SessionTerms memory terms = _terms(job.session);
        IInferenceLedger.Inclusion memory forged = _inclusionOf(receipt, job.isSettled ? job.slot + 1 : job.slot);
        vm.startPrank(stranger);
        _mustFail(address(nodes), abi.encodeCall(nodes.slash, (worker, uint128(amount), stranger)));
        _mustFail(address(nodes), abi.encodeCall(nodes.jail, (worker, uint48(amount))));
        _mustFail(address(nodes), abi.encodeCall(nodes.recordLoss, (worker, amount)));
        _mustFail(address(jury), abi.encodeCall(jury.open, (job.digest, charge, stranger)));
        _mustFail(address(jury), abi.encodeCall(jury.close, (job.digest)));
        _mustFail(address(ledger), abi.encodeCall(ledger.openClaim, (terms, work, receipt)));
        _mustFail(address(ledger), abi.encodeCall(ledger.voidByInclusion, (terms, job.assignment, forged)));
        _mustFail(address(court), abi.encodeCall(court.answerChallenge, (job.digest, forged)));
        if (block.timestamp < ledger.directClaim(job.assignment).paysAt) {
            _mustFail(address(ledger), abi.encodeCall(ledger.payClaim, (terms, job.assignment)));
        }
        if (block.timestamp < court.challenge(gateway, job.digest).decidedAt) {
            _mustFail(address(court), abi.encodeCall(court.decideChallenge, (gateway, job.digest)));
        }
        vm.stopPrank();
    }

    // What invariants ask for

    function numJobs() external view returns (uint256) {
        return jobs.length;
    }

    function sessionOf(uint256 which) external view returns (IInferenceLedger.Session memory) {
        return _session(jobs[which].session);
    }

    /// @notice What the court holds for open challenges and disputes.
    function openBonds() external view returns (uint256 bonds) {
        for (uint256 i = 0; i < jobs.length; ++i) {
            if (court.challenge(gateway, jobs[i].digest).decidedAt != 0) bonds += BOND;
        }
        for (uint256 i = 0; i < disputes.length; ++i) {
            if (court.dispute(disputes[i]).phase == IComputeDisputes.Phase.Ended) continue;
            for (uint8 j = 0; j <= jury.caseOf(disputes[i]).round; ++j) {
                bonds += court.bond(disputes[i], j).amount;
            }
        }
    }

    /// @notice What the ledger owes.
    function ledgerOwes() external view returns (uint256 owed) {
        owed = ledger.balanceOf(payer) + ledger.balanceOf(worker) + ledger.balanceOf(gateway) + _fees();
        owed += ledger.balanceOf(stranger);
        // And the session that was open before all.
        owed += BUDGET;
        for (uint256 i = 0; i < jobs.length; ++i) {
            IInferenceLedger.Session memory session = _session(jobs[i].session);
            owed += session.budget - session.settled;
            if (ledger.directClaim(jobs[i].assignment).paysAt != 0) owed += BOND;
        }
    }

    function courtSurplus() external view returns (uint256) {
        return _courtHolds();
    }

    /// @notice How jobs and disputes ended: settled, claimed, claims that fell, challenges upheld and answered, equivocations, the
    /// four verdicts, appeals.
    function ends() external view returns (uint256[11] memory counts) {
        for (uint256 i = 0; i < jobs.length; ++i) {
            Job memory job = jobs[i];
            IInferenceLedger.DirectClaim memory claim_ = ledger.directClaim(job.assignment);
            bool isOver = claim_.node != address(0) && claim_.paysAt == 0;
            if (job.isSettled) ++counts[0];
            if (isOver) ++counts[claim_.amount == 0 ? 2 : 1];
            bool isDecided =
                court.isChallenged(gateway, job.digest) && court.challenge(gateway, job.digest).decidedAt == 0;
            if (isDecided) ++counts[job.isSettled ? 4 : 3];
            if (court.equivocated(worker, job.assignment)) ++counts[5];
        }
        for (uint256 i = 0; i < disputes.length; ++i) {
            IComputeDisputes.Dispute memory dispute_ = court.dispute(disputes[i]);
            if (dispute_.phase == IComputeDisputes.Phase.Ended) ++counts[6 + uint256(dispute_.verdict)];
            if (jury.caseOf(disputes[i]).round != 0) ++counts[10];
        }
    }

    function world() external view returns (address, address, address, address) {
        return (address(token), address(nodes), address(ledger), address(court));
    }

    // Inner workings

    /// @dev One of the younger jobs, with its papers at hand.
    function _job(uint256 which) internal returns (Job storage job, bool exists) {
        exists = jobs.length != 0;
        if (!exists) jobs.push();
        uint256 eligible = jobs.length < 4 ? jobs.length : 4;
        job = jobs[jobs.length - 1 - which % eligible];
        if (exists) _load(job);
        else jobs.pop();
    }

    function _load(Job memory job) internal {
        id = job.session;
        IInferenceLedger.SignedWork memory loaded = _work(0, 0, 0);
        loaded.request.work.deadline = job.deadline;
        loaded.assignment.request = ledger.hashRequest(loaded.request);
        loaded.assignment.deadline = job.deadline;
        _sign(loaded);
        work = loaded;
        receipt = _receipt(loaded);
        (receipt.cost, receipt.finishedAt) = (job.cost, job.deadline - 100);
        _commit();
    }

    function _reach(uint256 from, uint256 until) internal returns (bool) {
        if (block.timestamp < from) vm.warp(from);
        return block.timestamp <= until;
    }

    function _answer(bytes32 open, uint256 seed) internal {
        uint256 until = uint256(court.dispute(open).openedAt) + 6 hours;
        if (seed % 8 == 0 && block.timestamp < until) vm.warp(until);
        if (block.timestamp >= until) {
            _end(open);
            return;
        }
        vm.prank(worker);
        court.publishOpening(open, "bafk");
    }

    function _try(bytes32 open, uint256 seed) internal {
        IJury.Case memory trial = jury.caseOf(open);
        if (block.timestamp >= jury.closesAt(open)) {
            _end(open);
        } else if (trial.phase == IJury.Phase.Drawing) {
            vm.roll(jury.round(open, trial.round).drawBlock + 1);
            jury.drawJury(open);
        } else if (block.timestamp < uint256(trial.phaseSince) + 6 hours) {
            uint64[] memory distances = new uint64[](_jurors(open).length - seed % 3);
            for (uint256 i = 0; i < distances.length; ++i) {
                uint256 random = uint256(keccak256(abi.encode(seed, seed % 5 == 0 ? i : 0)));
                distances[i] = uint64((random >> 128) % 600_000 + random % 3 * 500_000);
            }
            _vote(open, distances);
        } else if (seed % 3 != 0 && trial.round < 2 && block.timestamp >= uint256(trial.phaseSince) + 18 hours) {
            vm.prank(stranger);
            court.appeal(open);
        } else {
            vm.warp(jury.closesAt(open));
            _end(open);
        }
    }

    /// @dev Its turn comes when the dispute before it has ended, or has lasted as long as any can.
    function _end(bytes32 open) internal {
        IComputeDisputes.Dispute memory earlier = court.dispute(court.disputeBefore(open));
        bool isOver = earlier.openedAt == 0 || earlier.phase == IComputeDisputes.Phase.Ended;
        if (isOver || block.timestamp >= uint256(earlier.openedAt) + 99 hours) court.finalize(open);
        else _mustFail(address(court), abi.encodeCall(court.finalize, (open)));
    }

    function _mustFail(address target, bytes memory data) internal {
        (bool success,) = target.call(data);
        if (success) ++numStolen;
    }
}
