// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {NodeRegistry} from "../../src/NodeRegistry.sol";
import {INodeRegistry} from "../../src/interfaces/INodeRegistry.sol";
import {Base} from "../helpers/Base.sol";

contract ReputationTest is Base {
    uint256 internal constant NEWCOMER = 0.5e18;
    uint16 internal epoch;

    function setUp() public override {
        super.setUp();
        _register(worker, workerSigner, WORKER, 10_000e18);
    }

    /// @dev The ledger reports an epoch's work.
    function _did(uint96 earned, uint96 faulted) internal {
        vm.warp(vm.getBlockTimestamp() + EPOCH);
        vm.prank(address(ledger));
        nodes.recordWork(worker, epoch++, earned, faulted);
    }

    function test_ANewcomerStandsInTheMiddle() public view {
        vm.assertEq(nodes.reputation(worker), NEWCOMER);
        vm.assertEq(nodes.reputation(stranger), NEWCOMER);
    }

    function test_GoodWorkRaisesBadWorkLowers() public {
        vm.expectEmit();
        emit INodeRegistry.ReputationChanged(worker, 0.75e18, 0);
        _did(100e18, 0);
        vm.assertEq(nodes.reputation(worker), 0.75e18, "half way after work worth the half weight");
        _did(100e18, 100e18);
        // (0.75 * 100 + 1 * 100) / 300
        vm.assertEq(nodes.reputation(worker), 583333333333333333);
    }

    function test_FaultsWeighNoMoreThanTheWork() public {
        _did(100e18, 200e18);
        vm.assertEq(nodes.reputation(worker), 0.5e18, "(0.5 * 100 + 1 * 100) / 300");
    }

    function test_EveryBaseUnitCounts() public {
        INodeRegistry.Parameters memory p = _registryParameters();
        (p.halfWeight, p.minWorkerStake) = (2, 20);
        NodeRegistry registry = new NodeRegistry(token, address(ledger), address(court), p);
        vm.startPrank(worker);
        token.approve(address(registry), 29);
        registry.register(_params(workerSigner, WORKER), 29);
        vm.stopPrank();
        vm.prank(address(ledger));
        registry.recordWork(worker, 0, 1, 1);
        vm.assertEq(registry.reputation(worker), 0.5e18, "(0.5 * 2 + 1) / 4");
        vm.prank(address(ledger));
        registry.recordWork(worker, 0, 9, 0);
        vm.assertEq(registry.reputation(worker), 0.75e18, "29 of stake back 2 of work: (0.5 * 2 + 2) / 4");
        vm.prank(address(court));
        registry.recordLoss(worker, 1);
        vm.assertEq(registry.reputation(worker), 0.5e18, "0.75 * 2 / 3");
    }

    function test_TheScoreStaysInItsBounds(uint96[6] memory earned, uint96[6] memory faulted, uint96 loss) public {
        for (uint256 i = 0; i < earned.length; ++i) {
            _did(earned[i], faulted[i]);
            vm.assertLe(nodes.reputation(worker), 1e18);
        }
        uint256 before = nodes.reputation(worker);
        vm.prank(address(court));
        nodes.recordLoss(worker, loss);
        vm.assertLe(nodes.reputation(worker), before);
    }

    function test_MoreFaultsNeverHelp(uint96 earned, uint96 fewer, uint96 more) public {
        (fewer, more) = fewer < more ? (fewer, more) : (more, fewer);
        uint256 snapshot = vm.snapshotState();
        _did(earned, fewer);
        uint256 better = nodes.reputation(worker);
        vm.revertToState(snapshot);
        epoch = 0;
        _did(earned, more);
        vm.assertLe(nodes.reputation(worker), better);
    }

    function test_ThousandDustJobsBuyNoTrust() public {
        _registerGateway();
        bytes32 id = _open(100e18);
        for (uint64 i = 0; i < 1_000; ++i) {
            _settle(_one(_claim(id, i, 1, i, i)), _one(_payout(worker, 1)));
        }
        // Each is rounded up to a millionth of a credit: a thousandth of one in all.
        vm.assertLe(nodes.reputation(worker) - NEWCOMER, 1e13);
    }

    function test_PayingOneselfBuysNoMoreThanTheStakeBacks() public {
        _did(type(uint96).max, 0);
        // 10,000 of stake back 1,000 of work: (0.5 * 100 + 1,000) / 1,100
        vm.assertEq(nodes.reputation(worker), 954545454545454545);
        vm.prank(worker);
        nodes.beginUnstake(10_000e18);
        uint256 before = nodes.reputation(worker);
        _did(type(uint96).max, 0);
        vm.assertLe(nodes.reputation(worker), before, "without stake, nothing");
    }

    function test_IdlenessLeadsBackToTheMiddle() public {
        _did(100e18, 0);
        vm.warp(vm.getBlockTimestamp() + 30 * uint256(EPOCH));
        vm.assertEq(nodes.reputation(worker), 0.625e18, "half of the distance after 30 epochs");
        vm.warp(vm.getBlockTimestamp() + 15 * uint256(EPOCH));
        vm.assertEq(nodes.reputation(worker), 0.59375e18, "a quarter less half way to the next halving");
        vm.warp(vm.getBlockTimestamp() + 10_000 * uint256(EPOCH));
        vm.assertEq(nodes.reputation(worker), NEWCOMER);
    }

    function test_ABadScoreFadesToo() public {
        vm.prank(address(court));
        nodes.recordLoss(worker, 100e18);
        vm.assertEq(nodes.reputation(worker), 0.25e18);
        vm.warp(vm.getBlockTimestamp() + 31 * uint256(EPOCH));
        vm.assertEq(nodes.reputation(worker), 0.375e18);
    }

    /// @notice Epochs begin again after 65,536: of two, the later is the one that fewer than half of them lead to.
    function test_AScoreIsOfTheLatestEpochOfItsWork() public {
        uint16[2][4] memory cases =
            [[uint16(40_000), 40_000], [uint16(40_001), 40_001], [uint16(7_234), 40_001], [uint16(7_233), 7_233]];
        for (uint256 i = 0; i < cases.length; ++i) {
            vm.expectEmit();
            emit INodeRegistry.ReputationChanged(worker, uint64(NEWCOMER), cases[i][1]);
            vm.prank(address(ledger));
            nodes.recordWork(worker, cases[i][0], 0, 0);
        }
    }

    function test_ALossCountsInALateEpoch() public {
        vm.warp(vm.getBlockTimestamp() + 40_000 * uint256(EPOCH));
        vm.prank(address(court));
        nodes.recordLoss(worker, 100e18);
        vm.assertEq(nodes.reputation(worker), 0.25e18);
    }

    function test_FirstEarningsInALateEpochKeepALoss() public {
        vm.warp(vm.getBlockTimestamp() + 40_000 * uint256(EPOCH));
        vm.prank(address(court));
        nodes.recordLoss(worker, 100e18);
        _registerGateway();
        _settle(_one(_claim(_open(1e18), 0, 1e18, 0, 0)), _one(_payout(worker, 1e18)));
        vm.assertEq(nodes.reputation(worker), 257425742574257425, "(0.25 * 100 + 1) / 101");
    }

    function test_ALossOutlivesTheWorkFromBeforeIt() public {
        _registerGateway();
        _settle(_one(_claim(_open(1e18), 0, 1e18, 0, 0)), _one(_payout(worker, 1e18)));
        // The work's epoch is over, but nothing has taken it into the score yet.
        vm.warp(vm.getBlockTimestamp() + 3 * uint256(EPOCH));
        vm.prank(address(court));
        nodes.recordLoss(worker, 900e18);
        vm.assertLe(nodes.reputation(worker), 0.06e18, "a tenth of the newcomer's, and one credit's work");
        _settle(_one(_claim(_open(1e18), 0, 1e18, 0, 0)), _one(_payout(worker, 1e18)));
        vm.assertLe(nodes.reputation(worker), 0.08e18, "the ledger's report does not wipe it out");
    }
}
