// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IInferenceLedger} from "../interfaces/IInferenceLedger.sol";
import {Account, Accounts} from "../libraries/Accounts.sol";
import {Claims} from "../libraries/Claims.sol";
import {SumTree} from "../libraries/SumTree.sol";
import {Sessions} from "./Sessions.sol";

/// @title Settlement: many receipts in one transaction whose cost grows with the accounts alone
abstract contract Settlement is Sessions {
    using Accounts for Account;
    using Claims for Claim;
    using Claims for Claim[];

    /// @dev 224 bits of the batch's hash and the time in one word: whoever looked for two batches of the same 224 bits would have
    /// to try 2**112 of them.
    struct Anchor {
        bytes28 batch;
        uint32 settledAt;
    }

    uint256 internal constant ALL_BPS = 10_000;
    uint256 internal immutable BATCH_RETENTION;
    uint256 internal immutable MAX_FEE_BPS;

    /// @inheritdoc IInferenceLedger
    mapping(address gateway => mapping(uint256 slot => Anchor)) public override anchor;

    constructor(uint256 batchRetention, uint256 maxFeeBps) {
        BATCH_RETENTION = batchRetention;
        MAX_FEE_BPS = maxFeeBps;
    }

    /// @inheritdoc IInferenceLedger
    function settle(Batch calldata batch) external override returns (bytes32 hash) {
        address gateway = batch.gateway;
        GatewayAccount storage account = _accountOf(gateway);
        (bytes memory debits, uint256 debited) = _debit(gateway, batch.claims);
        _pay(account, batch.payouts, debited);
        if (batch.faults.length != 0) _blame(gateway, batch.payouts, batch.faults);
        hash = _hashBatch(batch.payouts, batch.header);
        _anchor(gateway, batch.slot, hash);
        emit BatchSettled(hash, gateway, debits, batch.payouts, batch.header);
    }

    /// @inheritdoc IInferenceLedger
    function isIncluded(Inclusion calldata inclusion) public view override returns (bool) {
        uint256[] calldata payouts = inclusion.payouts;
        uint256 index = inclusion.payoutIndex;
        if (index >= payouts.length || inclusion.subroots.length != payouts.length) return false;
        bytes32 hash = _hashBatch(payouts, SumTree.header(inclusion.subroots, inclusion.link));
        // casting to 'bytes28' is what an anchor keeps of a hash
        // forge-lint: disable-next-line(unsafe-typecast)
        if (anchor[inclusion.gateway][inclusion.slot].batch != bytes28(hash)) return false;
        uint96 total = _amountOf(payouts[index]);
        return inclusion.subroots[index] == SumTree.seal(inclusion.top, total, inclusion.numReceipts)
            && SumTree.verify(
            inclusion.top,
            total,
            inclusion.numReceipts,
            inclusion.receipt,
            inclusion.cost,
            inclusion.receiptIndex,
            inclusion.receiptProof
        );
    }

    function _nodeOf(uint256 payout) internal pure returns (address) {
        // casting to 'uint160' is safe because 160 bits are left
        // forge-lint: disable-next-line(unsafe-typecast)
        return address(uint160(payout >> 96));
    }

    function _amountOf(uint256 payout) internal pure returns (uint96) {
        // casting to 'uint96' is what a payout's lowest bits are
        // forge-lint: disable-next-line(unsafe-typecast)
        return uint96(payout);
    }

    function _hashBatch(uint256[] calldata payouts, bytes32 header) private pure returns (bytes32) {
        return keccak256(abi.encodePacked(payouts, header));
    }

    /// @dev Debits sessions by their claims. What it returns has a word per session: 160 number | 96 amount.
    function _debit(address gateway, Claim[] calldata claims) private returns (bytes memory debits, uint256 debited) {
        bytes32 domain = _domainSeparatorV4();
        debits = new bytes(claims.length * 32);
        uint256 length;
        // Nothing here overflows: amounts are parts of budgets, which are parts of a supply of 96 bits.
        unchecked {
            for (uint256 i = 0; i < claims.length; ++i) {
                Claim calldata newest = claims.get(i);
                bytes32 id = newest.session;
                address key = newest.signer(domain);
                uint256 total = newest.checkedCost();
                if (i + 1 != claims.length && claims.get(i + 1).session == id) {
                    (i, total) = _addRun(claims, i, key, domain);
                    newest = claims.get(i);
                } else if (newest.nonce() < newest.ackedBelow()) {
                    revert InferenceLedgerAlreadyAcknowledged(id, newest.nonce(), newest.ackedBelow());
                }
                total = _settleUpTo(_sessionAt(gateway, id, key), id, total + newest.spent());
                debited += total;
                total |= (uint256(id) & type(uint96).max) << 96;
                // There are at most as many sessions as claims, which `debits` has a word for each; so its end can be cut off below.
                assembly ("memory-safe") {
                    length := add(length, 0x20)
                    mstore(add(debits, length), total)
                }
            }
        }
        assembly ("memory-safe") {
            mstore(debits, length)
        }
    }

    /// @dev Sums the costs of a session's claims when there are several, from `first` to `last`.
    function _addRun(Claim[] calldata claims, uint256 first, address key, bytes32 domain)
        private
        view
        returns (uint256 last, uint256 total)
    {
        bytes32 id = claims[first].session;
        total = claims[first].cost();
        last = first;
        // Nothing here overflows: costs have 128 bits, and there are far fewer than 2**128 of them.
        unchecked {
            while (last + 1 < claims.length && claims[last + 1].session == id) {
                uint256 nonce = claims[last].nonce();
                Claim calldata claim = claims[++last];
                if (claim.nonce() <= nonce) revert InferenceLedgerNonceNotRising(id, claim.nonce());
                if (claim.signer(domain) != key) revert InferenceLedgerInvalidSignature(id, claim.nonce());
                total += claim.checkedCost();
            }
        }
        // Nonces rise, so the oldest one speaks for all.
        uint256 ackedBelow = claims[last].ackedBelow();
        if (claims[first].nonce() < ackedBelow) {
            revert InferenceLedgerAlreadyAcknowledged(id, claims[first].nonce(), ackedBelow);
        }
    }

    /// @dev One load and one store. Of a session's word the lowest 96 bits are the budget and the next 96 what was settled; the
    /// new total has 96 bits as the budget has, so that adding to the one field carries into no other.
    function _settleUpTo(Session storage self, bytes32 id, uint256 total) private returns (uint256 amount) {
        uint256 word;
        assembly ("memory-safe") {
            word := sload(self.slot)
        }
        uint256 budget = word & type(uint96).max;
        uint256 settled = (word >> 96) & type(uint96).max;
        // A bad signature has key zero, and no session has that one.
        if (budget == 0) revert InferenceLedgerNoSuchSession(id);
        if (total < settled) revert InferenceLedgerBelowSettled(id, total, settled);
        if (total > budget) revert InferenceLedgerBudgetExceeded(id, total, budget);
        unchecked {
            amount = total - settled;
            word += amount << 96;
        }
        assembly ("memory-safe") {
            sstore(self.slot, word)
        }
    }

    /// @dev Pays the nodes, and to the gateway what is left.
    function _pay(GatewayAccount storage account, uint256[] calldata payouts, uint256 debited) private {
        uint256 paid;
        uint256 epoch = currentEpoch();
        // Nothing here overflows: far fewer than 2**160 payouts of 96 bits each, and none of more than what was debited.
        unchecked {
            for (uint256 i = 0; i < payouts.length; ++i) {
                uint256 payout;
                // The array of calldata was checked as a whole when the call was decoded.
                assembly ("memory-safe") {
                    payout := calldataload(add(payouts.offset, shl(5, i)))
                }
                uint256 amount = _amountOf(payout);
                _earn(_nodeOf(payout), amount, epoch);
                paid += amount;
            }
            if (paid > debited) revert InferenceLedgerPayoutsExceedDebits(paid, debited);
            uint256 fee = debited - paid;
            uint256 maxFee = paid * MAX_FEE_BPS / ALL_BPS;
            if (fee > maxFee) revert InferenceLedgerFeeTooHigh(fee, maxFee);
            // casting to 'uint96' is safe because fees are parts of budgets, which are parts of a supply of 96 bits
            // forge-lint: disable-next-line(unsafe-typecast)
            account.fees += uint96(fee);
        }
    }

    /// @dev A gateway's word against a node weighs no more than what it pays it in the same batch.
    function _blame(address gateway, uint256[] calldata payouts, Fault[] calldata faults) private {
        uint256 next;
        for (uint256 i = 0; i < faults.length; ++i) {
            Fault calldata fault = faults[i];
            // Faults stand in the order of the payouts, so each payout answers for one fault at most.
            while (next < payouts.length && _nodeOf(payouts[next]) != fault.node) ++next;
            if (next == payouts.length) revert InferenceLedgerFaultWithoutPayout(fault.node);
            uint256 amount = _amountOf(payouts[next++]);
            if (fault.amount < amount) amount = fault.amount;
            _accounts[fault.node] = _accounts[fault.node].fault(amount);
            emit NodeFaulted(fault.node, gateway, fault.amount);
        }
    }

    function _anchor(address gateway, uint256 slot, bytes32 hash) private {
        Anchor storage self = anchor[gateway][slot];
        uint256 settledAt = self.settledAt;
        if (settledAt != 0 && block.timestamp < settledAt + BATCH_RETENTION) {
            revert InferenceLedgerSlotBusy(gateway, slot, settledAt + BATCH_RETENTION);
        }
        // casting is safe: an anchor keeps 28 bytes of a hash, and 32 bits hold the time until the year 2106
        // forge-lint: disable-next-line(unsafe-typecast)
        (self.batch, self.settledAt) = (bytes28(hash), uint32(block.timestamp));
    }
}
