// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IInferenceLedger} from "../../src/interfaces/IInferenceLedger.sol";
import {INodeRegistry} from "../../src/interfaces/INodeRegistry.sol";
import {Vm} from "../helpers/Vm.sol";
import {CourtHandler} from "./CourtHandler.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";

/// @notice Whatever claims, challenges, proofs and juries do: every unit has one owner, and no receipt is paid twice.
contract CourtInvariantTest {
    Vm internal constant vm = Vm(address(uint160(uint256(keccak256("hevm cheat code")))));

    CourtHandler internal handler;
    IERC20 internal token;
    INodeRegistry internal nodes;
    address internal ledger;
    address internal court;

    function setUp() public {
        handler = new CourtHandler();
        handler.setUp();
        address token_;
        address nodes_;
        (token_, nodes_, ledger, court) = handler.world();
        (token, nodes) = (IERC20(token_), INodeRegistry(nodes_));
        handler.serve(1e18);
    }

    function targetContracts() external view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(handler);
    }

    struct FuzzSelector {
        address addr;
        bytes4[] selectors;
    }

    /// @dev The actors come to every end that there is: else the invariants would be about nothing.
    function test_ActorsReachEveryEnd() public {
        bytes4[] memory deeds = targetSelectors()[0].selectors;
        for (uint256 i = 0; i < 1_500; ++i) {
            uint256 random = uint256(keccak256(abi.encode(i)));
            bytes4 selector = deeds[random % deeds.length];
            // The narrowest first argument has 32 bits; where the second is a bool, it is 0 or 1.
            bytes memory data = abi.encodeWithSelector(
                selector, uint32(random >> 8), selector == handler.proceed.selector ? random >> 40 : random >> 40 & 1
            );
            (bool success,) = address(handler).call(data);
            vm.assertTrue(success);
        }
        uint256[11] memory ends = handler.ends();
        for (uint256 i = 0; i < ends.length; ++i) {
            vm.assertTrue(ends[i] != 0);
        }
        this.invariant_All();
    }

    function targetSelectors() public view returns (FuzzSelector[] memory targets) {
        bytes4[16] memory deeds = [
            handler.serve.selector,
            handler.settle.selector,
            handler.claim.selector,
            handler.endClaim.selector,
            handler.challenge.selector,
            handler.endChallenge.selector,
            handler.equivocate.selector,
            handler.dispute.selector,
            handler.proceed.selector,
            // Disputes have many steps.
            handler.proceed.selector,
            handler.restake.selector,
            handler.unstake.selector,
            handler.takeBack.selector,
            handler.collect.selector,
            handler.wait.selector,
            handler.steal.selector
        ];
        targets = new FuzzSelector[](1);
        targets[0] = FuzzSelector(address(handler), new bytes4[](deeds.length));
        for (uint256 i = 0; i < deeds.length; ++i) {
            targets[0].selectors[i] = deeds[i];
        }
    }

    function invariant_All() external view {
        _courtHoldsBalancesPlusBonds();
        _ledgerHoldsBalancesBudgetsAndBonds();
        _stakesAreWhatCameInLessWhatWentOut();
        _noReceiptIsPaidTwice();
        _noPayerPaysMoreThanTheWork();
        vm.assertEq(handler.numStolen(), 0);
    }

    function _courtHoldsBalancesPlusBonds() internal view {
        vm.assertEq(handler.courtSurplus(), handler.openBonds());
    }

    function _ledgerHoldsBalancesBudgetsAndBonds() internal view {
        vm.assertEq(token.balanceOf(ledger), handler.ledgerOwes());
    }

    function _stakesAreWhatCameInLessWhatWentOut() internal view {
        uint256 staked = handler.deposited() - handler.withdrawn() - handler.slashed();
        vm.assertEq(nodes.totalStaked(), staked);
        vm.assertEq(token.balanceOf(address(nodes)), staked);
    }

    function _noReceiptIsPaidTwice() internal view {
        for (uint256 i = 0; i < handler.numJobs(); ++i) {
            (,,,, bytes32 receipt,,) = handler.jobs(i);
            vm.assertLe(handler.timesPaid(receipt), 1);
        }
    }

    function _noPayerPaysMoreThanTheWork() internal view {
        for (uint256 i = 0; i < handler.numJobs(); ++i) {
            (,, uint96 cost,,,,) = handler.jobs(i);
            vm.assertLe(handler.sessionOf(i).settled, cost);
        }
    }
}
