// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Account, Accounts} from "../../src/libraries/Accounts.sol";
import {Base} from "../helpers/Base.sol";

/// @notice The packed account against its fields kept apart.
contract AccountsTest is Base {
    using Accounts for Account;

    uint256 internal constant MICRO = 1e12;
    uint256 internal constant MAX_MICROS = type(uint48).max;

    function test_FieldsDoNotTouchOneAnother(
        uint96 balance,
        uint16 epoch,
        uint48 earned,
        uint48 earnedBefore,
        uint48 faulted,
        uint96 amount
    ) public pure {
        amount = uint96(_bound(amount, 0, type(uint96).max - balance));
        uint256 micros = (uint256(amount) + MICRO - 1) / MICRO;
        Account before = _account(balance, epoch, earned, earnedBefore, faulted);
        _is(before, balance, epoch, earned, earnedBefore, faulted);
        _is(before.add(amount), uint256(balance) + amount, epoch, earned, earnedBefore, faulted);
        _is(before.add(amount).subtract(amount), balance, epoch, earned, earnedBefore, faulted);
        uint256 more = _saturated(earned + micros);
        _is(before.earn(amount), uint256(balance) + amount, epoch, more, earnedBefore, faulted);
        _is(before.fault(amount), balance, epoch, earned, earnedBefore, _saturated(faulted + micros));
    }

    function test_EnteringAnEpochForgetsAllButTheOneBefore(uint96 balance, uint16 epoch, uint16 next, uint48 earned)
        public
        pure
    {
        Account entered = _account(balance, epoch, earned, 7, 9).enter(next);
        bool follows = uint256(next) == (uint256(epoch) + 1) % 65_536;
        _is(entered, balance, next, 0, follows ? earned : 0, 0);
    }

    function test_TheFirstEpochFollowsTheLast(uint96 balance, uint48 earned) public pure {
        Account entered = _account(balance, type(uint16).max, earned, 7, 9).enter(0);
        _is(entered, balance, 0, 0, earned, 0);
    }

    function _account(uint96 balance, uint16 epoch, uint48 earned, uint48 earnedBefore, uint48 faulted)
        internal
        pure
        returns (Account)
    {
        uint256 counts = uint256(earned) << 112 | uint256(earnedBefore) << 160 | uint256(faulted) << 208;
        return Account.wrap(balance | uint256(epoch) << 96 | counts);
    }

    function _is(Account account, uint256 balance, uint256 epoch, uint256 earned, uint256 earnedBefore, uint256 faulted)
        internal
        pure
    {
        vm.assertEq(account.balance(), balance);
        vm.assertEq(account.epoch(), epoch);
        vm.assertEq(account.earned(), earned * MICRO);
        vm.assertEq(account.earnedBefore(), earnedBefore * MICRO);
        vm.assertEq(account.faulted(), faulted * MICRO);
    }

    function _saturated(uint256 micros) internal pure returns (uint256) {
        return micros > MAX_MICROS ? MAX_MICROS : micros;
    }
}
