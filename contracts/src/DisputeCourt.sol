// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Bonds} from "./court/Bonds.sol";
import {Equivocation} from "./court/Equivocation.sol";
import {PayoutChallenges} from "./court/PayoutChallenges.sol";
import {IDisputeCourt} from "./interfaces/IDisputeCourt.sol";
import {IInferenceLedger} from "./interfaces/IInferenceLedger.sol";
import {INodeRegistry} from "./interfaces/INodeRegistry.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";

/// @title What is proved against nodes and gateways, and what it costs them
contract DisputeCourt is Equivocation, PayoutChallenges {
    uint256 private constant MIN_PERIOD = 10 minutes;
    uint256 private constant MAX_JAIL_PERIOD = 365 days;
    /// @dev A bond deters, but a node with a few jobs' earnings must be able to pay it.
    uint256 private constant MAX_BOND = 1_000 * 1e18;

    constructor(IERC20 token_, INodeRegistry nodes_, IInferenceLedger ledger_, address treasury_, Parameters memory p)
        Bonds(token_, nodes_, ledger_, treasury_, p.evidencePeriod)
        Equivocation(p.equivocationBps, p.rewardBps, p.jailPeriod)
        PayoutChallenges(p.challengePeriod, p.answerPeriod, p.challengeBond, p.fineBps)
    {
        uint256 thaw = nodes_.thawPeriod();
        uint256 retention = ledger_.parameters().batchRetention;
        _check("answerPeriod", p.answerPeriod, MIN_PERIOD, retention / 2);
        // A gateway can answer as long as its batch is anchored, and its stake is there until the decision.
        uint256 longest = (retention < thaw ? retention : thaw) - p.answerPeriod;
        _check("challengePeriod", p.challengePeriod, MIN_PERIOD, longest);
        _check("evidencePeriod", p.evidencePeriod, MIN_PERIOD, thaw);
        _check("jailPeriod", p.jailPeriod, 1, MAX_JAIL_PERIOD);
        _check("challengeBond", p.challengeBond, 1, MAX_BOND);
        _check("equivocationBps", p.equivocationBps, 1, ALL_BPS);
        // Who could win back most of what he loses would accuse himself before others do.
        _check("rewardBps", p.rewardBps, 0, ALL_BPS / 2);
        _check("fineBps", p.fineBps, 0, ALL_BPS);
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

    function _check(string memory parameter, uint256 value, uint256 minimum, uint256 maximum) private pure {
        if (value < minimum || value > maximum) {
            revert DisputeCourtParameterOutOfBounds(parameter, value, minimum, maximum);
        }
    }
}
