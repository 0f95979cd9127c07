// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ICreditToken} from "./interfaces/ICreditToken.sol";
import {AccessControl} from "@openzeppelin/contracts/access/AccessControl.sol";
import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {ERC20Capped} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Capped.sol";
import {ERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Permit.sol";
import {IERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Permit.sol";

/// @title The credit
/// @notice At most 79 billion credits (2**96 base units) exist, so that amounts fit 96 bits wherever they are kept.
contract CreditToken is ERC20Capped, ERC20Permit, AccessControl, ICreditToken {
    /// @inheritdoc ICreditToken
    bytes32 public constant override MINTER_ROLE = keccak256("MINTER_ROLE");

    /// @param treasury First holder of the minter role, and admin of it.
    constructor(address treasury)
        ERC20("DeCLAI Credit", "CREDIT")
        ERC20Permit("DeCLAI Credit")
        ERC20Capped(type(uint96).max)
    {
        if (treasury == address(0)) revert CreditTokenZeroTreasury();
        _grantRole(DEFAULT_ADMIN_ROLE, treasury);
        _grantRole(MINTER_ROLE, treasury);
    }

    /// @inheritdoc ICreditToken
    function mint(address account, uint256 amount) external override onlyRole(MINTER_ROLE) {
        _mint(account, amount);
    }

    /// @inheritdoc IERC20Permit
    function nonces(address owner) public view override(ERC20Permit, IERC20Permit) returns (uint256) {
        return super.nonces(owner);
    }

    function _update(address from, address to, uint256 amount) internal override(ERC20, ERC20Capped) {
        super._update(from, to, amount);
    }
}
