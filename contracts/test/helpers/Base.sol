// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {CreditToken} from "../../src/CreditToken.sol";
import {InferenceLedger} from "../../src/InferenceLedger.sol";
import {ModelRegistry} from "../../src/ModelRegistry.sol";
import {NodeRegistry} from "../../src/NodeRegistry.sol";
import {IInferenceLedger} from "../../src/interfaces/IInferenceLedger.sol";
import {INodeRegistry} from "../../src/interfaces/INodeRegistry.sol";
import {InferenceRequest} from "../../src/libraries/Messages.sol";
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

    function setUp() public virtual {
        vm.warp(1_800_000_000);
        token = new CreditToken(treasury);
        nodes = new NodeRegistry(token, STAKE_THAW, MIN_WORKER, MIN_GATEWAY, MIN_AUDITOR);
        models = new ModelRegistry();
        ledger = new InferenceLedger(token, nodes, SESSION_THAW, MAX_FEE_BPS);
        _fund(payer);
        _fund(gateway);
        _fund(worker);
        _fund(stranger);
        vm.label(payer, "payer");
        vm.label(stranger, "stranger");
        vm.label(gatewaySigner, "gateway signer");
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

    function _request(bytes32 id, uint64 nonce, uint128 maxCost, uint64 ackedBelow, uint128 spent)
        internal
        view
        returns (InferenceRequest memory)
    {
        return InferenceRequest({
            session: id,
            nonce: nonce,
            model: keccak256("tiny"),
            body: keccak256(abi.encode(nonce)),
            maxTokens: 64,
            tier: 1,
            maxCost: maxCost,
            ackedBelow: ackedBelow,
            spent: spent,
            deadline: uint64(block.timestamp + HOUR)
        });
    }

    function _claim(uint256 privateKey, InferenceRequest memory request, uint128 cost)
        internal
        view
        returns (IInferenceLedger.Claim memory claim)
    {
        (bytes32 r, bytes32 vs) = vm.signCompact(privateKey, ledger.hashRequest(request));
        return IInferenceLedger.Claim({request: request, cost: cost, r: r, vs: vs});
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

    function _payout(address node, uint128 amount) internal pure returns (IInferenceLedger.Payout memory) {
        return IInferenceLedger.Payout({
            node: node, amount: amount, receipts: 1, faults: 0, top: keccak256(abi.encode(node, amount))
        });
    }

    function _one(IInferenceLedger.Payout memory payout)
        internal
        pure
        returns (IInferenceLedger.Payout[] memory payouts)
    {
        payouts = new IInferenceLedger.Payout[](1);
        payouts[0] = payout;
    }

    /// @dev Settles as the gateway's signer.
    function _settle(IInferenceLedger.Claim[] memory claims, IInferenceLedger.Payout[] memory payouts)
        internal
        returns (bytes32 root)
    {
        vm.prank(gatewaySigner);
        root = ledger.settle(claims, payouts, "bafyreceipts");
    }

    // Numbers

    /// @dev Folds a fuzzed number into [low, high].
    function _bound(uint256 number, uint256 low, uint256 high) internal pure returns (uint256) {
        if (number >= low && number <= high) return number;
        uint256 size = high - low + 1;
        return size == 0 ? number : low + number % size;
    }
}
