// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC1271} from "@openzeppelin/contracts/interfaces/IERC1271.sol";
import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";

/// @notice A token anyone can mint and a test can make misbehave.
abstract contract OpenToken is ERC20("Hostile", "HOST") {
    function mint(address account, uint256 amount) external {
        _mint(account, amount);
    }
}

/// @notice Behaves, but has no end.
contract EndlessToken is OpenToken {}

/// @notice Keeps one unit of every transfer.
contract FeeToken is OpenToken {
    function _update(address from, address to, uint256 amount) internal override {
        super._update(from, to, amount);
        if (from != address(0) && to != address(0) && amount != 0) super._update(to, address(0xFEE), 1);
    }
}

/// @notice Adds one unit to every transfer.
contract GiftToken is OpenToken {
    function _update(address from, address to, uint256 amount) internal override {
        super._update(from, to, amount);
        if (from != address(0) && to != address(0) && amount != 0) super._update(address(0), to, 1);
    }
}

/// @notice Says no instead of reverting.
contract RefusingToken is OpenToken {
    function transferFrom(address, address, uint256) public pure override returns (bool) {
        return false;
    }

    function transfer(address, uint256) public pure override returns (bool) {
        return false;
    }
}

/// @notice Calls back in the middle of a transfer, once, and lets the call's failure through.
contract ReentrantToken is OpenToken {
    address internal target;
    bytes internal data;

    function arm(address target_, bytes calldata data_) external {
        (target, data) = (target_, data_);
    }

    function _update(address from, address to, uint256 amount) internal override {
        super._update(from, to, amount);
        if (target == address(0)) return;
        address called = target;
        target = address(0);
        (bool success, bytes memory result) = called.call(data);
        if (!success) {
            // Hands on the reason as it came.
            assembly {
                revert(add(result, 32), mload(result))
            }
        }
    }
}

/// @notice A contract wallet with one owner.
contract Wallet is IERC1271 {
    address internal immutable OWNER;

    constructor(address owner) {
        OWNER = owner;
    }

    function isValidSignature(bytes32 digest, bytes calldata signature) external view override returns (bytes4) {
        (address signer,,) = ECDSA.tryRecover(digest, signature);
        return signer == OWNER ? IERC1271.isValidSignature.selector : bytes4(0);
    }

    function run(address target, bytes calldata data) external returns (bytes memory) {
        require(msg.sender == OWNER, "not the owner");
        (bool success, bytes memory result) = target.call(data);
        require(success, "failed");
        return result;
    }
}
