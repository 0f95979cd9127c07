// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";

/// @title Takes in tokens, to the unit
/// @notice A token that keeps a fee or rebases on transfer would leave the contracts owing more than they hold.
library ExactTransfer {
    using SafeERC20 for IERC20;

    error ExactTransferFellShort(address token, uint256 received, uint256 amount);

    /// @dev Callers hold a reentrancy guard: between the two balances the token is in control.
    function pull(IERC20 token, address from, uint256 amount) internal {
        uint256 balance = token.balanceOf(address(this));
        token.safeTransferFrom(from, address(this), amount);
        uint256 received = token.balanceOf(address(this)) - balance;
        if (received != amount) revert ExactTransferFellShort(address(token), received, amount);
    }
}
