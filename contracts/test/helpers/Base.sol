// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {CreditToken} from "../../src/CreditToken.sol";
import {DisputeCourt} from "../../src/DisputeCourt.sol";
import {InferenceLedger} from "../../src/InferenceLedger.sol";
import {ModelRegistry} from "../../src/ModelRegistry.sol";
import {NodeRegistry} from "../../src/NodeRegistry.sol";
import {IComputeDisputes} from "../../src/interfaces/IComputeDisputes.sol";
import {IDisputeCourt} from "../../src/interfaces/IDisputeCourt.sol";
import {IInferenceLedger} from "../../src/interfaces/IInferenceLedger.sol";
import {IJury} from "../../src/interfaces/IJury.sol";
import {INodeRegistry} from "../../src/interfaces/INodeRegistry.sol";
import {InferenceRequest, Work} from "../../src/libraries/Messages.sol";
import {Packing} from "./Packing.sol";
import {Vm} from "./Vm.sol";

/// @notice The contracts deployed, people with funds, and short words for what tests do again and again.
abstract contract Base {
    Vm internal constant vm = Vm(address(uint160(uint256(keccak256("hevm cheat code")))));

    uint8 internal constant WORKER = 1;
    uint8 internal constant GATEWAY = 2;
    uint8 internal constant AUDITOR = 4;
    uint48 internal constant STAKE_THAW = 7 days;
    uint48 internal constant SESSION_THAW = 1 days;
    uint16 internal constant MAX_FEE_BPS = 1_000;
    uint16 internal constant LOCK_MULTIPLE = 10;
    uint48 internal constant EPOCH = 2 days;
    uint48 internal constant RETENTION = 4 days;
    uint96 internal constant BOND = 1e18;
    uint128 internal constant MIN_WORKER = 100e18;
    uint128 internal constant MIN_GATEWAY = 1_000e18;
    uint128 internal constant MIN_AUDITOR = 200e18;
    uint256 internal constant FUNDS = 1_000_000e18;
    uint32 internal constant HOUR = 1 hours;

    uint256 internal constant PAYER_KEY = 0xA11CE;
    uint256 internal constant SESSION_KEY = 0x5E55;
    uint256 internal constant GATEWAY_SIGNER_KEY = 0x6A7E;
    uint256 internal constant STRANGER_KEY = 0xBAD;

    address internal treasury = _person("treasury");
    address internal payer = vm.addr(PAYER_KEY);
    address internal sessionKey = vm.addr(SESSION_KEY);
    address internal gateway = _person("gateway");
    address internal gatewaySigner = vm.addr(GATEWAY_SIGNER_KEY);
    address internal worker = _person("worker");
    address internal workerSigner = _person("worker signer");
    address internal stranger = vm.addr(STRANGER_KEY);

    CreditToken internal token;
    NodeRegistry internal nodes;
    ModelRegistry internal models;
    InferenceLedger internal ledger;
    DisputeCourt internal court;
    IJury internal jury;
    /// @dev Slot of the next batch.
    uint256 internal nextSlot;

    function setUp() public virtual {
        vm.warp(1_800_000_000);
        token = new CreditToken(treasury);
        address ledgerAt = vm.computeCreateAddress(address(this), vm.getNonce(address(this)) + 1);
        address courtAt = vm.computeCreateAddress(address(this), vm.getNonce(address(this)) + 2);
        nodes = new NodeRegistry(token, ledgerAt, courtAt, _registryParameters());
        ledger = new InferenceLedger(token, nodes, _ledgerParameters());
        court = new DisputeCourt(ledger, treasury, _courtParameters(), _disputeParameters(), _juryParameters());
        jury = court.jury();
        models = new ModelRegistry();
        _fund(payer);
        _fund(gateway);
        _fund(worker);
        _fund(stranger);
        vm.label(payer, "payer");
        vm.label(stranger, "stranger");
        vm.label(gatewaySigner, "gateway signer");
    }

    // Parameters

    function _registryParameters() internal pure returns (INodeRegistry.Parameters memory) {
        return INodeRegistry.Parameters({
            thawPeriod: STAKE_THAW,
            lockMultiple: LOCK_MULTIPLE,
            halfWeight: 100e18,
            decayEpochs: 30,
            minWorkerStake: MIN_WORKER,
            minGatewayStake: MIN_GATEWAY,
            minAuditorStake: MIN_AUDITOR
        });
    }

    function _ledgerParameters() internal pure returns (IInferenceLedger.Parameters memory) {
        return IInferenceLedger.Parameters({
            thawPeriod: SESSION_THAW,
            epochLength: EPOCH,
            batchRetention: RETENTION,
            claimDelay: 1 hours,
            claimPeriod: 1 days,
            claimWindow: 12 hours,
            claimBond: BOND,
            maxFeeBps: MAX_FEE_BPS
        });
    }

    function _courtParameters() internal pure returns (IDisputeCourt.Parameters memory) {
        return IDisputeCourt.Parameters({
            challengePeriod: 2 days,
            answerPeriod: 12 hours,
            evidencePeriod: 7 days,
            jailPeriod: 30 days,
            challengeBond: BOND,
            equivocationBps: 5_000,
            rewardBps: 2_000,
            fineBps: 10_000
        });
    }

    function _disputeParameters() internal pure returns (IComputeDisputes.DisputeParameters memory) {
        return IComputeDisputes.DisputeParameters({
            disputePeriod: 1 hours,
            openingPeriod: 6 hours,
            capBps: 5_000,
            disputeBond: 25e18,
            jurorFee: 0.5e18,
            jurorPenalty: 2e18
        });
    }

    function _juryParameters() internal pure returns (IJury.Parameters memory) {
        return IJury.Parameters({
            drawPeriod: 1 hours,
            commitPeriod: 12 hours,
            revealPeriod: 6 hours,
            appealPeriod: 12 hours,
            drawDelay: 4,
            jurySize: 5,
            minJury: 3,
            maxRounds: 3,
            warningShare: 500_000,
            tolerance: 50_000
        });
    }

    // People

    function _person(string memory name) internal returns (address account) {
        account = vm.addr(uint256(keccak256(bytes(name))) >> 1);
        vm.label(account, name);
    }

    /// @dev Credits in the wallet, and allowances for whatever takes them.
    function _fund(address account) internal {
        vm.prank(treasury);
        token.mint(account, FUNDS);
        vm.startPrank(account);
        token.approve(address(nodes), type(uint256).max);
        token.approve(address(ledger), type(uint256).max);
        token.approve(address(court), type(uint256).max);
        vm.stopPrank();
    }

    // Nodes

    function _params(address signer, uint8 roles) internal pure returns (INodeRegistry.RegisterParams memory) {
        return INodeRegistry.RegisterParams({
            signer: signer,
            roles: roles,
            linkKey: keccak256(abi.encode(signer)),
            endpoint: "tcp://127.0.0.1:4000",
            url: "http://127.0.0.1:8000",
            region: "local",
            profile: "bafkprofile"
        });
    }

    function _register(address operator, address signer, uint8 roles, uint128 stake) internal {
        vm.prank(operator);
        nodes.register(_params(signer, roles), stake);
    }

    function _registerGateway() internal {
        _register(gateway, gatewaySigner, GATEWAY, MIN_GATEWAY);
        vm.prank(gateway);
        ledger.setSettler(gatewaySigner);
    }

    function _registerWorker() internal {
        _register(worker, workerSigner, WORKER, MIN_WORKER);
    }

    // Sessions

    function _deposit(address account, uint256 amount) internal {
        vm.prank(account);
        ledger.deposit(amount);
    }

    /// @dev A session of `payer` with `gateway`, from a balance deposited for it.
    function _open(uint96 budget) internal returns (bytes32 id) {
        _deposit(payer, budget);
        vm.prank(payer);
        id = ledger.openSession(gateway, sessionKey, budget, HOUR);
    }

    /// @dev Terms of a session by its id, with the gateway and the key that tests use.
    function _terms(bytes32 id) internal view returns (IInferenceLedger.SessionTerms memory) {
        return IInferenceLedger.SessionTerms({
            payer: address(uint160(uint256(id) >> 96)), gateway: gateway, key: sessionKey, number: uint64(uint256(id))
        });
    }

    function _session(bytes32 id) internal view returns (IInferenceLedger.Session memory) {
        return ledger.session(_terms(id));
    }

    function _request(bytes32 id, uint64 nonce, uint128 maxCost, uint64 ackedBelow, uint128 spent)
        internal
        view
        returns (InferenceRequest memory)
    {
        return InferenceRequest({
            session: id,
            nonce: nonce,
            maxCost: maxCost,
            ackedBelow: ackedBelow,
            spent: spent,
            work: Work({
                model: keccak256("tiny"),
                body: keccak256(abi.encode(nonce)),
                maxTokens: 64,
                tier: 1,
                deadline: uint64(block.timestamp + HOUR)
            })
        });
    }

    function _claim(uint256 privateKey, InferenceRequest memory request, uint128 cost)
        internal
        view
        returns (IInferenceLedger.Claim memory claim)
    {
        (bytes32 r, bytes32 vs) = vm.signCompact(privateKey, ledger.hashRequest(request));
        return Packing.claim(request, cost, r, vs);
    }

    /// @dev A claim signed by the right key, with a cap of `cost`.
    function _claim(bytes32 id, uint64 nonce, uint128 cost, uint64 ackedBelow, uint128 spent)
        internal
        view
        returns (IInferenceLedger.Claim memory)
    {
        return _claim(SESSION_KEY, _request(id, nonce, cost, ackedBelow, spent), cost);
    }

    function _one(IInferenceLedger.Claim memory claim) internal pure returns (IInferenceLedger.Claim[] memory claims) {
        claims = new IInferenceLedger.Claim[](1);
        claims[0] = claim;
    }

    function _two(IInferenceLedger.Claim memory first, IInferenceLedger.Claim memory second)
        internal
        pure
        returns (IInferenceLedger.Claim[] memory claims)
    {
        claims = new IInferenceLedger.Claim[](2);
        (claims[0], claims[1]) = (first, second);
    }

    function _payout(address node, uint256 amount) internal pure returns (uint256) {
        return uint256(uint160(node)) << 96 | amount;
    }

    function _one(uint256 payout) internal pure returns (uint256[] memory payouts) {
        payouts = new uint256[](1);
        payouts[0] = payout;
    }

    function _batch(IInferenceLedger.Claim[] memory claims, uint256[] memory payouts)
        internal
        returns (IInferenceLedger.Batch memory)
    {
        return IInferenceLedger.Batch({
            gateway: gateway,
            claims: claims,
            payouts: payouts,
            faults: new IInferenceLedger.Fault[](0),
            header: keccak256(abi.encode(nextSlot)),
            slot: nextSlot++
        });
    }

    function _hashOf(IInferenceLedger.Batch memory batch) internal pure returns (bytes32) {
        return keccak256(abi.encodePacked(batch.payouts, batch.header));
    }

    /// @dev Settles as the gateway's signer.
    function _settle(IInferenceLedger.Claim[] memory claims, uint256[] memory payouts) internal returns (bytes32 hash) {
        IInferenceLedger.Batch memory batch = _batch(claims, payouts);
        vm.prank(gatewaySigner);
        hash = ledger.settle(batch);
    }

    function _fees() internal view returns (uint96 fees) {
        (, fees) = ledger.gatewayAccount(gateway);
    }

    // Numbers

    /// @dev Folds a fuzzed number into [low, high].
    function _bound(uint256 number, uint256 low, uint256 high) internal pure returns (uint256) {
        if (number >= low && number <= high) return number;
        uint256 size = high - low + 1;
        return size == 0 ? number : low + number % size;
    }
}
