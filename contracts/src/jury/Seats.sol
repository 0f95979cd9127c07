// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IJury} from "../interfaces/IJury.sol";
import {INodeRegistry} from "../interfaces/INodeRegistry.sol";

/// @title Seats: the auditors from whom juries are drawn
/// @notice A seat's number never moves: who leaves leaves a gap, which the next one who comes fills. A draw maps random numbers
/// to seats that there were when the dispute was opened, so nobody who comes or leaves afterwards changes where a number
/// leads: who leaves is not drawn, and who takes the gap came too late to be.
abstract contract Seats is IJury {
    uint8 internal constant AUDITOR = 4;

    /// @inheritdoc IJury
    INodeRegistry public immutable override nodes;

    Seat[] internal _seats;
    uint32[] private _gaps;
    /// @dev Number of the seat, and one; zero: none.
    mapping(address operator => uint256) private _placeOf;

    constructor(INodeRegistry nodes_) {
        nodes = nodes_;
    }

    /// @inheritdoc IJury
    function takeSeat() external override {
        address operator = nodes.activeOperator(msg.sender, AUDITOR);
        if (_placeOf[operator] != 0) revert JuryAlreadySeated(operator);
        uint32 index;
        Seat memory taken = Seat(operator, uint48(block.timestamp));
        uint256 numGaps = _gaps.length;
        if (numGaps == 0) {
            // casting to 'uint32' is safe because nobody pays for so many seats
            // forge-lint: disable-next-line(unsafe-typecast)
            index = uint32(_seats.length);
            _seats.push(taken);
        } else {
            index = _gaps[numGaps - 1];
            _gaps.pop();
            _seats[index] = taken;
        }
        _placeOf[operator] = uint256(index) + 1;
        emit SeatTaken(operator, index);
    }

    /// @inheritdoc IJury
    function leaveSeat(address operator) external override {
        uint256 place = _placeOf[operator];
        if (place == 0) revert JuryNotSeated(operator);
        // Seats of nodes that are gone would make draws fail, so anybody may clear them away.
        bool isOwn = msg.sender == operator || nodes.operatorOf(msg.sender) == operator;
        if (!isOwn && nodes.isActive(operator, AUDITOR)) {
            revert JuryNotYourSeat(operator, msg.sender);
        }
        // casting to 'uint32' is safe because the number of a seat was one
        // forge-lint: disable-next-line(unsafe-typecast)
        uint32 index = uint32(place - 1);
        delete _seats[index];
        delete _placeOf[operator];
        _gaps.push(index);
        emit SeatLeft(operator, index);
    }

    /// @inheritdoc IJury
    function numSeats() external view override returns (uint256) {
        return _seats.length;
    }

    /// @inheritdoc IJury
    function seat(uint256 index) external view override returns (Seat memory) {
        return _seats[index];
    }

    /// @inheritdoc IJury
    function seatOf(address operator) external view override returns (bool seated, uint32 index) {
        uint256 place = _placeOf[operator];
        // casting to 'uint32' is safe because the number of a seat was one
        // forge-lint: disable-next-line(unsafe-typecast)
        return place == 0 ? (false, 0) : (true, uint32(place - 1));
    }
}
