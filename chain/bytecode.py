"""Whether the code on a chain is the code of this package, and the contracts know one another."""

from __future__ import annotations

from hexbytes import HexBytes

from declai.chain.artifacts import artifact
from declai.chain.client import Chain, Rpc
from declai.chain.contracts.binding import typed_errors
from declai.chain.errors import DeploymentError


def check_code(rpc: Rpc, name: str, address: str) -> None:
    """Raises DeploymentError when the code at an address is not a contract's; what its constructor filled in aside."""
    with typed_errors():
        code = bytes(rpc.w3.eth.get_code(rpc.w3.to_checksum_address(address)))
    if not code:
        raise DeploymentError(f"there is no code at {address}, where {name} should be")
    compiled = artifact(name)
    expected, found = bytearray(HexBytes(compiled.deployed_bytecode)), bytearray(code)
    for start, length in compiled.immutables:
        found[start : start + length] = expected[start : start + length]
    if found != expected:
        raise DeploymentError(f"the code at {address} is not that of {name} in this version")


def verify(chain: Chain) -> dict[str, str]:
    """Check every contract of a deployment, and the two that the court made; returns their addresses by name.

    Raises:
        DeploymentError: another chain, code that is not ours, or contracts that don't know each other.
    """
    nodes, ledger, court = chain.nodes, chain.ledger, chain.court
    if chain.chain_id != chain.deployment.chain_id:
        raise DeploymentError(f"this is chain {chain.chain_id}, the deployment is on {chain.deployment.chain_id}")
    at = {str(name): address for name, address in chain.deployment.contracts.items()}
    for name, address in at.items():
        check_code(chain, name, address)
    links = {
        "NodeRegistry.token": (nodes.token_address(), at["CreditToken"]),
        "NodeRegistry.ledger": (nodes.ledger_address(), at["InferenceLedger"]),
        "NodeRegistry.court": (nodes.court_address(), at["DisputeCourt"]),
        "InferenceLedger.token": (ledger.token_address(), at["CreditToken"]),
        "InferenceLedger.nodes": (ledger.nodes_address(), at["NodeRegistry"]),
        "DisputeCourt.ledger": (court.ledger_address(), at["InferenceLedger"]),
    }
    for link, (found, expected) in links.items():
        if found != expected:
            raise DeploymentError(f"{link} is {found}, not {expected}")
    made = {"Jury": court.jury_address(), "Examiner": court.examiner_address()}
    for name, address in made.items():
        check_code(chain, name, address)
    return {**at, **made}
