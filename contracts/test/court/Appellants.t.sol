// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Disputed} from "../helpers/Disputed.sol";

/// @notice Who put up a bond for one round is a party in all that follow.
contract AppellantsTest is Disputed {
    /// @dev So few that the last jury takes all of them.
    function _numAuditors() internal pure override returns (uint256) {
        return 13;
    }

    function test_WhoAppealedJudgesInNoLaterRound() public {
        address appellant = auditors[0];
        bytes32 dispute = _trial();
        _voteAll(dispute, CLEAR);
        vm.prank(appellant);
        court.appeal(dispute);
        _draw(dispute);
        _voteAll(dispute, CLEAR);
        vm.prank(stranger);
        court.appeal(dispute);
        _draw(dispute);
        address[] memory jurors = _jurors(dispute);
        vm.assertEq(jurors.length, 12);
        for (uint256 i = 0; i < jurors.length; ++i) {
            vm.assertTrue(jurors[i] != appellant);
        }
    }
}
