"""Opens what the gateway's parts share, from one settings object: keys, chain, store, blocks, settlement."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from eth_account.signers.local import LocalAccount

from declai.api.settings import GatewaySettings
from declai.api.settlement.settle import Settlement
from declai.api.store.store import Store
from declai.chain.client import Chain, Deployment
from declai.chain.errors import DeploymentError
from declai.chain.keystore import open_keystore, read_password
from declai.ipfs.store import BlockStore

# Of several chances to settle what a closing session owes, one has to succeed.
SETTLEMENTS_PER_THAW = 4


@dataclass(frozen=True)
class Keys:
    """The gateway's hot keys: `signer` signs assignments and settles, `session` signs for API keys."""

    signer: LocalAccount = field(repr=False)
    session: LocalAccount = field(repr=False)


def open_chain(settings: GatewaySettings) -> Chain:
    """The deployment's chain, checked. Raises ChainError."""
    chain = Chain(settings.rpc_url, Deployment.load(settings.deployment))
    chain.check()
    return chain


def open_keys(settings: GatewaySettings) -> Keys:
    password = read_password(settings.password_file)
    return Keys(open_keystore(settings.signer_keystore, password), open_keystore(settings.session_keystore, password))


def operator_of(settings: GatewaySettings, chain: Chain, signer: str) -> str:
    """The operator whose signer this gateway has. Raises DeploymentError when the registry knows none."""
    operator = chain.nodes.operator_of(signer)
    if int(operator, 16) == 0:
        raise DeploymentError(f"no gateway is registered with the signer {signer}: register it first")
    if settings.operator and settings.operator.lower() != operator.lower():
        raise DeploymentError(f"signer {signer} belongs to {operator}, the settings say {settings.operator}")
    return operator


def check_interval(settings: GatewaySettings, chain: Chain) -> None:
    """Refuse to settle so seldom that payers could take their budgets back first. Raises DeploymentError."""
    thaw_period_s = chain.ledger.thaw_period_s()
    if settings.settle_every_s * SETTLEMENTS_PER_THAW > thaw_period_s:
        raise DeploymentError(
            f"a payer can close a session within {thaw_period_s} s: settle at least every "
            f"{thaw_period_s // SETTLEMENTS_PER_THAW} s (DECLAI_SETTLE_EVERY_S), not every {settings.settle_every_s:g}"
        )


@contextmanager
def open_settlement(settings: GatewaySettings) -> Iterator[Settlement]:
    """Everything that the settlement job needs, closed again afterwards."""
    chain, keys = open_chain(settings), open_keys(settings)
    check_interval(settings, chain)
    store = Store(settings.store_url)
    try:
        yield Settlement(
            store,
            BlockStore(settings.blocks_dir),
            chain,
            keys.signer,
            gateway=operator_of(settings, chain, keys.signer.address),
            depth=settings.confirmation_depth,
            max_claims=settings.max_claims_per_batch,
            max_receipts=settings.max_receipts_per_batch,
            lock_path=settings.data_dir / "settlement.lock",
        )
    finally:
        store.close()
