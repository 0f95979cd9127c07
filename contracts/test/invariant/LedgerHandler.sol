// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {CreditToken} from "../../src/CreditToken.sol";
import {InferenceLedger} from "../../src/InferenceLedger.sol";
import {NodeRegistry} from "../../src/NodeRegistry.sol";
import {IInferenceLedger} from "../../src/interfaces/IInferenceLedger.sol";
import {InferenceRequest, SessionClose, Work} from "../../src/libraries/Messages.sol";
import {Packing} from "../helpers/Packing.sol";
import {Vm} from "../helpers/Vm.sol";

/// @notice Payers, a gateway that claims all it can get, workers who spend what they earn, and thieves, at random.
/// Each function is one deed; what cannot succeed is left out, and what must not succeed is tried in `steal`.
contract LedgerHandler {
    Vm internal constant vm = Vm(address(uint160(uint256(keccak256("hevm cheat code")))));
    uint256 internal constant NUM_PEOPLE = 4;
    uint256 internal constant GATEWAY_KEY = 0x6A7E;
    uint256 internal constant FIRST_KEY = 0xA000;
    uint256 internal constant SESSION_KEY = 0x5E55;
    uint128 internal constant MAX_COST = 5e18;

    struct Signed {
        InferenceRequest request;
        bytes32 r;
        bytes32 vs;
    }

    CreditToken internal immutable TOKEN;
    InferenceLedger internal immutable LEDGER;
    address internal immutable TREASURY;
    address internal immutable GATEWAY;

    address[] public people;
    bytes32[] public sessions;
    /// @notice Most that a payer ever put at risk in a session: what he acknowledged plus the caps in flight.
    mapping(bytes32 session => uint256) public exposure;
    uint256 public minted;
    uint256 public debited;
    uint256 public credited;
    uint256 public numSettled;
    uint256 public numStolen;

    mapping(bytes32 session => Signed[]) internal _signed;
    /// @dev Sum of the true costs of the first n requests.
    mapping(bytes32 session => uint128[]) internal _costsBelow;
    uint256 internal _numBatches;

    constructor(CreditToken token, InferenceLedger ledger, address treasury, address gateway) {
        (TOKEN, LEDGER, TREASURY, GATEWAY) = (token, ledger, treasury, gateway);
        for (uint256 i = 0; i < NUM_PEOPLE; ++i) {
            people.push(vm.addr(FIRST_KEY + i));
        }
    }

    function numSessions() external view returns (uint256) {
        return sessions.length;
    }

    function numPeople() external view returns (uint256) {
        return people.length;
    }

    // Deeds

    function mint(uint256 who, uint128 amount) external {
        amount = uint128(_bound(amount, 0, 1_000e18));
        vm.prank(TREASURY);
        TOKEN.mint(people[who % NUM_PEOPLE], amount);
        minted += amount;
    }

    function deposit(uint256 who, uint256 amount) external {
        address person = people[who % NUM_PEOPLE];
        uint256 wallet = TOKEN.balanceOf(person);
        if (wallet == 0) return;
        amount = _bound(amount, 1, wallet);
        vm.startPrank(person);
        TOKEN.approve(address(LEDGER), amount);
        LEDGER.deposit(amount);
        vm.stopPrank();
    }

    function withdraw(uint256 who, uint256 amount) external {
        address person = people[who % NUM_PEOPLE];
        uint256 balance = LEDGER.balanceOf(person);
        if (balance == 0) return;
        vm.prank(person);
        LEDGER.withdraw(_bound(amount, 1, balance));
    }

    function transfer(uint256 who, uint256 to, uint256 amount) external {
        address person = people[who % NUM_PEOPLE];
        uint256 balance = LEDGER.balanceOf(person);
        if (balance == 0) return;
        vm.prank(person);
        LEDGER.transfer(people[to % NUM_PEOPLE], _bound(amount, 1, balance));
    }

    function open(uint256 who, uint256 budget, uint32 duration) external {
        address person = people[who % NUM_PEOPLE];
        uint256 balance = LEDGER.balanceOf(person);
        if (balance == 0) return;
        vm.prank(person);
        bytes32 id = LEDGER.openSession(
            GATEWAY, vm.addr(SESSION_KEY), uint96(_bound(budget, 1, balance)), uint32(_bound(duration, 1 days, 60 days))
        );
        sessions.push(id);
        _costsBelow[id].push(0);
    }

    function topUp(uint256 which, uint256 amount) external {
        (bytes32 id, IInferenceLedger.Session memory session) = _session(which);
        uint256 balance = LEDGER.balanceOf(_payerOf(id));
        if (block.timestamp >= session.endsAt || balance == 0) return;
        vm.prank(_payerOf(id));
        LEDGER.topUp(_terms(id), uint96(_bound(amount, 1, balance)));
    }

    function close(uint256 which) external {
        (bytes32 id, IInferenceLedger.Session memory session) = _session(which);
        if (block.timestamp >= session.endsAt) return;
        vm.prank(_payerOf(id));
        LEDGER.closeSession(_terms(id));
    }

    function finalizeClose(uint256 which) external {
        (bytes32 id, IInferenceLedger.Session memory session) = _session(which);
        if (session.budget == 0 || which % 4 != 0) return;
        uint256 closesAt = uint256(session.endsAt) + LEDGER.parameters().thawPeriod;
        if (block.timestamp < closesAt) vm.warp(closesAt);
        LEDGER.finalizeClose(_terms(id));
    }

    function closeTogether(uint256 which) external {
        (bytes32 id, IInferenceLedger.Session memory session) = _session(which);
        if (session.budget == 0 || which % 4 != 0) return;
        SessionClose memory consent = SessionClose(id, session.settled, uint64(block.timestamp));
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(GATEWAY_KEY, LEDGER.hashSessionClose(consent));
        vm.prank(_payerOf(id));
        LEDGER.closeTogether(_terms(id), consent, "", abi.encodePacked(r, s, v));
    }

    /// @notice A payer asks a few times.
    function ask(uint256 which, uint128 maxCost, uint128 cost, uint8 window) external {
        for (uint8 i = 0; i < 1 + window % 4; ++i) {
            _ask(which, maxCost >> i, cost >> i, window / 4 + i);
        }
    }

    /// @notice The gateway claims from two sessions, any request as the newest, every listed cost up to its cap.
    function settle(uint256 first, uint256 second, uint256 newest, uint256 seed) external {
        (bytes32 id,) = _session(first);
        (bytes32 other,) = _session(second);
        for (uint8 i = 0; i < seed % 3; ++i) {
            _ask(first, uint128(seed), uint128(newest), seed % 4 + i);
        }
        IInferenceLedger.Claim[] memory claims;
        uint256 total;
        for (uint256 i = 0; i < 6 && total == 0; ++i) {
            uint256 chosen = uint256(keccak256(abi.encode(newest, i)));
            claims = _claims(id, chosen, seed);
            if (other != id && seed % 2 == 0) claims = _join(claims, _claims(other, chosen >> 128, ~seed));
            total = _expectedDebit(claims);
        }
        if (total == 0) return;

        uint256[] memory payouts = new uint256[](2);
        uint256 paid = total - _bound(seed, 0, total / 11);
        payouts[0] = uint256(uint160(people[0])) << 96 | paid / 3;
        payouts[1] = uint256(uint160(people[1])) << 96 | (paid - paid / 3);
        uint256 before = _earnings();
        vm.prank(vm.addr(GATEWAY_KEY));
        LEDGER.settle(_batch(claims, payouts));
        debited += total;
        credited += _earnings() - before;
        ++numSettled;
    }

    /// @notice What must not work, whoever tries: settle without stake, close or drain what is another's, mint.
    function steal(uint256 which, uint256 who, uint256 amount) external {
        (bytes32 id, IInferenceLedger.Session memory session) = _session(which);
        address thief = people[who % NUM_PEOPLE];
        amount = _bound(amount, 1, type(uint128).max);
        uint256[] memory payouts = new uint256[](1);
        payouts[0] = uint256(uint160(thief)) << 96 | uint96(_bound(amount, 1, type(uint96).max));
        vm.startPrank(thief);
        _mustFail(address(LEDGER), abi.encodeCall(LEDGER.settle, (_batch(_claims(id, amount, amount), payouts))));
        _mustFail(address(LEDGER), abi.encodeCall(LEDGER.withdraw, (LEDGER.balanceOf(thief) + amount)));
        _mustFail(address(TOKEN), abi.encodeCall(TOKEN.mint, (thief, amount)));
        if (_payerOf(id) != thief) {
            _mustFail(address(LEDGER), abi.encodeCall(LEDGER.closeSession, (_terms(id))));
            SessionClose memory consent = SessionClose(id, session.settled, uint64(block.timestamp));
            _mustFail(address(LEDGER), abi.encodeCall(LEDGER.closeTogether, (_terms(id), consent, "", "")));
        }
        if (block.timestamp < uint256(session.endsAt) + LEDGER.parameters().thawPeriod) {
            _mustFail(address(LEDGER), abi.encodeCall(LEDGER.finalizeClose, (_terms(id))));
        }
        vm.stopPrank();
        // Even the gateway: pay out what no session was debited for.
        vm.startPrank(vm.addr(GATEWAY_KEY));
        _mustFail(address(LEDGER), abi.encodeCall(LEDGER.settle, (_batch(new IInferenceLedger.Claim[](0), payouts))));
        vm.stopPrank();
    }

    function wait(uint32 duration) external {
        vm.warp(block.timestamp + _bound(duration, 0, 2 days));
    }

    // Inner workings

    /// @dev Up to three requests stay unacknowledged, the others are acknowledged at their true cost.
    function _ask(uint256 which, uint128 maxCost, uint128 cost, uint256 window) internal {
        (bytes32 id, IInferenceLedger.Session memory session) = _session(which);
        if (block.timestamp >= session.endsAt) return;
        uint256 nonce = _signed[id].length;
        uint256 ackedBelow = nonce - _bound(window, 0, nonce < 3 ? nonce : 3);
        maxCost = uint128(_bound(maxCost, 0, MAX_COST));
        InferenceRequest memory request = InferenceRequest({
            session: id,
            nonce: uint64(nonce),
            maxCost: maxCost,
            ackedBelow: uint64(ackedBelow),
            spent: _costsBelow[id][ackedBelow],
            work: Work(keccak256("tiny"), 0, 64, 0, uint64(block.timestamp))
        });
        (bytes32 r, bytes32 vs) = vm.signCompact(SESSION_KEY, LEDGER.hashRequest(request));
        uint256 atRisk = request.spent + maxCost;
        for (uint256 i = ackedBelow; i < nonce; ++i) {
            atRisk += _signed[id][i].request.maxCost;
        }
        if (atRisk > exposure[id]) exposure[id] = atRisk;
        _costsBelow[id].push(_costsBelow[id][nonce] + uint128(_bound(cost, 0, maxCost)));
        _signed[id].push(Signed(request, r, vs));
    }

    function _mustFail(address target, bytes memory data) internal {
        (bool success,) = target.call(data);
        if (success) ++numStolen;
    }

    function _session(uint256 which) internal view returns (bytes32 id, IInferenceLedger.Session memory session) {
        if (sessions.length == 0) return (id, session);
        // The younger ones, most of which are open.
        uint256 eligible = sessions.length < 3 ? sessions.length : 3;
        id = sessions[sessions.length - 1 - which % eligible];
        session = LEDGER.session(_terms(id));
    }

    function sessionOf(bytes32 id) external view returns (IInferenceLedger.Session memory) {
        return LEDGER.session(_terms(id));
    }

    function _payerOf(bytes32 id) internal pure returns (address) {
        return address(uint160(uint256(id) >> 96));
    }

    function _terms(bytes32 id) internal view returns (IInferenceLedger.SessionTerms memory) {
        return IInferenceLedger.SessionTerms(_payerOf(id), GATEWAY, vm.addr(SESSION_KEY), uint64(uint256(id)));
    }

    function _batch(IInferenceLedger.Claim[] memory claims, uint256[] memory payouts)
        internal
        returns (IInferenceLedger.Batch memory)
    {
        uint256 slot = _numBatches++;
        return IInferenceLedger.Batch(GATEWAY, claims, payouts, new IInferenceLedger.Fault[](0), bytes32(slot), slot);
    }

    function _earnings() internal view returns (uint256) {
        (, uint96 fees) = LEDGER.gatewayAccount(GATEWAY);
        return LEDGER.balanceOf(people[0]) + LEDGER.balanceOf(people[1]) + fees;
    }

    /// @dev A run of claims that ends with a request of the payer's and lists a random part of what it leaves open.
    function _claims(bytes32 id, uint256 newest, uint256 seed)
        internal
        view
        returns (IInferenceLedger.Claim[] memory claims)
    {
        if (_signed[id].length == 0) return claims;
        newest = newest % _signed[id].length;
        uint256 oldest = _signed[id][newest].request.ackedBelow;
        oldest += seed % (newest - oldest + 1);
        claims = new IInferenceLedger.Claim[](newest - oldest + 1);
        for (uint256 i = 0; i < claims.length; ++i) {
            Signed storage signed = _signed[id][oldest + i];
            uint128 cost = uint128(_bound(uint256(keccak256(abi.encode(seed, i))), 0, signed.request.maxCost));
            claims[i] = Packing.claim(signed.request, cost, signed.r, signed.vs);
        }
    }

    /// @dev What the claims should debit, or 0 when one of their sessions cannot be debited.
    function _expectedDebit(IInferenceLedger.Claim[] memory claims) internal view returns (uint256 debit) {
        uint256 total;
        for (uint256 i = 0; i < claims.length; ++i) {
            total += uint128(claims[i].counts);
            bytes32 id = claims[i].session;
            if (i + 1 < claims.length && claims[i + 1].session == id) continue;
            total += uint128(claims[i].amounts);
            IInferenceLedger.Session memory session = LEDGER.session(_terms(id));
            if (session.budget == 0 || total < session.settled || total > session.budget) return 0;
            debit += total - session.settled;
            total = 0;
        }
    }

    function _join(IInferenceLedger.Claim[] memory a, IInferenceLedger.Claim[] memory b)
        internal
        pure
        returns (IInferenceLedger.Claim[] memory joined)
    {
        joined = new IInferenceLedger.Claim[](a.length + b.length);
        for (uint256 i = 0; i < joined.length; ++i) {
            joined[i] = i < a.length ? a[i] : b[i - a.length];
        }
    }

    function _bound(uint256 number, uint256 low, uint256 high) internal pure returns (uint256) {
        return number >= low && number <= high ? number : low + number % (high - low + 1);
    }
}
