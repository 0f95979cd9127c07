// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IDisputeCourt} from "../interfaces/IDisputeCourt.sol";
import {IInferenceLedger} from "../interfaces/IInferenceLedger.sol";
import {INodeRegistry} from "../interfaces/INodeRegistry.sol";
import {ExactTransfer} from "../libraries/ExactTransfer.sol";
import {Signers} from "../libraries/Signers.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";

/// @title What the court holds, whom it owes, and whose word a signature is
abstract contract Bonds is IDisputeCourt, ReentrancyGuardTransient {
    using ExactTransfer for IERC20;
    using SafeERC20 for IERC20;

    uint256 internal constant ALL_BPS = 10_000;

    /// @inheritdoc IDisputeCourt
    IERC20 public immutable override token;
    /// @inheritdoc IDisputeCourt
    INodeRegistry public immutable override nodes;
    /// @inheritdoc IDisputeCourt
    IInferenceLedger public immutable override ledger;
    /// @inheritdoc IDisputeCourt
    address public immutable override treasury;
    uint48 internal immutable EVIDENCE_PERIOD;

    /// @inheritdoc IDisputeCourt
    mapping(address account => uint256) public override balanceOf;

    constructor(IInferenceLedger ledger_, address treasury_, uint48 evidencePeriod) {
        if (treasury_ == address(0)) revert DisputeCourtZeroAddress();
        (ledger, treasury, EVIDENCE_PERIOD) = (ledger_, treasury_, evidencePeriod);
        // Taken from the ledger, so that the three can't disagree.
        (token, nodes) = (ledger_.token(), ledger_.nodes());
    }

    /// @inheritdoc IDisputeCourt
    function withdraw() external override nonReentrant {
        uint256 amount = balanceOf[msg.sender];
        if (amount == 0) revert DisputeCourtNothingToWithdraw(msg.sender);
        balanceOf[msg.sender] = 0;
        emit Withdrawn(msg.sender, amount);
        token.safeTransfer(msg.sender, amount);
    }

    function _pullBond(uint256 amount) internal {
        token.pull(msg.sender, amount);
    }

    /// @dev Takes stake, gives `owed` of it to `to` and the rest to the treasury. Where there is less than `amount` to take, both get
    /// less: what a fine costs must not depend on how much is left.
    function _slash(address operator, uint256 amount, address to, uint256 owed)
        internal
        returns (uint128 taken, uint128 given)
    {
        // casting to 'uint128' is safe because amounts here are shares of stakes of 128 bits, or costs of 96 bits and their fines
        // forge-lint: disable-start(unsafe-typecast)
        taken = nodes.slash(operator, uint128(amount), address(this));
        given = uint128(taken < amount ? owed * taken / amount : owed);
        // forge-lint: disable-end(unsafe-typecast)
        balanceOf[to] += given;
        balanceOf[treasury] += taken - given;
    }

    function _checkSignedBy(address operator, bytes32 digest, bytes calldata signature) internal view {
        Signers.check(nodes, EVIDENCE_PERIOD, operator, digest, signature);
    }
}
