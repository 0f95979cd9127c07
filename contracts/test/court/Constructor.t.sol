// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {DisputeCourt} from "../../src/DisputeCourt.sol";
import {IComputeDisputes} from "../../src/interfaces/IComputeDisputes.sol";
import {IDisputeCourt} from "../../src/interfaces/IDisputeCourt.sol";
import {IInferenceLedger} from "../../src/interfaces/IInferenceLedger.sol";
import {IJury} from "../../src/interfaces/IJury.sol";
import {Base} from "../helpers/Base.sol";

/// @notice Every parameter of the court, at its bounds and just beyond them.
contract CourtConstructorTest is Base {
    IDisputeCourt.Parameters internal p = _courtParameters();
    IComputeDisputes.DisputeParameters internal d = _disputeParameters();
    IJury.Parameters internal j = _juryParameters();

    function test_KeepsItsParameters() public view {
        vm.assertEq(keccak256(abi.encode(court.parameters())), keccak256(abi.encode(p)));
        vm.assertEq(keccak256(abi.encode(court.disputeParameters())), keccak256(abi.encode(d)));
        vm.assertEq(keccak256(abi.encode(jury.parameters())), keccak256(abi.encode(j)));
        vm.assertEq(address(court.token()), address(token));
        vm.assertEq(address(court.nodes()), address(nodes));
        vm.assertEq(address(court.ledger()), address(ledger));
        vm.assertEq(court.treasury(), treasury);
        vm.assertEq(jury.court(), address(court));
        vm.assertEq(address(jury.nodes()), address(nodes));
    }

    function test_RevertWhen_AnAddressIsZero() public {
        // Nobody can be asked for the token and the nodes.
        vm.expectRevert();
        new DisputeCourt(IInferenceLedger(address(0)), treasury, p, d, j);
        vm.expectRevert(IDisputeCourt.DisputeCourtZeroAddress.selector);
        new DisputeCourt(ledger, address(0), p, d, j);
    }

    function test_ProofsHaveBounds() public {
        _bounds(0, "answerPeriod", 10 minutes, 2 days);
        _bounds(1, "challengePeriod", 10 minutes, RETENTION - 12 hours);
        // Nobody sheds a payout or a dispute by a change of keys.
        _bounds(2, "evidencePeriod", 2 days, STAKE_THAW);
        (p.challengePeriod, d.disputePeriod) = (1 days, 36 hours);
        _bounds(2, "evidencePeriod", 36 hours, STAKE_THAW);
        (p, d) = (_courtParameters(), _disputeParameters());
        _bounds(3, "jailPeriod", 1, 365 days);
        _bounds(4, "challengeBond", 1, 1_000e18);
        _bounds(5, "equivocationBps", 1, 10_000);
        _bounds(6, "rewardBps", 0, 5_000);
        _bounds(7, "fineBps", 10_000, 50_000);
    }

    function test_PeriodsHaveBounds() public {
        string[6] memory names =
            ["disputePeriod", "openingPeriod", "drawPeriod", "commitPeriod", "revealPeriod", "appealPeriod"];
        for (uint256 i = 0; i < 6; ++i) {
            _make(8 + i, 10 minutes);
            _refused(8 + i, 10 minutes - 1, names[i], 10 minutes, STAKE_THAW);
            _refused(8 + i, STAKE_THAW + 1, names[i], 10 minutes, STAKE_THAW);
        }
        // All of them together end before the stake of the first to leave has thawed: 7 hours, and 31 for each of three rounds.
        uint256 rest = 7 hours + 3 * 19 hours;
        uint256 longest = (STAKE_THAW - 1 - rest) / 3;
        _make(11, longest);
        _refusedAs(11, longest + 1, rest + 3 * (longest + 1), "all periods", 0, STAKE_THAW - 1);
    }

    function test_JuriesHaveBounds() public {
        _bounds(14, "drawDelay", 1, 32);
        _bounds(16, "minJury", 3, 5);
        _refused(15, 2, "jurySize", 3, 11);
        _refused(15, 12, "jurySize", 3, 11);
        _bounds(17, "maxRounds", 1, 3);
        _bounds(18, "warningShare", 1, 1e6);
        _bounds(19, "tolerance", 1, 5e5);
    }

    function test_StakesHaveBounds() public {
        // Half of a worker's stake pays (5 + 1) * (2^3 - 1) jurors.
        uint256 most = MIN_WORKER / 2;
        _refused(20, 0, "capBps", 1, 10_000);
        _refused(20, 10_001, "capBps", 1, 10_000);
        _refused(21, 0, "jurorFee", 1, most / 42);
        _refused(21, most / 42 + 1, "jurorFee", 1, most / 42);
        _bounds(22, "disputeBond", 42 * 0.5e18, most);
        _bounds(23, "jurorPenalty", 1e18, MIN_AUDITOR);
    }

    function _bounds(uint256 index, string memory name, uint256 minimum, uint256 maximum) internal {
        _make(index, minimum);
        _make(index, maximum);
        if (minimum != 0) _refused(index, minimum - 1, name, minimum, maximum);
        _refused(index, maximum + 1, name, minimum, maximum);
    }

    function _refused(uint256 index, uint256 value, string memory name, uint256 minimum, uint256 maximum) internal {
        _refusedAs(index, value, value, name, minimum, maximum);
    }

    function _refusedAs(
        uint256 index,
        uint256 value,
        uint256 shown,
        string memory name,
        uint256 minimum,
        uint256 maximum
    ) internal {
        bytes4 selector = IDisputeCourt.DisputeCourtParameterOutOfBounds.selector;
        vm.expectRevert(abi.encodeWithSelector(selector, name, shown, minimum, maximum));
        _make(index, value);
    }

    function _make(uint256 index, uint256 value) internal {
        IDisputeCourt.Parameters memory p_ = p;
        IComputeDisputes.DisputeParameters memory d_ = d;
        IJury.Parameters memory j_ = j;
        if (index == 0) p_.answerPeriod = uint48(value);
        if (index == 1) p_.challengePeriod = uint48(value);
        if (index == 2) p_.evidencePeriod = uint48(value);
        if (index == 3) p_.jailPeriod = uint48(value);
        if (index == 4) p_.challengeBond = uint96(value);
        if (index == 5) p_.equivocationBps = uint16(value);
        if (index == 6) p_.rewardBps = uint16(value);
        if (index == 7) p_.fineBps = uint16(value);
        if (index == 8) d_.disputePeriod = uint48(value);
        if (index == 9) d_.openingPeriod = uint48(value);
        if (index == 10) j_.drawPeriod = uint48(value);
        if (index == 11) j_.commitPeriod = uint48(value);
        if (index == 12) j_.revealPeriod = uint48(value);
        if (index == 13) j_.appealPeriod = uint48(value);
        if (index == 14) j_.drawDelay = uint16(value);
        if (index == 15) j_.jurySize = uint8(value);
        if (index == 16) j_.minJury = uint8(value);
        if (index == 17) j_.maxRounds = uint8(value);
        if (index == 18) j_.warningShare = uint32(value);
        if (index == 19) j_.tolerance = uint32(value);
        if (index == 20) d_.capBps = uint16(value);
        if (index == 21) d_.jurorFee = uint96(value);
        if (index == 22) d_.disputeBond = uint96(value);
        if (index == 23) d_.jurorPenalty = uint96(value);
        new DisputeCourt(ledger, treasury, p_, d_, j_);
    }
}
