// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IComputeDisputes} from "../../src/interfaces/IComputeDisputes.sol";
import {IJury} from "../../src/interfaces/IJury.sol";
import {Disputed} from "../helpers/Disputed.sol";
import {ReentrantToken} from "../helpers/Mocks.sol";

/// @notice The accused answers while the challenger's bond is on its way: a token that calls back must not freeze the dispute.
contract ReenteredTest is Disputed {
    function test_AnOpeningInTheMiddleOfTheDisputesOpening() public {
        // Balances lie where they lay; only the code changes.
        vm.etch(address(token), address(new ReentrantToken()).code);
        vm.prank(worker);
        nodes.setSigner(address(token));
        bytes32 dispute = keccak256(abi.encode(receipt.assignment, uint32(1), bytes32(0)));
        bytes memory answer = abi.encodeCall(court.publishOpening, (dispute, "bafkopening"));
        ReentrantToken(address(token)).arm(address(court), answer);
        _dispute(1);
        vm.assertEq(uint256(court.dispute(dispute).phase), uint256(IComputeDisputes.Phase.Trial));
        vm.assertEq(uint256(jury.caseOf(dispute).phase), uint256(IJury.Phase.Drawing));
        vm.warp(vm.getBlockTimestamp() + 1 hours);
        court.finalize(dispute);
        vm.assertEq(court.balanceOf(challenger), DISPUTE_BOND);
    }
}
