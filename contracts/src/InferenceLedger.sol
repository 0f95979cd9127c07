// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IInferenceLedger} from "./interfaces/IInferenceLedger.sol";
import {INodeRegistry} from "./interfaces/INodeRegistry.sol";
import {Balances} from "./ledger/Balances.sol";
import {DirectClaims} from "./ledger/DirectClaims.sol";
import {Sessions} from "./ledger/Sessions.sol";
import {Settlement} from "./ledger/Settlement.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";

/// @title Who owns how many credits, who may spend them, and what was spent
/// @dev One layer per subject, each using the ones before it: Balances, Sessions, Settlement, DirectClaims.
contract InferenceLedger is DirectClaims {
    /// @dev Time for a gateway to settle what was served, but not a way to keep a payer's money for good.
    uint256 private constant MIN_THAW_PERIOD = 10 minutes;
    uint256 private constant MAX_THAW_PERIOD = 30 days;
    /// @dev Epochs have 16 bits: an hour each is seven years before they come again.
    uint256 private constant MIN_EPOCH_LENGTH = 1 hours;
    uint256 private constant MAX_EPOCH_LENGTH = 30 days;
    uint256 private constant MIN_CLAIM_WINDOW = 10 minutes;
    uint256 private constant MAX_RETENTION = 90 days;
    /// @dev A bond deters, but a node with a few jobs' earnings must be able to pay it.
    uint256 private constant MAX_CLAIM_BOND = 1_000 * 1e18;
    /// @dev A gateway asks for a fee, not for the lion's share.
    uint256 private constant MAX_MAX_FEE_BPS = 5_000;

    constructor(IERC20 token_, INodeRegistry nodes_, Parameters memory p)
        Balances(token_, nodes_, p.epochLength)
        Sessions(p.thawPeriod)
        Settlement(p.batchRetention, p.maxFeeBps)
        DirectClaims(p)
    {
        _check("thawPeriod", p.thawPeriod, MIN_THAW_PERIOD, MAX_THAW_PERIOD);
        _check("epochLength", p.epochLength, MIN_EPOCH_LENGTH, MAX_EPOCH_LENGTH);
        _check("claimWindow", p.claimWindow, MIN_CLAIM_WINDOW, MAX_THAW_PERIOD);
        // A claim can be opened after its delay, and before the session that pays for it is closed.
        _check("claimPeriod", p.claimPeriod, uint256(p.claimDelay) + 1, p.thawPeriod);
        // Whoever is asked for a batch can still show it: jobs are settled when they have ended, claims follow a period later.
        _check("batchRetention", p.batchRetention, 2 * (uint256(p.claimPeriod) + p.claimWindow), MAX_RETENTION);
        _check("claimBond", p.claimBond, 1, MAX_CLAIM_BOND);
        _check("maxFeeBps", p.maxFeeBps, 0, MAX_MAX_FEE_BPS);
    }

    /// @inheritdoc IInferenceLedger
    function parameters() external view override returns (Parameters memory) {
        // casting is safe because the constructor took the values in these sizes
        // forge-lint: disable-start(unsafe-typecast)
        return Parameters({
            thawPeriod: uint48(THAW_PERIOD),
            epochLength: uint48(EPOCH_LENGTH),
            batchRetention: uint48(BATCH_RETENTION),
            claimDelay: CLAIM_DELAY,
            claimPeriod: CLAIM_PERIOD,
            claimWindow: CLAIM_WINDOW,
            claimBond: CLAIM_BOND,
            maxFeeBps: uint16(MAX_FEE_BPS)
        });
        // forge-lint: disable-end(unsafe-typecast)
    }

    function _check(string memory parameter, uint256 value, uint256 minimum, uint256 maximum) private pure {
        if (value < minimum || value > maximum) {
            revert InferenceLedgerParameterOutOfBounds(parameter, value, minimum, maximum);
        }
    }
}
