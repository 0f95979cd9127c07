// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Jury} from "./Jury.sol";
import {BadRecords} from "./court/BadRecords.sol";
import {Bonds} from "./court/Bonds.sol";
import {Disputes} from "./court/Disputes.sol";
import {Equivocation} from "./court/Equivocation.sol";
import {Examiner} from "./court/Examiner.sol";
import {PayoutChallenges} from "./court/PayoutChallenges.sol";
import {Sentences} from "./court/Sentences.sol";
import {IComputeDisputes} from "./interfaces/IComputeDisputes.sol";
import {IDisputeCourt} from "./interfaces/IDisputeCourt.sol";
import {IInferenceLedger} from "./interfaces/IInferenceLedger.sol";
import {IJury} from "./interfaces/IJury.sol";
import {INodeRegistry} from "./interfaces/INodeRegistry.sol";

/// @title What is proved against nodes and gateways, what juries find, and what it costs
/// @dev It makes its examiner and its jury itself, so that nobody can put others in their place.
contract DisputeCourt is PayoutChallenges, Sentences {
    uint256 private constant MIN_PERIOD = 10 minutes;
    uint256 private constant MAX_JAIL_PERIOD = 365 days;
    /// @dev A bond deters, but a node with a few jobs' earnings must be able to pay it.
    uint256 private constant MAX_BOND = 1_000 * 1e18;
    uint256 private constant MAX_FINE_BPS = 50_000;
    /// @dev The hash of a block that is to come must be out before the draw's period is over.
    uint256 private constant MAX_DRAW_DELAY = 32;
    /// @dev Two thirds of fewer than three are all of them or one man's word.
    uint256 private constant LEAST_JURY = 3;
    /// @dev A dispute of three rounds with 11 + 23 + 47 jurors still ends in one transaction.
    uint256 private constant MAX_JURY_SIZE = 11;
    uint256 private constant MAX_MAX_ROUNDS = 3;
    /// @dev Distances at which work is as far from the model as slashing takes.
    uint256 private constant THRESHOLD = 1e6;
    /// @dev Where half of the threshold is still close, nobody stands out.
    uint256 private constant MAX_TOLERANCE = THRESHOLD / 2;
    uint8 private constant WORKER = 1;
    uint8 private constant AUDITOR = 4;

    constructor(
        IInferenceLedger ledger_,
        address treasury_,
        Parameters memory p,
        DisputeParameters memory d,
        IJury.Parameters memory j
    )
        Bonds(ledger_, treasury_, p.evidencePeriod)
        Equivocation(p)
        PayoutChallenges(p)
        BadRecords(new Examiner(ledger_, p.evidencePeriod))
        Disputes(new Jury(ledger_.nodes(), j), d)
        Sentences(d)
    {
        uint256 thaw = ledger_.nodes().thawPeriod();
        _checkProofs(thaw, ledger_.parameters().batchRetention, p);
        _checkPeriods(thaw, d, j);
        // Else who changes its signer after the work would be rid of its word while it can still be held to it.
        uint256 longest = p.challengePeriod < d.disputePeriod ? d.disputePeriod : p.challengePeriod;
        _check("evidencePeriod", p.evidencePeriod, longest, thaw);
        _checkJuries(j);
        _checkStakes(ledger_.nodes(), d, j);
    }

    /// @inheritdoc IDisputeCourt
    function parameters() external view override returns (Parameters memory) {
        // casting is safe because the constructor took the values in these sizes
        // forge-lint: disable-start(unsafe-typecast)
        return Parameters({
            challengePeriod: CHALLENGE_PERIOD,
            answerPeriod: ANSWER_PERIOD,
            evidencePeriod: EVIDENCE_PERIOD,
            jailPeriod: JAIL_PERIOD,
            challengeBond: CHALLENGE_BOND,
            equivocationBps: uint16(EQUIVOCATION_BPS),
            rewardBps: uint16(REWARD_BPS),
            fineBps: uint16(FINE_BPS)
        });
        // forge-lint: disable-end(unsafe-typecast)
    }

    /// @inheritdoc IComputeDisputes
    function disputeParameters() external view override returns (DisputeParameters memory) {
        return DisputeParameters({
            disputePeriod: DISPUTE_PERIOD,
            openingPeriod: OPENING_PERIOD,
            capBps: CAP_BPS,
            disputeBond: DISPUTE_BOND,
            jurorFee: JUROR_FEE,
            jurorPenalty: JUROR_PENALTY
        });
    }

    function _checkProofs(uint256 thaw, uint256 retention, Parameters memory p) private pure {
        _check("answerPeriod", p.answerPeriod, MIN_PERIOD, retention / 2);
        // A gateway can answer as long as its batch is anchored, and its stake is there until the decision.
        uint256 longest = (retention < thaw ? retention : thaw) - p.answerPeriod;
        _check("challengePeriod", p.challengePeriod, MIN_PERIOD, longest);
        _check("jailPeriod", p.jailPeriod, 1, MAX_JAIL_PERIOD);
        _check("challengeBond", p.challengeBond, 1, MAX_BOND);
        _check("equivocationBps", p.equivocationBps, 1, ALL_BPS);
        // Who could win back most of what he loses would accuse himself before others do.
        _check("rewardBps", p.rewardBps, 0, ALL_BPS / 2);
        // Who could accept an invention and so bring most of his stake to a friend would, before a jury takes it.
        _check("fineBps", p.fineBps, ALL_BPS, MAX_FINE_BPS);
    }

    /// @dev Whoever leaves when the work is done is still there to be slashed when the last appeal is decided.
    function _checkPeriods(uint256 thaw, DisputeParameters memory d, IJury.Parameters memory j) private pure {
        _check("disputePeriod", d.disputePeriod, MIN_PERIOD, thaw);
        _check("openingPeriod", d.openingPeriod, MIN_PERIOD, thaw);
        _check("drawPeriod", j.drawPeriod, MIN_PERIOD, thaw);
        _check("commitPeriod", j.commitPeriod, MIN_PERIOD, thaw);
        _check("revealPeriod", j.revealPeriod, MIN_PERIOD, thaw);
        _check("appealPeriod", j.appealPeriod, MIN_PERIOD, thaw);
        uint256 round = uint256(j.drawPeriod) + j.commitPeriod + j.revealPeriod + j.appealPeriod;
        uint256 total = uint256(d.disputePeriod) + d.openingPeriod + round * j.maxRounds;
        _check("all periods", total, 0, thaw - 1);
    }

    function _checkJuries(IJury.Parameters memory j) private pure {
        _check("drawDelay", j.drawDelay, 1, MAX_DRAW_DELAY);
        _check("jurySize", j.jurySize, LEAST_JURY, MAX_JURY_SIZE);
        _check("minJury", j.minJury, LEAST_JURY, j.jurySize);
        _check("maxRounds", j.maxRounds, 1, MAX_MAX_ROUNDS);
        _check("warningShare", j.warningShare, 1, THRESHOLD);
        _check("tolerance", j.tolerance, 1, MAX_TOLERANCE);
    }

    /// @dev The bond of a dispute that fails pays all jurors of all rounds. What a conviction takes of a minimum stake is no less, so
    /// who works can be tried; but payer and challenger have their parts of it before the jurors.
    function _checkStakes(INodeRegistry nodes_, DisputeParameters memory d, IJury.Parameters memory j) private view {
        _check("capBps", d.capBps, 1, ALL_BPS);
        uint256 maxBond = nodes_.minimumStake(WORKER) * d.capBps / ALL_BPS;
        uint256 numJurors = (uint256(j.jurySize) + 1) * (2 ** j.maxRounds - 1);
        _check("jurorFee", d.jurorFee, 1, maxBond / numJurors);
        _check("disputeBond", d.disputeBond, d.jurorFee * numJurors, maxBond);
        // Who guesses must lose more than he wins, and have it.
        _check("jurorPenalty", d.jurorPenalty, 2 * uint256(d.jurorFee), nodes_.minimumStake(AUDITOR));
    }

    function _check(string memory parameter, uint256 value, uint256 minimum, uint256 maximum) private pure {
        if (value < minimum || value > maximum) {
            revert DisputeCourtParameterOutOfBounds(parameter, value, minimum, maximum);
        }
    }
}
