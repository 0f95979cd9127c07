// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {InferenceLedger} from "../../src/InferenceLedger.sol";
import {IInferenceLedger} from "../../src/interfaces/IInferenceLedger.sol";
import {INodeRegistry} from "../../src/interfaces/INodeRegistry.sol";
import {Base} from "../helpers/Base.sol";
import {IERC20Errors} from "@openzeppelin/contracts/interfaces/draft-IERC6093.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";

/// @notice The constructor, deposit, depositWithPermit, withdraw, transfer.
contract BalancesTest is Base {
    bytes32 internal constant PERMIT_TYPEHASH =
        keccak256("Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)");

    function test_KeepsItsParameters() public view {
        vm.assertEq(address(ledger.token()), address(token));
        vm.assertEq(address(ledger.nodes()), address(nodes));
        vm.assertEq(keccak256(abi.encode(ledger.parameters())), keccak256(abi.encode(_ledgerParameters())));
    }

    function test_EpochsAreCountedFromTheDeployment() public {
        vm.assertEq(ledger.currentEpoch(), 0);
        vm.warp(block.timestamp + EPOCH - 1);
        vm.assertEq(ledger.currentEpoch(), 0);
        vm.warp(vm.getBlockTimestamp() + 1);
        vm.assertEq(ledger.currentEpoch(), 1);
    }

    function test_RevertWhen_AnAddressIsZero() public {
        vm.expectRevert(IInferenceLedger.InferenceLedgerZeroAddress.selector);
        new InferenceLedger(IERC20(address(0)), nodes, _ledgerParameters());
        vm.expectRevert(IInferenceLedger.InferenceLedgerZeroAddress.selector);
        new InferenceLedger(token, INodeRegistry(address(0)), _ledgerParameters());
    }

    function test_EveryParameterIsBounded() public {
        _bounds(0, "thawPeriod", 1 days, 30 days, 1 days - 1);
        _bounds(1, "epochLength", 1 hours, 30 days, 1 hours - 1);
        _bounds(2, "batchRetention", 3 days, 90 days, 3 days - 1);
        _bounds(3, "claimPeriod", 1 hours + 1, 1 days, 1 hours);
        _bounds(5, "claimBond", 1, 1_000e18, 0);
        _bounds(6, "maxFeeBps", 0, 5_000, type(uint256).max);
    }

    /// @dev `low` is below the minimum, if anything is. Some bounds hang on other parameters, which stay as they are.
    function _bounds(uint256 index, string memory name, uint256 minimum, uint256 maximum, uint256 low) internal {
        _make(index, minimum);
        _make(index, maximum);
        bytes4 selector = IInferenceLedger.InferenceLedgerParameterOutOfBounds.selector;
        if (low < minimum) {
            // The thaw's own minimum is lower; a claim's period must fit into it.
            bytes memory error_ = index == 0
                ? abi.encodeWithSelector(selector, "claimPeriod", 1 days, 1 hours + 1, low)
                : abi.encodeWithSelector(selector, name, low, minimum, maximum);
            vm.expectRevert(error_);
            _make(index, low);
        }
        uint256 ownMinimum = index == 0 ? 10 minutes : minimum;
        vm.expectRevert(abi.encodeWithSelector(selector, name, maximum + 1, ownMinimum, maximum));
        _make(index, maximum + 1);
    }

    function _make(uint256 index, uint256 value) internal {
        IInferenceLedger.Parameters memory p = _ledgerParameters();
        if (index == 0) p.thawPeriod = uint48(value);
        if (index == 1) p.epochLength = uint48(value);
        if (index == 2) p.batchRetention = uint48(value);
        if (index == 3) p.claimPeriod = uint48(value);
        if (index == 5) p.claimBond = uint96(value);
        if (index == 6) p.maxFeeBps = uint16(value);
        new InferenceLedger(token, nodes, p);
    }

    function test_ThawAndWindowHaveBoundsOfTheirOwn() public {
        bytes4 selector = IInferenceLedger.InferenceLedgerParameterOutOfBounds.selector;
        IInferenceLedger.Parameters memory p = _ledgerParameters();
        (p.thawPeriod, p.claimPeriod, p.claimDelay) = (10 minutes - 1, 60, 0);
        vm.expectRevert(abi.encodeWithSelector(selector, "thawPeriod", 10 minutes - 1, 10 minutes, 30 days));
        new InferenceLedger(token, nodes, p);
        p = _ledgerParameters();
        p.claimWindow = 10 minutes - 1;
        vm.expectRevert(abi.encodeWithSelector(selector, "claimWindow", 10 minutes - 1, 10 minutes, 30 days));
        new InferenceLedger(token, nodes, p);
        p.claimWindow = 1 days + 1;
        uint256 needed = 2 * (1 days + 1 days + 1);
        vm.expectRevert(abi.encodeWithSelector(selector, "batchRetention", RETENTION, needed, 90 days));
        new InferenceLedger(token, nodes, p);
        (p.claimWindow, p.batchRetention) = (30 days + 1, 90 days);
        vm.expectRevert(abi.encodeWithSelector(selector, "claimWindow", 30 days + 1, 10 minutes, 30 days));
        new InferenceLedger(token, nodes, p);
    }

    function test_RevertWhen_MoreThanAllCreditsAreDeposited() public {
        uint256 tooMuch = uint256(type(uint96).max) + 1;
        vm.expectRevert(abi.encodeWithSelector(IInferenceLedger.InferenceLedgerTooManyCredits.selector, tooMuch));
        vm.prank(payer);
        ledger.deposit(tooMuch);
    }

    function test_Compensate() public {
        _registerGateway();
        _deposit(gateway, 10e18);
        IInferenceLedger.Compensation[] memory given = new IInferenceLedger.Compensation[](2);
        given[0] = IInferenceLedger.Compensation(payer, keccak256("late"), worker, 3e18);
        given[1] = IInferenceLedger.Compensation(stranger, keccak256("later"), gateway, 4e18);
        vm.expectEmit();
        emit IInferenceLedger.Compensated(payer, gateway, worker, keccak256("late"), 3e18);
        vm.prank(gatewaySigner);
        ledger.compensate(gateway, given);
        vm.assertEq(ledger.balanceOf(payer), 3e18);
        vm.assertEq(ledger.balanceOf(stranger), 4e18);
        vm.assertEq(ledger.balanceOf(gateway), 3e18);

        bytes4 notAuthorized = IInferenceLedger.InferenceLedgerNotAuthorized.selector;
        vm.expectRevert(abi.encodeWithSelector(notAuthorized, gateway, stranger));
        vm.prank(stranger);
        ledger.compensate(gateway, given);
        bytes4 insufficient = IInferenceLedger.InferenceLedgerInsufficientBalance.selector;
        vm.expectRevert(abi.encodeWithSelector(insufficient, gateway, 0, 4e18));
        vm.prank(gateway);
        ledger.compensate(gateway, given);
        given[0].payer = address(0);
        vm.expectRevert(IInferenceLedger.InferenceLedgerZeroAddress.selector);
        vm.prank(gateway);
        ledger.compensate(gateway, given);
    }

    function test_Deposit(uint256 amount) public {
        amount = _bound(amount, 1, FUNDS);
        vm.expectEmit();
        emit IInferenceLedger.Deposited(payer, amount);
        _deposit(payer, amount);
        vm.assertEq(ledger.balanceOf(payer), amount);
        vm.assertEq(token.balanceOf(address(ledger)), amount);
        vm.assertEq(token.balanceOf(payer), FUNDS - amount);
    }

    function test_RevertWhen_TheWalletHoldsLessThanTheDeposit() public {
        vm.expectRevert(abi.encodeWithSelector(IERC20Errors.ERC20InsufficientBalance.selector, payer, FUNDS, FUNDS + 1));
        _deposit(payer, FUNDS + 1);
    }

    function test_DepositWithPermit(uint256 amount) public {
        amount = _bound(amount, 1, FUNDS);
        vm.startPrank(payer);
        token.approve(address(ledger), 0);
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(PAYER_KEY, _permitDigest(amount));
        ledger.depositWithPermit(amount, block.timestamp, v, r, s);
        vm.stopPrank();
        vm.assertEq(ledger.balanceOf(payer), amount);
        vm.assertEq(token.allowance(payer, address(ledger)), 0);
    }

    function test_APermitSubmittedByAThiefDoesNoHarm() public {
        vm.prank(payer);
        token.approve(address(ledger), 0);
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(PAYER_KEY, _permitDigest(5));
        vm.prank(stranger);
        token.permit(payer, address(ledger), 5, block.timestamp, v, r, s);
        vm.prank(payer);
        ledger.depositWithPermit(5, block.timestamp, v, r, s);
        vm.assertEq(ledger.balanceOf(payer), 5);
    }

    function test_RevertWhen_ThePermitIsForged() public {
        vm.startPrank(payer);
        token.approve(address(ledger), 0);
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(STRANGER_KEY, _permitDigest(5));
        vm.expectRevert(abi.encodeWithSelector(IERC20Errors.ERC20InsufficientAllowance.selector, address(ledger), 0, 5));
        ledger.depositWithPermit(5, block.timestamp, v, r, s);
        vm.stopPrank();
    }

    function test_Withdraw(uint256 deposited, uint256 amount) public {
        deposited = _bound(deposited, 1, FUNDS);
        amount = _bound(amount, 1, deposited);
        _deposit(payer, deposited);
        vm.expectEmit();
        emit IInferenceLedger.Withdrawn(payer, amount);
        vm.prank(payer);
        ledger.withdraw(amount);
        vm.assertEq(ledger.balanceOf(payer), deposited - amount);
        vm.assertEq(token.balanceOf(payer), FUNDS - deposited + amount);
    }

    function test_RevertWhen_MoreIsWithdrawnThanIsOwned(uint256 amount) public {
        amount = _bound(amount, 11, type(uint256).max);
        _deposit(payer, 10);
        _deposit(stranger, 100);
        vm.expectRevert(
            abi.encodeWithSelector(IInferenceLedger.InferenceLedgerInsufficientBalance.selector, payer, 10, amount)
        );
        vm.prank(payer);
        ledger.withdraw(amount);
    }

    function test_Transfer(uint256 amount) public {
        amount = _bound(amount, 1, 100);
        _deposit(payer, 100);
        vm.expectEmit();
        emit IInferenceLedger.Transferred(payer, worker, amount);
        vm.prank(payer);
        ledger.transfer(worker, amount);
        vm.assertEq(ledger.balanceOf(payer), 100 - amount);
        vm.assertEq(ledger.balanceOf(worker), amount);
    }

    function test_ATransferToOneselfChangesNothing() public {
        _deposit(payer, 100);
        vm.prank(payer);
        ledger.transfer(payer, 60);
        vm.assertEq(ledger.balanceOf(payer), 100);
    }

    function test_RevertWhen_ATransferIsInvalid() public {
        _deposit(payer, 100);
        vm.startPrank(payer);
        vm.expectRevert(IInferenceLedger.InferenceLedgerZeroAddress.selector);
        ledger.transfer(address(0), 1);
        vm.expectRevert(IInferenceLedger.InferenceLedgerZeroAmount.selector);
        ledger.transfer(worker, 0);
        vm.expectRevert(
            abi.encodeWithSelector(IInferenceLedger.InferenceLedgerInsufficientBalance.selector, payer, 100, 101)
        );
        ledger.transfer(worker, 101);
        vm.stopPrank();
    }

    function test_RevertWhen_AmountIsZero() public {
        vm.startPrank(payer);
        vm.expectRevert(IInferenceLedger.InferenceLedgerZeroAmount.selector);
        ledger.deposit(0);
        vm.expectRevert(IInferenceLedger.InferenceLedgerZeroAmount.selector);
        ledger.depositWithPermit(0, 0, 27, 0, 0);
        vm.expectRevert(IInferenceLedger.InferenceLedgerZeroAmount.selector);
        ledger.withdraw(0);
        vm.stopPrank();
    }

    function _permitDigest(uint256 amount) internal view returns (bytes32) {
        bytes32 hash = keccak256(
            abi.encode(PERMIT_TYPEHASH, payer, address(ledger), amount, token.nonces(payer), block.timestamp)
        );
        return keccak256(abi.encodePacked(hex"1901", token.DOMAIN_SEPARATOR(), hash));
    }
}
