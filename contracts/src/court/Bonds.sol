// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IDisputeCourt} from "../interfaces/IDisputeCourt.sol";
import {IInferenceLedger} from "../interfaces/IInferenceLedger.sol";
import {INodeRegistry} from "../interfaces/INodeRegistry.sol";
import {ExactTransfer} from "../libraries/ExactTransfer.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";

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

    constructor(
        IERC20 token_,
        INodeRegistry nodes_,
        IInferenceLedger ledger_,
        address treasury_,
        uint48 evidencePeriod
    ) {
        if (
            address(token_) == address(0) || address(nodes_) == address(0) || address(ledger_) == address(0)
                || treasury_ == address(0)
        ) revert DisputeCourtZeroAddress();
        (token, nodes, ledger, treasury, EVIDENCE_PERIOD) = (token_, nodes_, ledger_, treasury_, evidencePeriod);
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

    /// @dev Takes stake, gives `owed` of it (what there is) to `to` and the rest to the treasury.
    function _slash(address operator, uint256 amount, address to, uint256 owed)
        internal
        returns (uint128 taken, uint128 given)
    {
        // casting to 'uint128' is safe because amounts here are shares of stakes of 128 bits, or costs of 96 bits and their fines
        // forge-lint: disable-next-line(unsafe-typecast)
        taken = nodes.slash(operator, uint128(amount), address(this));
        // forge-lint: disable-next-line(unsafe-typecast)
        given = owed < taken ? uint128(owed) : taken;
        balanceOf[to] += given;
        balanceOf[treasury] += taken - given;
    }

    /// @dev Whether `signature` is the operator's word: by itself, by its signer, or by one that was that until lately. A key that
    /// was changed long ago may have been stolen since, and must not be able to frame its former owner.
    function _checkSignedBy(address operator, bytes32 digest, bytes calldata signature) internal view {
        (address signer,,) = ECDSA.tryRecover(digest, signature);
        if (signer == operator && signer != address(0)) return;
        (address owner, uint48 retiredAt) = nodes.signerRecord(signer);
        bool counts = retiredAt == 0 || block.timestamp <= uint256(retiredAt) + EVIDENCE_PERIOD;
        if (signer == address(0) || owner != operator || !counts) revert DisputeCourtNotSignedBy(operator, signer);
    }
}
