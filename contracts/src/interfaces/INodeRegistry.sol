// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";

/// @title Who may serve, with what stake, and at which price
/// @notice A node is known by its **operator**, a cold wallet that owns stake and earnings. Its **signer** is a hot key on
/// the serving machine: it signs receipts and assignments and can withdraw nothing. Signers and link keys belong to one
/// operator forever, so an old signature always says whose it was; who finds his unused key taken takes another.
///
/// Roles are bits: 1 worker, 2 gateway, 4 auditor. Each role has a minimum stake and a node needs the sum over its
/// roles; a node below it is inactive in all of them. Stake leaves by a thaw: `beginUnstake`, a wait, `withdraw`. Thawing stake
/// can still be slashed, and what was earned lately keeps a multiple of itself from being withdrawn, so that whatever is
/// found out while it can be disputed finds stake to take. Always: token balance = stake + thawing stake of all nodes, and
/// deposited = that + withdrawn + slashed.
interface INodeRegistry {
    /// @notice What an operator says about a node when it registers.
    /// @param signer Hot key.
    /// @param roles Bits of the roles.
    /// @param linkKey Public CURVE key of the node's links.
    /// @param endpoint Where links reach it, as tcp://host:port.
    /// @param url Where HTTP reaches it; gateways need one.
    /// @param region Free text such as eu-west.
    /// @param profile CID of the hardware profile; may be empty.
    struct RegisterParams {
        address signer;
        uint8 roles;
        bytes32 linkKey;
        string endpoint;
        string url;
        string region;
        string profile;
    }

    /// @notice A node as it stands.
    /// @param signer Current hot key; zero when not registered.
    /// @param roles Bits of the roles; zero when not registered.
    /// @param term Counts registrations of this operator; an offer is void once its term is over.
    /// @param thawEndsAt Unix time, in seconds, from which thawing stake can be withdrawn.
    /// @param stake Base units at work.
    /// @param thawing Base units on their way out.
    /// @param linkKey Public CURVE key of the node's links.
    /// @param endpoint Where links reach it.
    /// @param url Where HTTP reaches it.
    /// @param region Free text.
    /// @param profile CID of the hardware profile.
    struct Node {
        address signer;
        uint8 roles;
        uint32 term;
        uint48 thawEndsAt;
        uint128 stake;
        uint128 thawing;
        bytes32 linkKey;
        string endpoint;
        string url;
        string region;
        string profile;
    }

    /// @notice What a worker serves of a model, and for how much.
    /// @param firstLayer First layer.
    /// @param endLayer Layer after the last one; zero when there is no offer.
    /// @param numericProfile Number format the stage computes in (0 fp32, 1 bf16, 2 fp16, 3 int8; others may follow).
    /// @param term Registration that made the offer.
    /// @param promptPrice Base units per million token-layers of prompt.
    /// @param outputPrice Base units per million token-layers of output.
    struct Offer {
        uint16 firstLayer;
        uint16 endLayer;
        uint8 numericProfile;
        uint32 term;
        uint128 promptPrice;
        uint128 outputPrice;
    }

    /// @notice Amounts in base units.
    /// @param thawPeriod Seconds between `beginUnstake` and `withdraw`.
    /// @param lockMultiple Stake that a credit earned lately keeps from being withdrawn, in credits.
    /// @param halfWeight Worth of work that moves a score half way to its outcome.
    /// @param decayEpochs Idle epochs after which a score is half as far from the newcomer's.
    /// @param minWorkerStake Minimum stake of a worker.
    /// @param minGatewayStake Minimum stake of a gateway.
    /// @param minAuditorStake Minimum stake of an auditor.
    struct Parameters {
        uint48 thawPeriod;
        uint16 lockMultiple;
        uint96 halfWeight;
        uint16 decayEpochs;
        uint128 minWorkerStake;
        uint128 minGatewayStake;
        uint128 minAuditorStake;
    }

    /// @notice An operator registered; its stake follows as `StakeAdded`.
    event NodeRegistered(address indexed operator, address indexed signer, uint32 term, RegisterParams params);
    /// @notice An operator left: its signer is retired, its offers are void, all its stake thaws (see `UnstakeBegun`).
    event NodeDeregistered(address indexed operator);
    event SignerChanged(address indexed operator, address indexed oldSigner, address indexed newSigner);
    event RolesChanged(address indexed operator, uint8 roles);
    event EndpointChanged(address indexed operator, string endpoint, string url, bytes32 linkKey);
    event ProfileChanged(address indexed operator, string region, string profile);
    /// @param stake Stake at work after the event.
    event StakeAdded(address indexed operator, uint128 amount, uint128 stake);
    /// @param stake Stake at work after the event.
    /// @param thawing Stake thawing after the event.
    event UnstakeBegun(address indexed operator, uint128 amount, uint128 stake, uint128 thawing, uint48 thawEndsAt);
    /// @param amount What went back to work, all that was thawing.
    /// @param stake Stake at work after the event.
    event UnstakeCancelled(address indexed operator, uint128 amount, uint128 stake);
    /// @param amount What left, of what had thawed.
    event StakeWithdrawn(address indexed operator, uint128 amount);
    event OfferSet(
        address indexed operator,
        bytes32 indexed model,
        uint16 firstLayer,
        uint16 endLayer,
        uint8 numericProfile,
        uint128 promptPrice,
        uint128 outputPrice
    );
    event OfferRemoved(address indexed operator, bytes32 indexed model, uint8 numericProfile);
    /// @notice The court took stake: first what is at work, then what thaws.
    /// @param to Who received it.
    /// @param stake Stake at work after the event.
    /// @param thawing Stake thawing after the event.
    event StakeSlashed(address indexed operator, address indexed to, uint128 amount, uint128 stake, uint128 thawing);
    /// @notice The court put a node out of work until a time, which no earlier sentence shortens.
    event NodeJailed(address indexed operator, uint48 until);
    /// @param score In [0, 1e18].
    /// @param epoch Epoch of the work that it now contains.
    event ReputationChanged(address indexed operator, uint64 score, uint16 epoch);

    error NodeRegistryParameterOutOfBounds(string parameter, uint256 value, uint256 minimum, uint256 maximum);
    error NodeRegistryZeroAddress();
    error NodeRegistryNotLedger(address account);
    error NodeRegistryNotCourt(address account);
    error NodeRegistryAlreadyRegistered(address operator);
    error NodeRegistryNotRegistered(address operator);
    /// @notice Roles are a set of the bits 1, 2 and 4, and not empty.
    error NodeRegistryInvalidRoles(uint8 roles);
    error NodeRegistryStakeTooSmall(address operator, uint256 stake, uint256 minimum);
    error NodeRegistryZeroAmount();
    error NodeRegistryZeroSigner();
    /// @notice The address already serves, or served, another operator, or is one.
    error NodeRegistrySignerTaken(address signer, address operator);
    error NodeRegistryZeroLinkKey();
    error NodeRegistryLinkKeyTaken(bytes32 linkKey, address operator);
    /// @notice Texts are bounded, the endpoint is not empty, and a gateway has a url.
    error NodeRegistryInvalidText(string field, uint256 length, uint256 minimum, uint256 maximum);
    error NodeRegistryInsufficientStake(address operator, uint256 stake, uint256 amount);
    error NodeRegistryNothingThawing(address operator);
    error NodeRegistryStillThawing(address operator, uint256 thawEndsAt);
    /// @notice Recent earnings lock all that has thawed.
    /// @param stake Stake at work and thawed.
    error NodeRegistryStakeLocked(address operator, uint256 stake, uint256 locked);
    /// @notice Workers offer to serve; auditors say with an offer what they can rerun.
    error NodeRegistryNotWorker(address operator);
    error NodeRegistryInvalidLayers(uint16 firstLayer, uint16 endLayer);
    error NodeRegistryNoOffer(address operator, bytes32 model, uint8 numericProfile);
    /// @notice The account is neither operator nor signer of a node that is active in the role.
    error NodeRegistryNotActive(address account, uint8 role);

    /// @notice Registers the caller as an operator and pulls `stake` base units by allowance.
    function register(RegisterParams calldata params, uint128 stake) external;

    /// @notice Ends the caller's registration and thaws all its stake.
    function deregister() external;

    /// @notice Rotates the hot key. The old one stays known as retired from this block's time.
    function setSigner(address signer) external;

    /// @notice Changes the roles; a role can be added only with the stake for all of them.
    function setRoles(uint8 roles) external;

    function setEndpoint(string calldata endpoint, string calldata url, bytes32 linkKey) external;

    function setProfile(string calldata region, string calldata profile) external;

    /// @notice Pulls `amount` base units by allowance and puts them to work.
    function addStake(uint128 amount) external;

    /// @notice Starts to thaw `amount`. The clock of all that is thawing starts anew.
    function beginUnstake(uint128 amount) external;

    /// @notice Puts all that is thawing back to work. Needs a registration.
    function cancelUnstake() external;

    /// @notice Sends to the caller what has thawed, but for what the stake at work lacks of the stake that recent earnings lock:
    /// that can be withdrawn once they lock it no more.
    function withdraw() external;

    /// @notice Sets the caller's offer for a model in a numeric profile: one for each, the newest counts.
    function setOffer(
        bytes32 model,
        uint16 firstLayer,
        uint16 endLayer,
        uint8 numericProfile,
        uint128 promptPrice,
        uint128 outputPrice
    ) external;

    function removeOffer(bytes32 model, uint8 numericProfile) external;

    /// @notice Takes up to `amount` of a node's stake, thawing or not, and sends it to `to`. The court alone may.
    /// @return taken What there was to take.
    function slash(address operator, uint128 amount, address to) external returns (uint128 taken);

    /// @notice Makes a node inactive until a time (Unix, in seconds). The court alone may.
    function jail(address operator, uint48 until) external;

    /// @notice Lowers a node's score after a lost dispute over `amount` base units. The court alone may.
    function recordLoss(address operator, uint256 amount) external;

    /// @notice Takes an epoch's work into a node's score. The ledger alone may; it does so once per node and epoch.
    function recordWork(address operator, uint16 epoch, uint96 earned, uint96 faulted) external;

    /// @notice Token that is staked.
    function token() external view returns (IERC20);

    /// @notice Ledger that counts earnings.
    function ledger() external view returns (address);

    /// @notice Court that slashes.
    function court() external view returns (address);

    function parameters() external view returns (Parameters memory);

    /// @notice Seconds between `beginUnstake` and `withdraw`.
    function thawPeriod() external view returns (uint48);

    /// @notice Stake, in base units, that a node with these roles needs: the sum over its roles.
    function minimumStake(uint8 roles) external view returns (uint256);

    /// @notice Stake plus thawing stake of all nodes, in base units: what this contract owes.
    function totalStaked() external view returns (uint256);

    /// @notice The node of an operator; all zero when it never registered.
    function node(address operator) external view returns (Node memory);

    /// @notice Operator of a current signer, or the account itself when it is a registered operator; else zero.
    function operatorOf(address account) external view returns (address);

    /// @notice Whose signer an address is or was, and since when it is retired (0: it is not).
    function signerRecord(address signer) external view returns (address operator, uint48 retiredAt);

    /// @notice Operator that holds or held a link key, or zero.
    function operatorOfLinkKey(bytes32 linkKey) external view returns (address);

    /// @notice Whether the operator's node has the role and its minimum stake, and is not in jail.
    function isActive(address operator, uint8 role) external view returns (bool);

    /// @notice Operator behind an account (operator or signer) whose node is active in the role; reverts otherwise.
    function activeOperator(address account, uint8 role) external view returns (address);

    /// @notice An operator's offer for a model in a numeric profile; all zero when there is none.
    function offer(address operator, bytes32 model, uint8 numericProfile) external view returns (Offer memory);

    /// @notice Unix time, in seconds, until which a node is in jail; zero when it never was.
    function jailedUntil(address operator) external view returns (uint48);

    /// @notice Stake, in base units, that a node's recent earnings keep from being withdrawn.
    function lockedStake(address operator) external view returns (uint256);

    /// @notice A node's score in [0, 1e18]: 0.5e18 for a newcomer, with the work that is not yet recorded.
    function reputation(address operator) external view returns (uint256);
}
