// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {CreditToken} from "../../src/CreditToken.sol";
import {ICreditToken} from "../../src/interfaces/ICreditToken.sol";
import {Base} from "../helpers/Base.sol";
import {IAccessControl} from "@openzeppelin/contracts/access/IAccessControl.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {ERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Permit.sol";

contract CreditTokenTest is Base {
    bytes32 internal constant PERMIT_TYPEHASH =
        keccak256("Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)");

    function test_RevertWhen_TreasuryIsZero() public {
        vm.expectRevert(ICreditToken.CreditTokenZeroTreasury.selector);
        new CreditToken(address(0));
    }

    function test_IsAnErc20OfEighteenDecimals() public view {
        vm.assertEq(token.name(), "DeCLAI Credit");
        vm.assertEq(token.symbol(), "CREDIT");
        vm.assertEq(token.decimals(), 18);
    }

    function test_MinterMints() public {
        uint256 supply = token.totalSupply();
        vm.expectEmit();
        emit IERC20.Transfer(address(0), stranger, 5);
        vm.prank(treasury);
        token.mint(stranger, 5);
        vm.assertEq(token.totalSupply(), supply + 5);
        vm.assertEq(token.balanceOf(stranger), FUNDS + 5);
    }

    function test_RevertWhen_StrangerMints() public {
        bytes32 role = token.MINTER_ROLE();
        vm.expectRevert(
            abi.encodeWithSelector(IAccessControl.AccessControlUnauthorizedAccount.selector, stranger, role)
        );
        vm.prank(stranger);
        token.mint(stranger, 1);
    }

    function test_TreasuryGrantsAndRevokesTheRole() public {
        bytes32 role = token.MINTER_ROLE();
        vm.prank(treasury);
        token.grantRole(role, stranger);
        vm.prank(stranger);
        token.mint(stranger, 1);
        vm.prank(treasury);
        token.revokeRole(role, stranger);
        vm.expectRevert(
            abi.encodeWithSelector(IAccessControl.AccessControlUnauthorizedAccount.selector, stranger, role)
        );
        vm.prank(stranger);
        token.mint(stranger, 1);
    }

    function test_RevertWhen_StrangerGrantsTheRole() public {
        bytes32 role = token.MINTER_ROLE();
        vm.expectRevert(
            abi.encodeWithSelector(IAccessControl.AccessControlUnauthorizedAccount.selector, stranger, bytes32(0))
        );
        vm.prank(stranger);
        token.grantRole(role, stranger);
    }

    function test_PermitSetsTheAllowanceOnce(uint256 amount) public {
        bytes32 digest = _permitDigest(amount, block.timestamp);
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(PAYER_KEY, digest);
        token.permit(payer, stranger, amount, block.timestamp, v, r, s);
        vm.assertEq(token.allowance(payer, stranger), amount);
        vm.assertEq(token.nonces(payer), 1);
        vm.expectRevert();
        token.permit(payer, stranger, amount, block.timestamp, v, r, s);
    }

    function test_RevertWhen_PermitIsExpired() public {
        uint256 deadline = block.timestamp - 1;
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(PAYER_KEY, _permitDigest(1, deadline));
        vm.expectRevert(abi.encodeWithSelector(ERC20Permit.ERC2612ExpiredSignature.selector, deadline));
        token.permit(payer, stranger, 1, deadline, v, r, s);
    }

    function _permitDigest(uint256 amount, uint256 deadline) internal view returns (bytes32) {
        bytes32 hash = keccak256(abi.encode(PERMIT_TYPEHASH, payer, stranger, amount, token.nonces(payer), deadline));
        return keccak256(abi.encodePacked(hex"1901", token.DOMAIN_SEPARATOR(), hash));
    }
}
