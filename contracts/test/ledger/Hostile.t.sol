// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {InferenceLedger} from "../../src/InferenceLedger.sol";
import {IInferenceLedger} from "../../src/interfaces/IInferenceLedger.sol";
import {ExactTransfer} from "../../src/libraries/ExactTransfer.sol";
import {Base} from "../helpers/Base.sol";
import {EndlessToken, FeeToken, GiftToken, OpenToken, ReentrantToken, RefusingToken} from "../helpers/Mocks.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";

contract LedgerHostileTest is Base {
    InferenceLedger internal target;

    function _with(OpenToken hostile) internal {
        target = new InferenceLedger(hostile, nodes, _ledgerParameters());
        hostile.mint(payer, 1_000);
        vm.prank(payer);
        hostile.approve(address(target), 1_000);
    }

    function test_RevertWhen_TheTokenKeepsAFee() public {
        FeeToken hostile = new FeeToken();
        _with(hostile);
        vm.expectRevert(
            abi.encodeWithSelector(ExactTransfer.ExactTransferFellShort.selector, address(hostile), 99, 100)
        );
        vm.prank(payer);
        target.deposit(100);
    }

    function test_RevertWhen_TheTokenGivesMoreThanAsked() public {
        GiftToken hostile = new GiftToken();
        _with(hostile);
        vm.expectRevert(
            abi.encodeWithSelector(ExactTransfer.ExactTransferFellShort.selector, address(hostile), 101, 100)
        );
        vm.prank(payer);
        target.deposit(100);
    }

    function test_RevertWhen_TheTokenRefuses() public {
        RefusingToken hostile = new RefusingToken();
        _with(hostile);
        vm.expectRevert(abi.encodeWithSelector(SafeERC20.SafeERC20FailedOperation.selector, address(hostile)));
        vm.prank(payer);
        target.deposit(100);
    }

    function test_RevertWhen_TheTokenReenters() public {
        ReentrantToken hostile = new ReentrantToken();
        _with(hostile);
        bytes memory again = abi.encodeCall(IInferenceLedger.withdraw, (1));
        vm.startPrank(payer);
        hostile.arm(address(target), abi.encodeCall(IInferenceLedger.deposit, (1)));
        vm.expectRevert(ReentrancyGuardTransient.ReentrancyGuardReentrantCall.selector);
        target.deposit(100);
        hostile.arm(address(target), again);
        vm.expectRevert(ReentrancyGuardTransient.ReentrancyGuardReentrantCall.selector);
        target.depositWithPermit(100, 0, 27, 0, 0);
        hostile.arm(address(0), "");
        target.deposit(100);
        hostile.arm(address(target), again);
        vm.expectRevert(ReentrancyGuardTransient.ReentrancyGuardReentrantCall.selector);
        target.withdraw(100);
        vm.stopPrank();
    }

    /// @dev Amounts have 96 bits: a token with more units than that is kept out before they overflow.
    function test_RevertWhen_TheTokenHasNoEnd() public {
        EndlessToken hostile = new EndlessToken();
        _with(hostile);
        hostile.mint(address(target), type(uint96).max);
        uint256 held = uint256(type(uint96).max) + 1;
        vm.expectRevert(abi.encodeWithSelector(IInferenceLedger.InferenceLedgerTooManyCredits.selector, held));
        vm.prank(payer);
        target.deposit(1);
    }

    function test_AsManyUnitsAsFitAreTaken() public {
        EndlessToken hostile = new EndlessToken();
        _with(hostile);
        uint256 most = type(uint96).max;
        hostile.mint(payer, most - 1_000);
        vm.startPrank(payer);
        hostile.approve(address(target), most);
        target.deposit(most);
        vm.stopPrank();
        vm.assertEq(target.balanceOf(payer), most);
    }

    function test_AWithdrawalHasLeftTheBalanceBeforeTheTokenIsInControl() public {
        ReentrantToken hostile = new ReentrantToken();
        _with(hostile);
        vm.prank(payer);
        target.deposit(100);
        // The token holds a balance of its own and tries to move the payer's in the middle of his withdrawal.
        hostile.arm(address(target), abi.encodeCall(IInferenceLedger.transfer, (stranger, 1)));
        vm.expectRevert(
            abi.encodeWithSelector(IInferenceLedger.InferenceLedgerInsufficientBalance.selector, address(hostile), 0, 1)
        );
        vm.prank(payer);
        target.withdraw(100);
    }
}
