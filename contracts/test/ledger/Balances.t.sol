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
        vm.assertEq(ledger.thawPeriod(), SESSION_THAW);
        vm.assertEq(ledger.maxFeeBps(), MAX_FEE_BPS);
    }

    function test_RevertWhen_ParametersAreOutOfBounds() public {
        vm.expectRevert(IInferenceLedger.InferenceLedgerZeroAddress.selector);
        new InferenceLedger(IERC20(address(0)), nodes, SESSION_THAW, 0);
        vm.expectRevert(IInferenceLedger.InferenceLedgerZeroAddress.selector);
        new InferenceLedger(token, INodeRegistry(address(0)), SESSION_THAW, 0);
        bytes4 thaw = IInferenceLedger.InferenceLedgerThawPeriodOutOfBounds.selector;
        vm.expectRevert(abi.encodeWithSelector(thaw, 10 minutes - 1, 10 minutes, 30 days));
        new InferenceLedger(token, nodes, 10 minutes - 1, 0);
        vm.expectRevert(abi.encodeWithSelector(thaw, 30 days + 1, 10 minutes, 30 days));
        new InferenceLedger(token, nodes, 30 days + 1, 0);
        vm.expectRevert(
            abi.encodeWithSelector(IInferenceLedger.InferenceLedgerMaxFeeOutOfBounds.selector, 5_001, 5_000)
        );
        new InferenceLedger(token, nodes, SESSION_THAW, 5_001);
        new InferenceLedger(token, nodes, 10 minutes, 0);
        new InferenceLedger(token, nodes, 30 days, 5_000);
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
