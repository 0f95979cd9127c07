// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @notice An account of the ledger in one storage word, from the lowest bit:
///   96 balance in base units | 16 epoch | 48 earned | 48 earnedBefore | 48 faulted
/// `earned` and `faulted` count micro-credits (1e12 base units) of `epoch`, `earnedBefore` those of the epoch before it.
type Account is uint256;

/// @title The word that a settlement writes for every account it pays
/// @notice One word and not a struct: a payout is one load and one store, whatever else is kept about the account.
library Accounts {
    uint256 internal constant UNITS_PER_MICRO = 1e12;
    uint256 private constant BALANCE = type(uint96).max;
    uint256 private constant EPOCH = type(uint16).max;
    uint256 private constant MICROS = type(uint48).max;

    function balance(Account self) internal pure returns (uint256) {
        return Account.unwrap(self) & BALANCE;
    }

    function epoch(Account self) internal pure returns (uint256) {
        return (Account.unwrap(self) >> 96) & EPOCH;
    }

    /// @notice Base units earned in `epoch`, rounded up to micro-credits.
    function earned(Account self) internal pure returns (uint256) {
        return ((Account.unwrap(self) >> 112) & MICROS) * UNITS_PER_MICRO;
    }

    /// @notice Base units earned in the epoch before `epoch`, rounded up to micro-credits.
    function earnedBefore(Account self) internal pure returns (uint256) {
        return ((Account.unwrap(self) >> 160) & MICROS) * UNITS_PER_MICRO;
    }

    /// @notice Base units of faults in `epoch`, rounded up to micro-credits.
    function faulted(Account self) internal pure returns (uint256) {
        return (Account.unwrap(self) >> 208) * UNITS_PER_MICRO;
    }

    /// @dev All that a ledger holds fits 96 bits and a balance is a part of it, so a sum never overflows.
    function add(Account self, uint256 amount) internal pure returns (Account) {
        unchecked {
            return Account.wrap(Account.unwrap(self) + amount);
        }
    }

    /// @dev Callers check that the balance covers the amount.
    function subtract(Account self, uint256 amount) internal pure returns (Account) {
        unchecked {
            return Account.wrap(Account.unwrap(self) - amount);
        }
    }

    /// @notice The account at the beginning of a later epoch.
    function enter(Account self, uint256 newEpoch) internal pure returns (Account) {
        uint256 word = Account.unwrap(self);
        // Epochs begin again after the last one.
        uint256 before = newEpoch == (epoch(self) + 1) & EPOCH ? (word >> 112) & MICROS : 0;
        return Account.wrap((word & BALANCE) | (newEpoch << 96) | (before << 160));
    }

    /// @notice Adds an amount to the balance and to what was earned in the epoch. The count stays at its maximum once it
    /// reaches it (281 million credits).
    function earn(Account self, uint256 amount) internal pure returns (Account) {
        // See `add`.
        unchecked {
            return Account.wrap(Account.unwrap(self) + amount + _room(self, 112, amount));
        }
    }

    /// @notice Adds an amount to the faults of the epoch, which stay at their maximum likewise.
    function fault(Account self, uint256 amount) internal pure returns (Account) {
        unchecked {
            return Account.wrap(Account.unwrap(self) + _room(self, 208, amount));
        }
    }

    /// @dev What to add to the word so that the count at `shift` grows by the amount, as far as there is room.
    function _room(Account self, uint256 shift, uint256 amount) private pure returns (uint256) {
        unchecked {
            // Rounded up: stake is locked for every unit earned. An amount has 96 bits, so the sum does not overflow.
            uint256 micros = (amount + UNITS_PER_MICRO - 1) / UNITS_PER_MICRO;
            uint256 room = MICROS - ((Account.unwrap(self) >> shift) & MICROS);
            return (micros < room ? micros : room) << shift;
        }
    }
}
