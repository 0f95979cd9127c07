// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @title What the ledger tells about the lately earned
/// @notice Earnings are counted over epochs of a fixed length, in base units rounded up to millionths of a credit.
interface IEarnings {
    /// @notice Number of the epoch that now is. It has 16 bits and begins again after the last one.
    function currentEpoch() external view returns (uint16);

    /// @notice What a node earned in this epoch and in the one before it: what may still be disputed.
    function lockedEarnings(address node) external view returns (uint96);

    /// @notice What a node earned and failed in the last epoch in which it earned, which is not yet part of its reputation.
    function pendingWork(address node) external view returns (uint16 epoch, uint96 earned, uint96 faulted);
}
