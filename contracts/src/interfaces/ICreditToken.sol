// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IAccessControl} from "@openzeppelin/contracts/access/IAccessControl.sol";
import {IERC20Metadata} from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Metadata.sol";
import {IERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Permit.sol";

/// @title The credit: what requests are paid with
/// @notice ERC-20 with 18 decimals and ERC-2612 permit. Supply changes only by the holders of the minter role
/// (grants for newcomers, the faucet of a development network); nobody can burn or move what others hold.
/// The role is managed through OpenZeppelin's AccessControl by the treasury, its admin.
interface ICreditToken is IERC20Metadata, IERC20Permit, IAccessControl {
    /// @notice The treasury cannot be the zero address.
    error CreditTokenZeroTreasury();

    /// @notice Role that may mint, managed by the default admin role.
    function MINTER_ROLE() external view returns (bytes32);

    /// @notice Creates `amount` base units for `account`.
    /// @dev Reverts with `AccessControlUnauthorizedAccount` for callers without the minter role.
    function mint(address account, uint256 amount) external;
}
