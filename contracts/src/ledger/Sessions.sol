// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IInferenceLedger} from "../interfaces/IInferenceLedger.sol";
import {Messages, SessionClose} from "../libraries/Messages.sol";
import {Balances} from "./Balances.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {SignatureChecker} from "@openzeppelin/contracts/utils/cryptography/SignatureChecker.sol";

/// @title Sessions: budgets that a payer locks for one gateway and one key
abstract contract Sessions is Balances, EIP712 {
    using Messages for SessionClose;

    uint256 internal immutable THAW_PERIOD;

    /// @dev Sessions ever opened; makes ids unique.
    uint64 internal _numSessions;

    constructor(uint256 thawPeriod) EIP712("DeCLAI", "1") {
        THAW_PERIOD = thawPeriod;
    }

    /// @inheritdoc IInferenceLedger
    function openSession(address gateway, address key, uint96 budget, uint32 duration)
        external
        override
        returns (bytes32 id)
    {
        if (!nodes.isActive(gateway, GATEWAY)) revert InferenceLedgerGatewayNotActive(gateway);
        if (key == address(0)) revert InferenceLedgerZeroKey();
        if (budget == 0) revert InferenceLedgerZeroAmount();
        if (duration == 0) revert InferenceLedgerZeroDuration();
        _take(msg.sender, budget);
        uint64 number = ++_numSessions;
        id = _sessionId(msg.sender, number);
        uint48 endsAt = uint48(block.timestamp) + duration;
        Session storage self = _sessionAt(gateway, id, key);
        (self.budget, self.endsAt) = (budget, endsAt);
        emit SessionOpened(id, msg.sender, gateway, key, number, budget, endsAt);
    }

    /// @inheritdoc IInferenceLedger
    function topUp(SessionTerms calldata terms, uint96 amount) external override {
        if (amount == 0) revert InferenceLedgerZeroAmount();
        (bytes32 id, Session storage self) = _runningOf(msg.sender, terms);
        _take(msg.sender, amount);
        self.budget += amount;
        emit SessionToppedUp(id, amount, self.budget);
    }

    /// @inheritdoc IInferenceLedger
    function closeSession(SessionTerms calldata terms) external override {
        (bytes32 id, Session storage self) = _runningOf(msg.sender, terms);
        self.endsAt = uint48(block.timestamp);
        emit SessionEnded(id, self.endsAt);
    }

    /// @inheritdoc IInferenceLedger
    function finalizeClose(SessionTerms calldata terms) external override {
        (bytes32 id, Session storage self) = _existing(terms);
        uint256 closesAt = uint256(self.endsAt) + THAW_PERIOD;
        if (block.timestamp < closesAt) revert InferenceLedgerStillThawing(id, closesAt);
        _close(id, self, terms.payer);
    }

    /// @inheritdoc IInferenceLedger
    function closeTogether(
        SessionTerms calldata terms,
        SessionClose calldata consent,
        bytes calldata payerSignature,
        bytes calldata gatewaySignature
    ) external override {
        (bytes32 id, Session storage self) = _existing(terms);
        if (consent.session != id) revert InferenceLedgerUnrelated(id, consent.session);
        if (block.timestamp > consent.deadline) revert InferenceLedgerConsentExpired(id, consent.deadline);
        if (self.settled != consent.settled) {
            revert InferenceLedgerConsentToOtherTotal(id, self.settled, consent.settled);
        }
        bytes32 digest = hashSessionClose(consent);
        if (!_isByAccount(terms.payer, digest, payerSignature)) revert InferenceLedgerNoConsent(id, terms.payer);
        if (
            !_isBySigner(terms.gateway, digest, gatewaySignature)
                && !_isByAccount(terms.gateway, digest, gatewaySignature)
        ) revert InferenceLedgerNoConsent(id, terms.gateway);
        _close(id, self, terms.payer);
    }

    /// @inheritdoc IInferenceLedger
    function session(SessionTerms calldata terms) external view override returns (Session memory) {
        Session storage self = _sessionAt(terms.gateway, sessionId(terms), terms.key);
        return Session(self.budget, self.settled, self.endsAt, self.numClaims);
    }

    /// @inheritdoc IInferenceLedger
    function sessionId(SessionTerms calldata terms) public pure override returns (bytes32) {
        return _sessionId(terms.payer, terms.number);
    }

    /// @inheritdoc IInferenceLedger
    function hashSessionClose(SessionClose calldata consent) public view override returns (bytes32) {
        return _hashTypedDataV4(consent.hash());
    }

    function _existing(SessionTerms calldata terms) internal view returns (bytes32 id, Session storage self) {
        id = sessionId(terms);
        self = _sessionAt(terms.gateway, id, terms.key);
        if (self.budget == 0) revert InferenceLedgerUnknownSession(id);
    }

    /// @notice A session lies where its gateway, its id and its key say: whoever comes with another gateway, or with a signature
    /// by another key, finds nothing there. So a settlement reads one word per session, and hashes once to find it.
    /// @dev Safe because no other storage lies at a hash of 96 bytes (mappings hash 64), and because the memory that is written is
    /// free and not used again.
    function _sessionAt(address gateway, bytes32 id, address key) internal pure returns (Session storage self) {
        assembly ("memory-safe") {
            let memory_ := mload(0x40)
            mstore(memory_, and(gateway, 0xffffffffffffffffffffffffffffffffffffffff))
            mstore(add(memory_, 0x20), id)
            mstore(add(memory_, 0x40), and(key, 0xffffffffffffffffffffffffffffffffffffffff))
            self.slot := keccak256(memory_, 0x60)
        }
    }

    function _sessionId(address payer, uint64 number) private pure returns (bytes32) {
        return bytes32(uint256(uint160(payer)) << 96 | number);
    }

    function _runningOf(address payer, SessionTerms calldata terms)
        private
        view
        returns (bytes32 id, Session storage self)
    {
        (id, self) = _existing(terms);
        if (terms.payer != payer) revert InferenceLedgerNotPayer(id, payer);
        if (block.timestamp >= self.endsAt) revert InferenceLedgerSessionOver(id, self.endsAt);
    }

    /// @dev Deletes the session: its id never comes again, so nothing can be claimed of it any more.
    function _close(bytes32 id, Session storage self, address payer) private {
        if (self.numClaims != 0) revert InferenceLedgerClaimsOpen(id, self.numClaims);
        (uint96 settled, uint96 returned) = (self.settled, self.budget - self.settled);
        self.budget = 0;
        self.settled = 0;
        self.endsAt = 0;
        _give(payer, returned);
        emit SessionClosed(id, payer, returned, settled);
    }

    function _isByAccount(address account, bytes32 digest, bytes calldata signature) private view returns (bool) {
        return msg.sender == account || SignatureChecker.isValidSignatureNow(account, digest, signature);
    }

    /// @dev A bad signature is by account zero, which speaks for nobody.
    function _isBySigner(address operator, bytes32 digest, bytes calldata signature) private view returns (bool) {
        (address signer,,) = ECDSA.tryRecover(digest, signature);
        return _speaksFor(msg.sender, operator) || _speaksFor(signer, operator);
    }

    /// @dev Whether an account is an operator, who may have left the registry, or its present signer.
    function _speaksFor(address account, address operator) internal view returns (bool) {
        return account == operator || nodes.operatorOf(account) == operator;
    }
}
