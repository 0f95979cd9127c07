// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IInferenceLedger} from "../../src/interfaces/IInferenceLedger.sol";
import {InferenceRequest} from "../../src/libraries/Messages.sol";
import {Base} from "../helpers/Base.sol";

contract SettleTest is Base {
    uint96 internal constant BUDGET = 100e18;
    uint128 internal constant COST = 10e18;
    bytes32 internal id;

    function setUp() public override {
        super.setUp();
        _registerGateway();
        id = _open(BUDGET);
    }

    // What it does

    function test_DebitsThePayerPaysTheNodesAndKeepsTheFee() public {
        uint256[] memory payouts = new uint256[](2);
        payouts[0] = _payout(address(0x11), 6e18);
        payouts[1] = _payout(address(0x22), 3.5e18);
        IInferenceLedger.Batch memory batch = _batch(_one(_claim(id, 0, COST, 0, 0)), payouts);
        bytes memory debits = abi.encode(uint256(1) << 96 | COST);

        vm.expectEmit();
        emit IInferenceLedger.BatchSettled(_hashOf(batch), gateway, debits, payouts, batch.header);
        vm.prank(gatewaySigner);
        bytes32 hash = ledger.settle(batch);

        vm.assertEq(hash, _hashOf(batch));
        vm.assertEq(ledger.balanceOf(address(0x11)), 6e18);
        vm.assertEq(ledger.balanceOf(address(0x22)), 3.5e18);
        vm.assertEq(_fees(), 0.5e18);
        vm.assertEq(_session(id).settled, COST);
        (bytes28 anchored, uint32 settledAt) = ledger.anchor(gateway, batch.slot);
        vm.assertEq(bytes32(anchored), bytes32(bytes28(hash)));
        vm.assertEq(settledAt, block.timestamp);
    }

    function test_FeesGoToTheBalanceWhenCollected() public {
        _settle(_one(_claim(id, 0, COST, 0, 0)), _one(_payout(worker, 9.5e18)));
        vm.expectEmit();
        emit IInferenceLedger.FeesCollected(gateway, 0.5e18);
        vm.prank(stranger);
        ledger.collectFees(gateway);
        vm.assertEq(ledger.balanceOf(gateway), 0.5e18);
        vm.assertEq(_fees(), 0);
        vm.expectRevert(IInferenceLedger.InferenceLedgerZeroAmount.selector);
        ledger.collectFees(gateway);
    }

    function test_TheOperatorSettlesToo() public {
        IInferenceLedger.Claim[] memory claims = _one(_claim(id, 0, COST, 0, 0));
        IInferenceLedger.Batch memory batch = _batch(claims, _one(_payout(worker, COST)));
        vm.prank(gateway);
        ledger.settle(batch);
        vm.assertEq(ledger.balanceOf(worker), COST);
    }

    function test_EarningsCanOpenASessionAtOnce() public {
        _settle(_one(_claim(id, 0, COST, 0, 0)), _one(_payout(worker, COST)));
        vm.prank(worker);
        bytes32 opened = ledger.openSession(gateway, sessionKey, uint96(COST), HOUR);
        vm.assertEq(_session(opened).budget, COST);
    }

    function test_SeveralClaimsOfASessionAddUp() public {
        IInferenceLedger.Claim[] memory claims = _two(_claim(id, 3, 2e18, 1, 1e18), _claim(id, 9, 4e18, 2, 1.5e18));
        IInferenceLedger.Batch memory batch = _batch(claims, _one(_payout(worker, 7.5e18)));
        bytes memory debits = abi.encode(uint256(1) << 96 | 7.5e18);
        vm.expectEmit();
        emit IInferenceLedger.BatchSettled(_hashOf(batch), gateway, debits, batch.payouts, batch.header);
        vm.prank(gatewaySigner);
        ledger.settle(batch);
        vm.assertEq(_session(id).settled, 7.5e18);
    }

    function test_AcknowledgedTotalsCarryOn() public {
        _settle(_two(_claim(id, 0, 2e18, 0, 0), _claim(id, 1, 3e18, 0, 0)), _one(_payout(worker, 5e18)));
        // The next request acknowledges both; only what is new is debited.
        _settle(_one(_claim(id, 2, 4e18, 2, 5e18)), _one(_payout(worker, 4e18)));
        vm.assertEq(_session(id).settled, 9e18);
        vm.assertEq(ledger.balanceOf(worker), 9e18);
    }

    function test_AnAcknowledgementAloneIsAClaim() public {
        IInferenceLedger.Claim memory newest = _claim(SESSION_KEY, _request(id, 5, COST, 5, 8e18), 0);
        _settle(_one(newest), _one(_payout(worker, 8e18)));
        vm.assertEq(_session(id).settled, 8e18);
    }

    function test_SeveralSessionsInOneBatch() public {
        bytes32 other = _open(BUDGET);
        IInferenceLedger.Claim[] memory claims = new IInferenceLedger.Claim[](3);
        claims[0] = _claim(id, 0, 1e18, 0, 0);
        claims[1] = _claim(id, 1, 2e18, 0, 0);
        claims[2] = _claim(other, 0, 4e18, 0, 0);
        _settle(claims, _one(_payout(worker, 7e18)));
        vm.assertEq(_session(id).settled, 3e18);
        vm.assertEq(_session(other).settled, 4e18);
    }

    function test_SeveralClaimsOfASessionMayFollowAnotherSession() public {
        bytes32 other = _open(BUDGET);
        IInferenceLedger.Claim[] memory claims = new IInferenceLedger.Claim[](3);
        claims[0] = _claim(other, 5, 4e18, 0, 0);
        claims[1] = _claim(id, 0, 1e18, 0, 0);
        claims[2] = _claim(id, 1, 2e18, 0, 0);
        _settle(claims, _one(_payout(worker, 7e18)));
        vm.assertEq(_session(id).settled, 3e18);
        vm.assertEq(_session(other).settled, 4e18);
    }

    function test_SettlesDuringTheThawAndAfterTheEnd() public {
        vm.prank(payer);
        ledger.closeSession(_terms(id));
        vm.warp(block.timestamp + SESSION_THAW + 1 days);
        _settle(_one(_claim(id, 0, COST, 0, 0)), _one(_payout(worker, COST)));
        ledger.finalizeClose(_terms(id));
        vm.assertEq(ledger.balanceOf(payer), BUDGET - COST);
    }

    function test_RevertWhen_TheSessionIsClosedForGood() public {
        IInferenceLedger.Claim[] memory claims = _one(_claim(id, 0, COST, 0, 0));
        vm.warp(block.timestamp + HOUR + SESSION_THAW);
        ledger.finalizeClose(_terms(id));
        _expect(_noSuchSession(id));
        _settle(claims, _one(_payout(worker, COST)));
    }

    // Nobody is charged twice, or more than he signed for

    function test_AReplayPaysNothing() public {
        IInferenceLedger.Claim[] memory claims = _one(_claim(id, 0, COST, 0, 0));
        _settle(claims, _one(_payout(worker, COST)));
        _expect(abi.encodeWithSelector(IInferenceLedger.InferenceLedgerPayoutsExceedDebits.selector, COST, 0));
        _settle(claims, _one(_payout(worker, COST)));
    }

    function test_ASessionListedTwiceInABatchPaysOnce() public {
        bytes32 other = _open(BUDGET);
        IInferenceLedger.Claim[] memory claims = new IInferenceLedger.Claim[](3);
        claims[0] = _claim(id, 0, COST, 0, 0);
        claims[1] = _claim(other, 0, COST, 0, 0);
        claims[2] = claims[0];
        _settle(claims, _one(_payout(worker, 2 * COST)));
        vm.assertEq(_session(id).settled, COST);
    }

    function test_RevertWhen_OlderClaimsFallBelowWhatIsSettled() public {
        IInferenceLedger.Claim[] memory older = _one(_claim(id, 0, 1e18, 0, 0));
        _settle(_two(older[0], _claim(id, 1, COST, 0, 0)), _one(_payout(worker, 11e18)));
        _expect(abi.encodeWithSelector(IInferenceLedger.InferenceLedgerBelowSettled.selector, id, 1e18, 11e18));
        _settle(older, _one(_payout(worker, 1)));
    }

    function test_RevertWhen_CostIsAboveTheCap() public {
        IInferenceLedger.Claim memory claim = _claim(SESSION_KEY, _request(id, 4, COST, 0, 0), COST + 1);
        _expect(abi.encodeWithSelector(IInferenceLedger.InferenceLedgerCostAboveCap.selector, id, 4, COST + 1, COST));
        _settle(_one(claim), _one(_payout(worker, COST + 1)));
    }

    function test_RevertWhen_TheBudgetIsExceeded(uint128 spent, uint128 cost) public {
        vm.assume(uint256(spent) + cost > BUDGET);
        IInferenceLedger.Claim memory claim = _claim(id, 4, cost, 4, spent);
        _expect(
            abi.encodeWithSelector(
                IInferenceLedger.InferenceLedgerBudgetExceeded.selector, id, uint256(spent) + cost, BUDGET
            )
        );
        _settle(_one(claim), _one(_payout(worker, 1)));
    }

    function test_RevertWhen_TheBudgetIsExceededByOne() public {
        IInferenceLedger.Claim[] memory claims = _one(_claim(id, 0, BUDGET + 1, 0, 0));
        _expect(abi.encodeWithSelector(IInferenceLedger.InferenceLedgerBudgetExceeded.selector, id, BUDGET + 1, BUDGET));
        _settle(claims, _one(_payout(worker, BUDGET + 1)));
    }

    function test_TheWholeBudgetCanBeSpent() public {
        _settle(_one(_claim(id, 0, BUDGET, 0, 0)), _one(_payout(worker, BUDGET)));
        vm.assertEq(_session(id).settled, BUDGET);
    }

    function test_RevertWhen_NoncesDoNotRise() public {
        IInferenceLedger.Claim memory seventh = _claim(id, 7, COST, 0, 0);
        bytes memory error_ = abi.encodeWithSelector(IInferenceLedger.InferenceLedgerNonceNotRising.selector, id, 7);
        _expect(error_);
        _settle(_two(seventh, seventh), _one(_payout(worker, COST)));
        IInferenceLedger.Claim memory eighth = _claim(id, 8, COST, 0, 0);
        _expect(error_);
        _settle(_two(eighth, seventh), _one(_payout(worker, COST)));
    }

    function test_RevertWhen_AnAcknowledgedRequestIsListed() public {
        IInferenceLedger.Claim[] memory claims = _two(_claim(id, 1, COST, 0, 0), _claim(id, 2, COST, 2, COST));
        _expect(abi.encodeWithSelector(IInferenceLedger.InferenceLedgerAlreadyAcknowledged.selector, id, 1, 2));
        _settle(claims, _one(_payout(worker, COST)));
    }

    function test_RevertWhen_ARequestAcknowledgesItself() public {
        IInferenceLedger.Claim[] memory claims = _one(_claim(id, 2, COST, 3, COST));
        _expect(abi.encodeWithSelector(IInferenceLedger.InferenceLedgerAlreadyAcknowledged.selector, id, 2, 3));
        _settle(claims, _one(_payout(worker, COST)));
    }

    // Signatures

    function test_RevertWhen_SignedByAnother() public {
        IInferenceLedger.Claim memory claim = _claim(PAYER_KEY, _request(id, 0, COST, 0, 0), COST);
        _expect(_noSuchSession(id));
        _settle(_one(claim), _one(_payout(worker, COST)));
        // The session's key signed the first one; that does not vouch for the second.
        IInferenceLedger.Claim[] memory claims =
            _two(_claim(id, 0, COST, 0, 0), _claim(PAYER_KEY, _request(id, 1, COST, 0, 0), COST));
        _expect(_invalidSignature(1));
        _settle(claims, _one(_payout(worker, COST)));
    }

    /// @dev What recovering the first one left in memory does not sign for the second one.
    function test_RevertWhen_ASignatureThatIsNoneFollowsAGoodOne() public {
        IInferenceLedger.Claim[] memory claims = _two(_claim(id, 0, COST, 0, 0), _claim(id, 1, COST, 0, 0));
        (claims[1].r, claims[1].vs) = (0, 0);
        _expect(_invalidSignature(1));
        _settle(claims, _one(_payout(worker, 2 * COST)));
    }

    function test_RevertWhen_AnyFieldWasChanged(uint8 field) public {
        IInferenceLedger.Claim memory claim = _claim(SESSION_KEY, _request(id, 1, COST, 1, 1), 1);
        bytes32 other = _open(BUDGET);
        field = uint8(_bound(field, 0, 5));
        if (field == 0) claim.session = other;
        if (field == 1) claim.counts += 1 << 192; // nonce
        if (field == 2) claim.work = 0;
        if (field == 3) claim.amounts += 1 << 128; // maxCost
        if (field == 4) claim.counts -= 1 << 128; // ackedBelow
        if (field == 5) claim.amounts += 1; // spent
        _expect(_noSuchSession(claim.session));
        _settle(_one(claim), _one(_payout(worker, 1)));
    }

    function test_RevertWhen_SignedForAnotherChain() public {
        IInferenceLedger.Claim[] memory claims = _one(_claim(id, 0, COST, 0, 0));
        vm.chainId(block.chainid + 1);
        _expect(_noSuchSession(id));
        _settle(claims, _one(_payout(worker, COST)));
    }

    function test_RevertWhen_TheSignatureIsMalleableOrEmpty() public {
        IInferenceLedger.Claim memory claim = _claim(id, 0, COST, 0, 0);
        uint256 order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141;
        bytes32 lowS = claim.vs & bytes32(uint256(type(int256).max));
        // The twin (n - s, other parity) does not fit the compact form; what is left of it is another signature.
        claim.vs = bytes32(order - uint256(lowS));
        _expect(_noSuchSession(id));
        _settle(_one(claim), _one(_payout(worker, COST)));
        (claim.r, claim.vs) = (0, 0);
        _expect(_noSuchSession(id));
        _settle(_one(claim), _one(_payout(worker, COST)));
    }

    // Who may settle

    function test_RevertWhen_NeitherOperatorNorSettler() public {
        IInferenceLedger.Batch memory batch = _batch(_one(_claim(id, 0, COST, 0, 0)), _one(_payout(worker, COST)));
        bytes4 selector = IInferenceLedger.InferenceLedgerNotAuthorized.selector;
        vm.expectRevert(abi.encodeWithSelector(selector, gateway, stranger));
        vm.prank(stranger);
        ledger.settle(batch);
        vm.expectEmit();
        emit IInferenceLedger.SettlerSet(gateway, stranger);
        vm.prank(gateway);
        ledger.setSettler(stranger);
        vm.expectRevert(abi.encodeWithSelector(selector, gateway, gatewaySigner));
        vm.prank(gatewaySigner);
        ledger.settle(batch);
        vm.prank(stranger);
        ledger.settle(batch);
        vm.assertEq(ledger.balanceOf(worker), COST);
    }

    function test_AGatewayWithoutStakeStillSettlesWhatItServed() public {
        vm.prank(gateway);
        nodes.deregister();
        _settle(_one(_claim(id, 0, COST, 0, 0)), _one(_payout(worker, COST)));
        vm.assertEq(ledger.balanceOf(worker), COST);
    }

    function test_RevertWhen_AnotherGatewaySettles() public {
        IInferenceLedger.Batch memory batch = _batch(_one(_claim(id, 0, COST, 0, 0)), _one(_payout(worker, COST)));
        batch.gateway = stranger;
        _expect(_noSuchSession(id));
        vm.prank(stranger);
        ledger.settle(batch);
    }

    // Slots

    function test_ASlotIsFreeAgainAfterTheRetention() public {
        IInferenceLedger.Batch memory batch = _batch(_one(_claim(id, 0, COST, 0, 0)), _one(_payout(worker, COST)));
        vm.prank(gatewaySigner);
        ledger.settle(batch);
        uint256 freeAt = block.timestamp + RETENTION;
        nextSlot = batch.slot;
        IInferenceLedger.Batch memory next = _batch(_one(_claim(id, 1, COST, 1, COST)), _one(_payout(worker, COST)));
        vm.warp(freeAt - 1);
        _expect(abi.encodeWithSelector(IInferenceLedger.InferenceLedgerSlotBusy.selector, gateway, batch.slot, freeAt));
        vm.prank(gatewaySigner);
        ledger.settle(next);
        vm.warp(freeAt);
        vm.prank(gatewaySigner);
        ledger.settle(next);
        (bytes28 anchored,) = ledger.anchor(gateway, batch.slot);
        vm.assertEq(bytes32(anchored), bytes32(bytes28(_hashOf(next))));
        vm.warp(freeAt + RETENTION + 1);
        nextSlot = batch.slot;
        _settle(_one(_claim(id, 2, COST, 2, 2 * COST)), _one(_payout(worker, COST)));
        vm.assertEq(_session(id).settled, 3 * COST);
    }

    // Faults

    function test_AFaultCountsUpToWhatTheBatchPays() public {
        IInferenceLedger.Batch memory batch = _batch(_one(_claim(id, 0, COST, 0, 0)), _one(_payout(worker, COST)));
        batch.faults = new IInferenceLedger.Fault[](1);
        batch.faults[0] = IInferenceLedger.Fault(worker, 3 * uint96(COST));
        vm.expectEmit();
        emit IInferenceLedger.NodeFaulted(worker, gateway, 3 * uint96(COST));
        vm.prank(gatewaySigner);
        ledger.settle(batch);
        (, uint96 earned, uint96 faulted) = ledger.pendingWork(worker);
        vm.assertEq(earned, COST);
        vm.assertEq(faulted, COST);
    }

    function test_FaultsFindTheirPayoutsInTheirOrder() public {
        IInferenceLedger.Batch memory batch = _batch(_one(_claim(id, 0, 6e18, 0, 0)), new uint256[](3));
        for (uint160 i = 0; i < 3; ++i) {
            batch.payouts[i] = _payout(address(0x11 + i), 1e18 * (i + 1));
        }
        batch.faults = new IInferenceLedger.Fault[](2);
        batch.faults[0] = IInferenceLedger.Fault(address(0x12), 0.5e18);
        batch.faults[1] = IInferenceLedger.Fault(address(0x13), 9e18);
        vm.prank(gatewaySigner);
        ledger.settle(batch);
        vm.assertEq(_faulted(address(0x11)), 0);
        vm.assertEq(_faulted(address(0x12)), 0.5e18);
        vm.assertEq(_faulted(address(0x13)), 3e18);
    }

    function test_RevertWhen_FaultsAreOutOfOrder() public {
        uint256[] memory payouts = new uint256[](2);
        (payouts[0], payouts[1]) = (_payout(address(0x11), 1e18), _payout(address(0x12), 1e18));
        IInferenceLedger.Batch memory batch = _batch(_one(_claim(id, 0, 2e18, 0, 0)), payouts);
        batch.faults = new IInferenceLedger.Fault[](2);
        batch.faults[0] = IInferenceLedger.Fault(address(0x12), 1);
        batch.faults[1] = IInferenceLedger.Fault(address(0x11), 1);
        _expect(abi.encodeWithSelector(IInferenceLedger.InferenceLedgerFaultWithoutPayout.selector, address(0x11)));
        vm.prank(gatewaySigner);
        ledger.settle(batch);
    }

    function test_RevertWhen_AFaultHasNoPayout() public {
        IInferenceLedger.Batch memory batch = _batch(_one(_claim(id, 0, COST, 0, 0)), _one(_payout(worker, COST)));
        batch.faults = new IInferenceLedger.Fault[](2);
        batch.faults[0] = IInferenceLedger.Fault(worker, 1);
        batch.faults[1] = IInferenceLedger.Fault(worker, 1);
        _expect(abi.encodeWithSelector(IInferenceLedger.InferenceLedgerFaultWithoutPayout.selector, worker));
        vm.prank(gatewaySigner);
        ledger.settle(batch);
    }

    // Earnings

    function test_EarningsAreCountedOverTwoEpochs() public {
        _settle(_one(_claim(id, 0, COST, 0, 0)), _one(_payout(worker, COST)));
        vm.assertEq(ledger.lockedEarnings(worker), COST);
        vm.warp(vm.getBlockTimestamp() + EPOCH);
        vm.assertEq(ledger.lockedEarnings(worker), COST);
        _settle(_one(_claim(id, 1, 1, 1, COST)), _one(_payout(worker, 1)));
        vm.assertEq(ledger.lockedEarnings(worker), COST + 1e12, "rounded up to a millionth of a credit");
        vm.warp(vm.getBlockTimestamp() + EPOCH);
        vm.assertEq(ledger.lockedEarnings(worker), 1e12);
        vm.warp(vm.getBlockTimestamp() + EPOCH);
        vm.assertEq(ledger.lockedEarnings(worker), 0);
    }

    function test_PaymentsOfOneEpochAddUp() public {
        vm.warp(vm.getBlockTimestamp() + 3 * EPOCH);
        _settle(_one(_claim(id, 0, 1e18, 0, 0)), _one(_payout(worker, 1e18)));
        _settle(_one(_claim(id, 1, 2e18, 1, 1e18)), _one(_payout(worker, 2e18)));
        vm.assertEq(ledger.lockedEarnings(worker), 3e18);
        (uint16 epoch, uint96 earned,) = ledger.pendingWork(worker);
        vm.assertEq(epoch, 3);
        vm.assertEq(earned, 3e18);
    }

    function test_TheFirstEpochFollowsTheLastOne() public {
        vm.warp(vm.getBlockTimestamp() + 65_535 * uint256(EPOCH));
        _settle(_one(_claim(id, 0, 1e18, 0, 0)), _one(_payout(worker, 1e18)));
        vm.warp(vm.getBlockTimestamp() + EPOCH);
        _settle(_one(_claim(id, 1, 2e18, 1, 1e18)), _one(_payout(worker, 2e18)));
        (uint16 epoch, uint96 earned,) = ledger.pendingWork(worker);
        vm.assertEq(epoch, 0);
        vm.assertEq(earned, 2e18);
    }

    /// @dev An account that earned nothing yet has no work to report, least of all of an epoch before the loss.
    function test_AFirstPaymentKeepsALoss() public {
        _registerWorker();
        vm.warp(vm.getBlockTimestamp() + 2 * EPOCH);
        vm.prank(address(court));
        nodes.recordLoss(worker, 100e18);
        vm.assertEq(nodes.reputation(worker), 0.25e18);
        _settle(_one(_claim(id, 0, 1e18, 0, 0)), _one(_payout(worker, 1e18)));
        vm.assertLe(nodes.reputation(worker), 0.26e18);
    }

    function test_AnEpochsWorkReachesTheReputationOnce() public {
        _registerWorker();
        _settle(_one(_claim(id, 0, COST, 0, 0)), _one(_payout(worker, COST)));
        uint256 pending = nodes.reputation(worker);
        vm.assertTrue(pending > 0.5e18);
        vm.warp(vm.getBlockTimestamp() + EPOCH);
        _settle(_one(_claim(id, 1, 1, 1, COST)), _one(_payout(worker, 1)));
        vm.assertLe(nodes.reputation(worker) - pending, 1e13, "only the new payout was added");
    }

    // Payouts

    function test_TheFeeIsBounded(uint128 paid) public {
        paid = uint128(_bound(paid, 1, COST));
        uint256 fee = COST - paid;
        uint256 maximum = uint256(paid) * MAX_FEE_BPS / 10_000;
        IInferenceLedger.Claim[] memory claims = _one(_claim(id, 0, COST, 0, 0));
        bool tooHigh = fee > maximum;
        if (tooHigh) {
            _expect(abi.encodeWithSelector(IInferenceLedger.InferenceLedgerFeeTooHigh.selector, fee, maximum));
        }
        _settle(claims, _one(_payout(worker, paid)));
        vm.assertEq(_fees(), tooHigh ? 0 : fee);
    }

    function test_RevertWhen_TheFeeIsTooHighByOne() public {
        uint128 maximum = COST * MAX_FEE_BPS / 10_000;
        IInferenceLedger.Claim[] memory claims = _one(_claim(id, 0, COST + maximum + 1, 0, 0));
        _expect(abi.encodeWithSelector(IInferenceLedger.InferenceLedgerFeeTooHigh.selector, maximum + 1, maximum));
        _settle(claims, _one(_payout(worker, COST)));
        _settle(claims, _one(_payout(worker, COST + 1)));
    }

    function test_RevertWhen_PayoutsExceedDebits(uint128 extra) public {
        extra = uint128(_bound(extra, 1, type(uint96).max - COST));
        IInferenceLedger.Claim[] memory claims = _one(_claim(id, 0, COST, 0, 0));
        _expect(
            abi.encodeWithSelector(
                IInferenceLedger.InferenceLedgerPayoutsExceedDebits.selector, uint256(COST) + extra, COST
            )
        );
        _settle(claims, _one(_payout(worker, COST + extra)));
    }

    function test_RevertWhen_DebitsHaveNoPayouts() public {
        IInferenceLedger.Claim[] memory claims = _one(_claim(id, 0, COST, 0, 0));
        _expect(abi.encodeWithSelector(IInferenceLedger.InferenceLedgerFeeTooHigh.selector, COST, 0));
        _settle(claims, new uint256[](0));
    }

    function test_RevertWhen_HugePayoutsWouldWrapAround() public {
        uint256[] memory payouts = new uint256[](3);
        for (uint256 i = 0; i < 3; ++i) {
            payouts[i] = _payout(worker, type(uint96).max);
        }
        uint256 paid = 3 * uint256(type(uint96).max);
        _expect(abi.encodeWithSelector(IInferenceLedger.InferenceLedgerPayoutsExceedDebits.selector, paid, 0));
        _settle(new IInferenceLedger.Claim[](0), payouts);
    }

    function test_ABatchOfNothingMovesNothing() public {
        _settle(new IInferenceLedger.Claim[](0), new uint256[](0));
        vm.assertEq(_fees(), 0);
    }

    function test_GatewaysHaveSlotsOfTheirOwn() public {
        _register(stranger, stranger, GATEWAY, MIN_GATEWAY);
        _deposit(payer, BUDGET);
        vm.prank(payer);
        bytes32 strangers = ledger.openSession(stranger, sessionKey, BUDGET, HOUR);
        IInferenceLedger.Batch memory batch =
            _batch(_one(_claim(strangers, 0, COST, 0, 0)), _one(_payout(worker, COST)));
        batch.gateway = stranger;
        vm.prank(stranger);
        ledger.settle(batch);
        nextSlot = batch.slot;
        _settle(_one(_claim(id, 0, COST, 0, 0)), _one(_payout(worker, COST)));
        vm.assertEq(ledger.balanceOf(worker), 2 * COST);
    }

    // Whatever is claimed, money is conserved

    function test_MoneyIsConserved(uint96[4] memory costs, uint96 acked, uint16 feeBps, uint8 numNodes) public {
        uint256 total = _bound(acked, 0, BUDGET / 5);
        IInferenceLedger.Claim[] memory claims = new IInferenceLedger.Claim[](costs.length);
        uint128 spent = uint128(total);
        for (uint64 i = 0; i < costs.length; ++i) {
            uint128 cost = uint128(_bound(costs[i], 0, BUDGET / 5));
            total += cost;
            claims[i] = _claim(id, 10 + i, cost, 10, spent);
        }
        feeBps = uint16(_bound(feeBps, 0, MAX_FEE_BPS));
        uint256 paid = (total * 10_000 + 9_999 + feeBps) / (10_000 + uint256(feeBps));
        if (paid > total) paid = total;
        uint256[] memory payouts = new uint256[](_bound(numNodes, 1, 5));
        uint256 left = paid;
        for (uint160 i = 0; i < payouts.length; ++i) {
            uint256 amount = i == payouts.length - 1 ? left : left / 2;
            payouts[i] = _payout(address(0x100 + i), uint128(amount));
            left -= amount;
        }
        _settle(claims, payouts);
        uint256 sum = _fees();
        for (uint160 i = 0; i < payouts.length; ++i) {
            sum += ledger.balanceOf(address(0x100 + i));
        }
        vm.assertEq(sum, total);
        vm.assertEq(_session(id).settled, total);
        vm.assertEq(token.balanceOf(address(ledger)), sum + BUDGET - total);
    }

    function _faulted(address node) internal view returns (uint96 faulted) {
        (,, faulted) = ledger.pendingWork(node);
    }

    function _noSuchSession(bytes32 session) internal pure returns (bytes memory) {
        return abi.encodeWithSelector(IInferenceLedger.InferenceLedgerNoSuchSession.selector, session);
    }

    function _invalidSignature(uint64 nonce) internal view returns (bytes memory) {
        return abi.encodeWithSelector(IInferenceLedger.InferenceLedgerInvalidSignature.selector, id, nonce);
    }

    function _expect(bytes memory error_) internal {
        vm.expectRevert(error_);
    }
}
