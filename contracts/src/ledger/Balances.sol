// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IInferenceLedger} from "../interfaces/IInferenceLedger.sol";
import {INodeRegistry} from "../interfaces/INodeRegistry.sol";
import {Account, Accounts} from "../libraries/Accounts.sol";
import {ExactTransfer} from "../libraries/ExactTransfer.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {IERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Permit.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";

/// @title Balances: deposits, withdrawals, transfers, and what nodes earned lately
abstract contract Balances is IInferenceLedger, ReentrancyGuardTransient {
    using Accounts for Account;
    using ExactTransfer for IERC20;
    using SafeERC20 for IERC20;

    uint8 internal constant GATEWAY = 2;

    /// @inheritdoc IInferenceLedger
    IERC20 public immutable override token;
    /// @inheritdoc IInferenceLedger
    INodeRegistry public immutable override nodes;
    uint256 internal immutable EPOCH_LENGTH;
    uint256 internal immutable GENESIS;

    /// @dev Who may settle and what settling earned share a word: a settlement needs both, and asks no other contract.
    struct GatewayAccount {
        address settler;
        uint96 fees;
    }

    mapping(address owner => Account) internal _accounts;
    /// @inheritdoc IInferenceLedger
    mapping(address gateway => GatewayAccount) public override gatewayAccount;

    constructor(IERC20 token_, INodeRegistry nodes_, uint256 epochLength) {
        if (address(token_) == address(0) || address(nodes_) == address(0)) revert InferenceLedgerZeroAddress();
        token = token_;
        nodes = nodes_;
        EPOCH_LENGTH = epochLength;
        GENESIS = block.timestamp;
    }

    /// @inheritdoc IInferenceLedger
    function deposit(uint256 amount) external override nonReentrant {
        _deposit(amount);
    }

    /// @inheritdoc IInferenceLedger
    function depositWithPermit(uint256 amount, uint256 deadline, uint8 v, bytes32 r, bytes32 s)
        external
        override
        nonReentrant
    {
        // Whoever sees the permit can submit it first; the allowance is there all the same, so a failure means nothing.
        try IERC20Permit(address(token)).permit(msg.sender, address(this), amount, deadline, v, r, s) {} catch {}
        _deposit(amount);
    }

    /// @inheritdoc IInferenceLedger
    function withdraw(uint256 amount) external override nonReentrant {
        if (amount == 0) revert InferenceLedgerZeroAmount();
        _take(msg.sender, amount);
        emit Withdrawn(msg.sender, amount);
        token.safeTransfer(msg.sender, amount);
    }

    /// @inheritdoc IInferenceLedger
    function transfer(address to, uint256 amount) external override {
        if (to == address(0)) revert InferenceLedgerZeroAddress();
        if (amount == 0) revert InferenceLedgerZeroAmount();
        _take(msg.sender, amount);
        _give(to, amount);
        emit Transferred(msg.sender, to, amount);
    }

    /// @inheritdoc IInferenceLedger
    function setSettler(address settler) external override {
        gatewayAccount[msg.sender].settler = settler;
        emit SettlerSet(msg.sender, settler);
    }

    /// @inheritdoc IInferenceLedger
    function collectFees(address gateway) external override {
        uint96 fees = gatewayAccount[gateway].fees;
        if (fees == 0) revert InferenceLedgerZeroAmount();
        gatewayAccount[gateway].fees = 0;
        _give(gateway, fees);
        emit FeesCollected(gateway, fees);
    }

    /// @inheritdoc IInferenceLedger
    function compensate(address gateway, Compensation[] calldata compensations) external override {
        _accountOf(gateway);
        for (uint256 i = 0; i < compensations.length; ++i) {
            Compensation calldata given = compensations[i];
            if (given.payer == address(0)) revert InferenceLedgerZeroAddress();
            _take(gateway, given.amount);
            _give(given.payer, given.amount);
            emit Compensated(given.payer, gateway, given.node, given.request, given.amount);
        }
    }

    /// @inheritdoc IInferenceLedger
    function balanceOf(address account) external view override returns (uint256) {
        return _accounts[account].balance();
    }

    function currentEpoch() public view override returns (uint16) {
        // Epochs wrap: an account that was idle for exactly 65,536 of them is taken to be in the current one, which locks its
        // stake for an epoch more.
        // forge-lint: disable-next-line(unsafe-typecast)
        return uint16((block.timestamp - GENESIS) / EPOCH_LENGTH);
    }

    function lockedEarnings(address node) external view override returns (uint96) {
        Account account = _accounts[node];
        uint256 passed = _epochsSince(account);
        if (passed > 1) return 0;
        uint256 locked = passed == 1 ? account.earned() : account.earned() + account.earnedBefore();
        // casting to 'uint96' is safe because two counts of 48 bits, times 1e12, stay below 2**89
        // forge-lint: disable-next-line(unsafe-typecast)
        return uint96(locked);
    }

    function pendingWork(address node) external view override returns (uint16 epoch, uint96 earned, uint96 faulted) {
        Account account = _accounts[node];
        // casting is safe because an epoch has 16 bits and a count of 48 bits, times 1e12, stays below 2**88
        // forge-lint: disable-next-line(unsafe-typecast)
        return (uint16(account.epoch()), uint96(account.earned()), uint96(account.faulted()));
    }

    function _deposit(uint256 amount) private {
        if (amount == 0) revert InferenceLedgerZeroAmount();
        if (amount > type(uint96).max) revert InferenceLedgerTooManyCredits(amount);
        _give(msg.sender, amount);
        emit Deposited(msg.sender, amount);
        token.pull(msg.sender, amount);
        // All amounts that are kept are parts of this one, so none of them overflows its 96 bits, whatever the token does.
        uint256 held = token.balanceOf(address(this));
        if (held > type(uint96).max) revert InferenceLedgerTooManyCredits(held);
    }

    /// @dev The account of a gateway that the caller acts for.
    function _accountOf(address gateway) internal view returns (GatewayAccount storage account) {
        account = gatewayAccount[gateway];
        if (msg.sender != account.settler && msg.sender != gateway) {
            revert InferenceLedgerNotAuthorized(gateway, msg.sender);
        }
    }

    function _take(address owner, uint256 amount) internal {
        Account account = _accounts[owner];
        if (amount > account.balance()) {
            revert InferenceLedgerInsufficientBalance(owner, account.balance(), amount);
        }
        _accounts[owner] = account.subtract(amount);
    }

    function _give(address owner, uint256 amount) internal {
        _accounts[owner] = _accounts[owner].add(amount);
    }

    /// @dev Pays a node for work. The first payment of an epoch hands the sums of the last one to the node's reputation.
    function _earn(address node, uint256 amount, uint256 epoch) internal {
        Account account = _accounts[node];
        if (account.epoch() != epoch) {
            _report(node, account);
            account = account.enter(epoch);
        }
        _accounts[node] = account.earn(amount);
    }

    function _report(address node, Account account) private {
        if (account.earned() == 0) return;
        // casting is safe because an epoch has 16 bits, and a count of 48 bits, times 1e12, stays below 2**88
        // forge-lint: disable-next-line(unsafe-typecast)
        nodes.recordWork(node, uint16(account.epoch()), uint96(account.earned()), uint96(account.faulted()));
    }

    function _epochsSince(Account account) private view returns (uint256) {
        unchecked {
            // forge-lint: disable-next-line(unsafe-typecast)
            return currentEpoch() - uint16(account.epoch()) & type(uint16).max;
        }
    }
}
