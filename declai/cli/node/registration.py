"""`declai node register` and `deregister`."""

from __future__ import annotations

import re
from pathlib import Path

import click
from eth_utils.address import is_address, to_checksum_address
from pydantic import TypeAdapter, ValidationError

from declai.chain.contracts.nodes import Registration, Role
from declai.cli.node.operating import Operating, open_operating, print_node
from declai.cli.options import CREDITS, network_option, operator_options
from declai.cli.output import json_option
from declai.links.keys import LinkKeyPair
from declai.protocol.peers import RELAY, Endpoint
from declai.wallets import wallet_address

MAX_TEXT_BYTES = 256
ROLES = {role.name.lower(): role for role in Role if role.name}


def _text(ctx: click.Context, parameter: click.Parameter, value: str) -> str:
    if len(value.encode()) > MAX_TEXT_BYTES:
        raise click.BadParameter(f"{len(value.encode())} bytes are too long: the registry keeps {MAX_TEXT_BYTES}")
    return value


def _endpoint(ctx: click.Context, parameter: click.Parameter, value: str) -> str:
    if value == RELAY:
        return value
    try:
        return _text(ctx, parameter, TypeAdapter(Endpoint).validate_python(value))
    except ValidationError:
        raise click.BadParameter(
            f"{value!r} is not tcp://HOST:PORT, such as tcp://node.example:8082, nor {RELAY}"
        ) from None


def _url(ctx: click.Context, parameter: click.Parameter, value: str) -> str:
    if value and not re.fullmatch(r"https?://[^/?#\s]+/?", value):
        raise click.BadParameter(f"{value!r} is not http(s)://HOST[:PORT], such as https://gateway.example")
    return _text(ctx, parameter, value.rstrip("/"))


@click.command()
@click.option("--signer", required=True, help="Address of the hot key, or a wallet's name or keystore file.")
@click.option(
    "--link-key",
    required=True,
    help="File of the node's CURVE key pair, made when there is none; or 0x and the public key.",
)
@click.option(
    "--endpoint",
    required=True,
    callback=_endpoint,
    help="Where links reach the node: tcp://HOST:PORT; or relay, when nobody can connect to it.",
)
@click.option(
    "--role",
    "roles",
    type=click.Choice(list(ROLES)),
    multiple=True,
    default=["worker"],
    show_default=True,
    help="May be repeated; the minimum stakes add up.",
)
@click.option("--url", default="", callback=_url, help="Where HTTP reaches it; gateways need one.")
@click.option("--region", default="", callback=_text, help="Free text such as eu-west.")
@click.option("--profile", default="", callback=_text, help="CID of the hardware profile.")
@click.option("--stake", type=CREDITS, help="Credits. [default: the minimum of the roles]")
@network_option
@operator_options
@json_option
def register(
    signer: str,
    link_key: str,
    endpoint: str,
    roles: tuple[str, ...],
    url: str,
    region: str,
    profile: str,
    stake: int | None,
    network_path: Path | None,
    wallet_name: str,
    password_file: Path | None,
    as_json: bool,
) -> None:
    """Stake, and register the node of the operator's wallet.

    The signer is the hot key that the serving machine holds; it can withdraw nothing.

    \b
    declai wallet new operator
    declai wallet new signer
    declai node register --signer signer --link-key link.key \\
        --endpoint tcp://node.example:8082
    """
    bits = Role(sum(ROLES[name] for name in set(roles)))
    if bits & Role.GATEWAY and not url:
        raise click.UsageError("a gateway needs --url, such as https://gateway.example")
    if bits & Role.GATEWAY and endpoint == RELAY:
        raise click.UsageError("a gateway must be reachable: --endpoint tcp://HOST:PORT")
    operating = open_operating(network_path, wallet_name, password_file)
    registration = Registration(
        signer=_signer(signer, operating),
        roles=int(bits),
        link_key=_link_key(link_key),
        endpoint=endpoint,
        url=url,
        region=region,
        profile=profile,
    )
    operator = operating.operator()
    receipt = operator.register(registration, stake)
    more = {"signer": registration.signer, "link_key": "0x" + registration.link_key.hex()}
    print_node(operator, operator.node(), receipt, as_json, **more)


def _signer(value: str, operating: Operating) -> str:
    if value.startswith("0x") and not is_address(value):
        raise click.BadParameter(
            f"{value!r} is not an address: 0x and 40 hexadecimal digits, with a right checksum", param_hint="--signer"
        )
    return str(to_checksum_address(value if is_address(value) else wallet_address(value, operating.network)))


def _link_key(value: str) -> bytes:
    """The public key. A pair that has to be made is for the machine that serves: its file goes there."""
    if value.startswith("0x"):
        try:
            key = bytes.fromhex(value[2:])
        except ValueError:
            key = b""
        if len(key) != 32 or not any(key):
            raise click.BadParameter(f"{value!r} is no link key: 0x and 64 hexadecimal digits", param_hint="--link-key")
        return key
    path = Path(value)
    return (LinkKeyPair.load(path) if path.exists() else LinkKeyPair.create(path)).public


@click.command()
@network_option
@operator_options
@json_option
def deregister(network_path: Path | None, wallet_name: str, password_file: Path | None, as_json: bool) -> None:
    """End the registration: offers are void at once, all stake thaws.

    What gateways still owe can be claimed afterwards, too, with the operator's wallet (`declai node claim`).

    \b
    declai node deregister --wallet operator
    declai node withdraw --wallet operator         # after the thaw
    """
    operator = open_operating(network_path, wallet_name, password_file).operator()
    receipt = operator.deregister()
    print_node(operator, operator.chain.nodes.node(operator.address), receipt, as_json)
