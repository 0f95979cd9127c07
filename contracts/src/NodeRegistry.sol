// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IEarnings} from "./interfaces/IEarnings.sol";
import {INodeRegistry} from "./interfaces/INodeRegistry.sol";
import {ExactTransfer} from "./libraries/ExactTransfer.sol";
import {Reputation} from "./registry/Reputation.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";

/// @title Who may serve, with what stake, and at which price
contract NodeRegistry is Reputation, ReentrancyGuardTransient {
    using ExactTransfer for IERC20;
    using SafeERC20 for IERC20;

    /// @dev Whose signer an address is; it never changes owner, so that old signatures keep their meaning.
    struct SignerRecord {
        address operator;
        uint48 retiredAt;
    }

    uint8 internal constant WORKER = 1;
    uint8 internal constant GATEWAY = 2;
    uint8 internal constant AUDITOR = 4;
    uint8 internal constant ALL_ROLES = WORKER | GATEWAY | AUDITOR;
    /// @dev Long enough that nobody leaves before he is found out, short enough that stake is never as good as lost.
    uint256 internal constant MIN_THAW_PERIOD = 1 hours;
    uint256 internal constant MAX_THAW_PERIOD = 90 days;
    /// @dev Sums of three minimums stay far from 128 bits, and a mistyped number of zeros is caught.
    uint256 internal constant MAX_MINIMUM_STAKE = 1e9 * 1e18;
    uint256 internal constant MAX_TEXT_LENGTH = 256;
    /// @dev Where a day's earnings lock a hundred times themselves, nobody works.
    uint256 internal constant MAX_LOCK_MULTIPLE = 100;
    uint256 internal constant MAX_HALF_WEIGHT = 1e6 * 1e18;
    uint256 internal constant MAX_DECAY_EPOCHS = 1_000;

    /// @inheritdoc INodeRegistry
    IERC20 public immutable override token;
    /// @inheritdoc INodeRegistry
    uint48 public immutable override thawPeriod;
    /// @inheritdoc INodeRegistry
    address public immutable override court;
    uint256 internal immutable MIN_WORKER_STAKE;
    uint256 internal immutable MIN_GATEWAY_STAKE;
    uint256 internal immutable MIN_AUDITOR_STAKE;

    /// @inheritdoc INodeRegistry
    uint256 public override totalStaked;
    mapping(address operator => Node) internal _nodes;
    mapping(address operator => mapping(bytes32 model => mapping(uint8 numericProfile => Offer))) internal _offers;
    /// @inheritdoc INodeRegistry
    mapping(address operator => uint48) public override jailedUntil;
    /// @inheritdoc INodeRegistry
    mapping(address signer => SignerRecord) public override signerRecord;
    /// @inheritdoc INodeRegistry
    mapping(bytes32 linkKey => address operator) public override operatorOfLinkKey;

    /// @param ledger_ Ledger that counts earnings; deployed after this contract, at an address that is known before.
    /// @param court_ Court that slashes; likewise.
    constructor(IERC20 token_, address ledger_, address court_, Parameters memory p)
        Reputation(ledger_, p.lockMultiple, p.halfWeight, p.decayEpochs)
    {
        if (address(token_) == address(0) || ledger_ == address(0) || court_ == address(0)) {
            revert NodeRegistryZeroAddress();
        }
        _check("thawPeriod", p.thawPeriod, MIN_THAW_PERIOD, MAX_THAW_PERIOD);
        _check("lockMultiple", p.lockMultiple, 1, MAX_LOCK_MULTIPLE);
        _check("halfWeight", p.halfWeight, 1, MAX_HALF_WEIGHT);
        _check("decayEpochs", p.decayEpochs, 1, MAX_DECAY_EPOCHS);
        _check("minWorkerStake", p.minWorkerStake, 1, MAX_MINIMUM_STAKE);
        _check("minGatewayStake", p.minGatewayStake, 1, MAX_MINIMUM_STAKE);
        _check("minAuditorStake", p.minAuditorStake, 1, MAX_MINIMUM_STAKE);
        token = token_;
        court = court_;
        thawPeriod = p.thawPeriod;
        MIN_WORKER_STAKE = p.minWorkerStake;
        MIN_GATEWAY_STAKE = p.minGatewayStake;
        MIN_AUDITOR_STAKE = p.minAuditorStake;
    }

    modifier onlyRegistered() {
        if (_nodes[msg.sender].roles == 0) revert NodeRegistryNotRegistered(msg.sender);
        _;
    }

    modifier onlyCourt() {
        if (msg.sender != court) revert NodeRegistryNotCourt(msg.sender);
        _;
    }

    // Registration

    /// @inheritdoc INodeRegistry
    function register(RegisterParams calldata params, uint128 stake) external override nonReentrant {
        Node storage self = _nodes[msg.sender];
        if (self.roles != 0) revert NodeRegistryAlreadyRegistered(msg.sender);
        _checkTexts(params.roles, params.endpoint, params.url, params.region, params.profile);
        uint256 minimum = minimumStake(params.roles);
        if (stake < minimum) revert NodeRegistryStakeTooSmall(msg.sender, stake, minimum);

        uint32 term = ++self.term;
        self.roles = params.roles;
        self.endpoint = params.endpoint;
        self.url = params.url;
        self.region = params.region;
        self.profile = params.profile;
        _takeSigner(self, params.signer);
        _takeLinkKey(self, params.linkKey);
        emit NodeRegistered(msg.sender, params.signer, term, params);
        _addStake(self, stake);
    }

    /// @inheritdoc INodeRegistry
    function deregister() external override onlyRegistered {
        Node storage self = _nodes[msg.sender];
        signerRecord[self.signer].retiredAt = uint48(block.timestamp);
        self.roles = 0;
        delete self.signer;
        delete self.linkKey;
        delete self.endpoint;
        delete self.url;
        delete self.region;
        delete self.profile;
        emit NodeDeregistered(msg.sender);
        if (self.stake != 0) _thaw(self, self.stake);
    }

    /// @inheritdoc INodeRegistry
    function setSigner(address signer) external override onlyRegistered {
        Node storage self = _nodes[msg.sender];
        address old = self.signer;
        signerRecord[old].retiredAt = uint48(block.timestamp);
        _takeSigner(self, signer);
        emit SignerChanged(msg.sender, old, signer);
    }

    /// @inheritdoc INodeRegistry
    function setRoles(uint8 roles) external override onlyRegistered {
        Node storage self = _nodes[msg.sender];
        _checkTexts(roles, self.endpoint, self.url, self.region, self.profile);
        uint256 minimum = minimumStake(roles);
        if (roles & ~self.roles != 0 && self.stake < minimum) {
            revert NodeRegistryStakeTooSmall(msg.sender, self.stake, minimum);
        }
        self.roles = roles;
        emit RolesChanged(msg.sender, roles);
    }

    /// @inheritdoc INodeRegistry
    function setEndpoint(string calldata endpoint, string calldata url, bytes32 linkKey)
        external
        override
        onlyRegistered
    {
        Node storage self = _nodes[msg.sender];
        _checkTexts(self.roles, endpoint, url, self.region, self.profile);
        self.endpoint = endpoint;
        self.url = url;
        _takeLinkKey(self, linkKey);
        emit EndpointChanged(msg.sender, endpoint, url, linkKey);
    }

    /// @inheritdoc INodeRegistry
    function setProfile(string calldata region, string calldata profile) external override onlyRegistered {
        Node storage self = _nodes[msg.sender];
        _checkTexts(self.roles, self.endpoint, self.url, region, profile);
        self.region = region;
        self.profile = profile;
        emit ProfileChanged(msg.sender, region, profile);
    }

    // Stake

    /// @inheritdoc INodeRegistry
    function addStake(uint128 amount) external override onlyRegistered nonReentrant {
        if (amount == 0) revert NodeRegistryZeroAmount();
        _addStake(_nodes[msg.sender], amount);
    }

    /// @inheritdoc INodeRegistry
    function beginUnstake(uint128 amount) external override onlyRegistered {
        if (amount == 0) revert NodeRegistryZeroAmount();
        Node storage self = _nodes[msg.sender];
        if (amount > self.stake) revert NodeRegistryInsufficientStake(msg.sender, self.stake, amount);
        _thaw(self, amount);
    }

    /// @inheritdoc INodeRegistry
    function cancelUnstake() external override onlyRegistered {
        Node storage self = _nodes[msg.sender];
        uint128 amount = self.thawing;
        if (amount == 0) revert NodeRegistryNothingThawing(msg.sender);
        self.thawing = 0;
        self.stake += amount;
        emit UnstakeCancelled(msg.sender, amount, self.stake);
    }

    /// @inheritdoc INodeRegistry
    function withdraw() external override nonReentrant {
        Node storage self = _nodes[msg.sender];
        uint128 amount = self.thawing;
        if (amount == 0) revert NodeRegistryNothingThawing(msg.sender);
        if (block.timestamp < self.thawEndsAt) revert NodeRegistryStillThawing(msg.sender, self.thawEndsAt);
        // Anybody can pay a node dust; what that locks must not hold back the rest.
        uint256 locked = lockedStake(msg.sender);
        uint256 kept = locked > self.stake ? locked - self.stake : 0;
        if (kept >= amount) revert NodeRegistryStakeLocked(msg.sender, uint256(self.stake) + amount, locked);
        // casting to 'uint128' is safe because `kept` is less than the amount
        // forge-lint: disable-next-line(unsafe-typecast)
        self.thawing = uint128(kept);
        amount -= self.thawing;
        totalStaked -= amount;
        emit StakeWithdrawn(msg.sender, amount);
        token.safeTransfer(msg.sender, amount);
    }

    // Offers

    /// @inheritdoc INodeRegistry
    function setOffer(
        bytes32 model,
        uint16 firstLayer,
        uint16 endLayer,
        uint8 numericProfile,
        uint128 promptPrice,
        uint128 outputPrice
    ) external override {
        Node storage self = _nodes[msg.sender];
        if (self.roles & (WORKER | AUDITOR) == 0) revert NodeRegistryNotWorker(msg.sender);
        if (firstLayer >= endLayer) revert NodeRegistryInvalidLayers(firstLayer, endLayer);
        _offers[msg.sender][model][numericProfile] =
            Offer(firstLayer, endLayer, numericProfile, self.term, promptPrice, outputPrice);
        emit OfferSet(msg.sender, model, firstLayer, endLayer, numericProfile, promptPrice, outputPrice);
    }

    /// @inheritdoc INodeRegistry
    function removeOffer(bytes32 model, uint8 numericProfile) external override {
        if (offer(msg.sender, model, numericProfile).endLayer == 0) {
            revert NodeRegistryNoOffer(msg.sender, model, numericProfile);
        }
        delete _offers[msg.sender][model][numericProfile];
        emit OfferRemoved(msg.sender, model, numericProfile);
    }

    // Sentences

    /// @inheritdoc INodeRegistry
    function slash(address operator, uint128 amount, address to)
        external
        override
        onlyCourt
        nonReentrant
        returns (uint128 taken)
    {
        Node storage self = _nodes[operator];
        uint128 fromStake = amount < self.stake ? amount : self.stake;
        uint128 fromThawing = amount - fromStake < self.thawing ? amount - fromStake : self.thawing;
        taken = fromStake + fromThawing;
        self.stake -= fromStake;
        self.thawing -= fromThawing;
        totalStaked -= taken;
        emit StakeSlashed(operator, to, taken, self.stake, self.thawing);
        token.safeTransfer(to, taken);
    }

    /// @inheritdoc INodeRegistry
    function jail(address operator, uint48 until) external override onlyCourt {
        if (until > jailedUntil[operator]) jailedUntil[operator] = until;
        emit NodeJailed(operator, jailedUntil[operator]);
    }

    /// @inheritdoc INodeRegistry
    function recordLoss(address operator, uint256 amount) external override onlyCourt {
        _recordLoss(operator, amount);
    }

    // Views

    /// @inheritdoc INodeRegistry
    function minimumStake(uint8 roles) public view override returns (uint256 minimum) {
        if (roles == 0 || roles > ALL_ROLES) revert NodeRegistryInvalidRoles(roles);
        if (roles & WORKER != 0) minimum += MIN_WORKER_STAKE;
        if (roles & GATEWAY != 0) minimum += MIN_GATEWAY_STAKE;
        if (roles & AUDITOR != 0) minimum += MIN_AUDITOR_STAKE;
    }

    /// @inheritdoc INodeRegistry
    function node(address operator) external view override returns (Node memory) {
        return _nodes[operator];
    }

    /// @inheritdoc INodeRegistry
    function operatorOf(address account) public view override returns (address) {
        // A registered operator is always itself: nobody can take it over by naming it as a signer first.
        if (_nodes[account].roles != 0) return account;
        address operator = signerRecord[account].operator;
        return _nodes[operator].signer == account ? operator : address(0);
    }

    /// @inheritdoc INodeRegistry
    function isActive(address operator, uint8 role) public view override returns (bool) {
        Node storage self = _nodes[operator];
        uint8 roles = self.roles;
        return role != 0 && roles & role == role && self.stake >= minimumStake(roles)
            && block.timestamp >= jailedUntil[operator];
    }

    /// @inheritdoc INodeRegistry
    function activeOperator(address account, uint8 role) external view override returns (address operator) {
        operator = operatorOf(account);
        if (!isActive(operator, role)) revert NodeRegistryNotActive(account, role);
    }

    /// @inheritdoc INodeRegistry
    function offer(address operator, bytes32 model, uint8 numericProfile)
        public
        view
        override
        returns (Offer memory found)
    {
        found = _offers[operator][model][numericProfile];
        if (_nodes[operator].roles & (WORKER | AUDITOR) == 0 || found.term != _nodes[operator].term) delete found;
    }

    /// @inheritdoc INodeRegistry
    function lockedStake(address operator) public view override returns (uint256) {
        return LOCK_MULTIPLE * IEarnings(ledger).lockedEarnings(operator);
    }

    /// @inheritdoc INodeRegistry
    function parameters() external view override returns (Parameters memory) {
        // casting is safe because the constructor took the values in these sizes
        // forge-lint: disable-start(unsafe-typecast)
        return Parameters({
            thawPeriod: thawPeriod,
            lockMultiple: uint16(LOCK_MULTIPLE),
            halfWeight: uint96(HALF_WEIGHT),
            decayEpochs: uint16(DECAY_EPOCHS),
            minWorkerStake: uint128(MIN_WORKER_STAKE),
            minGatewayStake: uint128(MIN_GATEWAY_STAKE),
            minAuditorStake: uint128(MIN_AUDITOR_STAKE)
        });
        // forge-lint: disable-end(unsafe-typecast)
    }

    // Inner workings

    function _addStake(Node storage self, uint128 amount) private {
        self.stake += amount;
        totalStaked += amount;
        emit StakeAdded(msg.sender, amount, self.stake);
        token.pull(msg.sender, amount);
    }

    function _thaw(Node storage self, uint128 amount) private {
        self.stake -= amount;
        self.thawing += amount;
        self.thawEndsAt = uint48(block.timestamp) + thawPeriod;
        emit UnstakeBegun(msg.sender, amount, self.stake, self.thawing, self.thawEndsAt);
    }

    function _takeSigner(Node storage self, address signer) private {
        if (signer == address(0)) revert NodeRegistryZeroSigner();
        address holder = signerRecord[signer].operator;
        if (holder != address(0) && holder != msg.sender) revert NodeRegistrySignerTaken(signer, holder);
        if (signer != msg.sender && _nodes[signer].roles != 0) revert NodeRegistrySignerTaken(signer, signer);
        signerRecord[signer] = SignerRecord(msg.sender, 0);
        self.signer = signer;
    }

    function _takeLinkKey(Node storage self, bytes32 linkKey) private {
        if (linkKey == 0) revert NodeRegistryZeroLinkKey();
        address holder = operatorOfLinkKey[linkKey];
        if (holder != address(0) && holder != msg.sender) revert NodeRegistryLinkKeyTaken(linkKey, holder);
        operatorOfLinkKey[linkKey] = msg.sender;
        self.linkKey = linkKey;
    }

    function _checkTexts(
        uint8 roles,
        string memory endpoint,
        string memory url,
        string memory region,
        string memory profile
    ) private pure {
        _checkText("endpoint", endpoint, 1);
        _checkText("url", url, roles & GATEWAY == 0 ? 0 : 1);
        _checkText("region", region, 0);
        _checkText("profile", profile, 0);
    }

    function _checkText(string memory field, string memory text, uint256 minimum) private pure {
        uint256 length = bytes(text).length;
        if (length < minimum || length > MAX_TEXT_LENGTH) {
            revert NodeRegistryInvalidText(field, length, minimum, MAX_TEXT_LENGTH);
        }
    }

    function _stakeOf(address operator) internal view override returns (uint256) {
        return _nodes[operator].stake;
    }

    function _check(string memory parameter, uint256 value, uint256 minimum, uint256 maximum) private pure {
        if (value < minimum || value > maximum) {
            revert NodeRegistryParameterOutOfBounds(parameter, value, minimum, maximum);
        }
    }
}
