"""Sign-In with Ethereum messages (EIP-4361): a strict parser and the checks that make one signature one sign-in."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import urlsplit

from eth_utils.address import to_checksum_address

from declai.protocol.errors import MalformedSignIn, SignInRefused

MAX_MESSAGE_CHARS = 4096
CLOCK_SKEW_S = 60
_HEADER = re.compile(
    r"^(?:(?P<scheme>[a-z][a-z0-9+.-]*)://)?(?P<domain>[^\s/?#]{1,255})"
    r" wants you to sign in with your Ethereum account:$"
)
# RFC 3986's reserved and unreserved characters, and the space.
_STATEMENT = re.compile(r"[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;= ]+")
_URI = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*:[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]*")
# RFC 3986's pchar, as in one segment of a path.
_REQUEST_ID = re.compile(r"([A-Za-z0-9\-._~!$&'()*+,;=:@]|%[0-9A-Fa-f]{2})*")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:\d\d)", re.ASCII)
_FIELDS = (
    ("URI", True),
    ("Version", True),
    ("Chain ID", True),
    ("Nonce", True),
    ("Issued At", True),
    ("Expiration Time", False),
    ("Not Before", False),
    ("Request ID", False),
)


@dataclass(frozen=True)
class SignIn:
    """A parsed message. `address` as written; times are aware datetimes."""

    scheme: str | None
    domain: str
    address: str
    uri: str
    chain_id: int
    nonce: str
    issued_at: datetime
    expires_at: datetime | None
    not_before: datetime | None
    statement: str | None
    request_id: str | None
    resources: tuple[str, ...]


def parse(message: str) -> SignIn:
    """Parse a message by EIP-4361's grammar.

    Raises:
        MalformedSignIn: any deviation; the text says where.
    """
    if len(message) > MAX_MESSAGE_CHARS:
        raise MalformedSignIn(f"a sign-in message has at most {MAX_MESSAGE_CHARS} characters")
    lines = message.split("\n")
    header = _HEADER.match(lines[0])
    if header is None or len(lines) < 4:
        raise MalformedSignIn("the first line is not that of an EIP-4361 message")
    if not re.fullmatch(r"0x[0-9a-fA-F]{40}", lines[1]) or lines[2] != "":
        raise MalformedSignIn("the second line must be an address, the third one empty")
    if lines[1] != to_checksum_address(lines[1]):
        raise MalformedSignIn(f"the address must be written {to_checksum_address(lines[1])} (EIP-55)")
    statement = lines[3] or None
    at = 4 if statement is None else 5
    if statement is not None and (not _STATEMENT.fullmatch(statement) or lines[4:5] != [""]):
        raise MalformedSignIn("a statement is one line of ASCII text, followed by an empty line")
    values: dict[str, str] = {}
    for name, required in _FIELDS:
        if at < len(lines) and lines[at].startswith(f"{name}: "):
            values[name] = lines[at][len(name) + 2 :]
            at += 1
        elif required:
            raise MalformedSignIn(f"the line '{name}: ...' is missing or out of place")
    resources: list[str] = []
    if at < len(lines) and lines[at] == "Resources:":
        resources = lines[at + 1 :]
        at = len(lines)
    if at != len(lines) or not all(line.startswith("- ") for line in resources):
        raise MalformedSignIn("the message goes on after its last field")
    return _checked(header, lines[1], statement, values, tuple(line[2:] for line in resources))


def _checked(
    header: re.Match[str], address: str, statement: str | None, values: dict[str, str], resources: tuple[str, ...]
) -> SignIn:
    if values["Version"] != "1" or not re.fullmatch(r"[1-9][0-9]{0,15}", values["Chain ID"]):
        raise MalformedSignIn("version 1 and a decimal chain id are needed")
    if not all(_URI.fullmatch(uri) for uri in (values["URI"], *resources)):
        raise MalformedSignIn("the URI and every resource must be URIs (RFC 3986)")
    if not re.fullmatch(r"[A-Za-z0-9]{8,64}", values["Nonce"]):
        raise MalformedSignIn("the nonce has 8 to 64 letters and digits")
    request_id = values.get("Request ID")
    if request_id is not None and not _REQUEST_ID.fullmatch(request_id):
        raise MalformedSignIn("the request id holds characters that RFC 3986's pchar does not know")
    return SignIn(
        scheme=header["scheme"],
        domain=header["domain"],
        address=address,
        uri=values["URI"],
        chain_id=int(values["Chain ID"]),
        nonce=values["Nonce"],
        issued_at=_time(values["Issued At"]),
        expires_at=_time(values["Expiration Time"]) if "Expiration Time" in values else None,
        not_before=_time(values["Not Before"]) if "Not Before" in values else None,
        statement=statement,
        request_id=request_id,
        resources=resources,
    )


def _time(text: str) -> datetime:
    try:
        if _TIME.fullmatch(text):
            return datetime.fromisoformat(text)
    except ValueError:
        pass
    raise MalformedSignIn(f"{text[:40]!r} is not an RFC 3339 time")


def _authority(uri: str) -> str | None:
    try:
        return urlsplit(uri).netloc
    except ValueError:  # an IPv6 address that is none
        return None


def check(signin: SignIn, *, domain: str, chain_id: int, max_age_s: int, now: datetime) -> None:
    """Hold a message to a gateway, a chain and a moment (an aware time).

    Raises:
        SignInRefused: it was signed for somewhere else, or its time is not now.
    """
    if signin.domain != domain or _authority(signin.uri) != domain:
        raise SignInRefused(f"the message is for {signin.domain} ({signin.uri}), this gateway is {domain}")
    if signin.chain_id != chain_id:
        raise SignInRefused(f"the message is for chain {signin.chain_id}, this gateway's is {chain_id}")
    age_s = (now - signin.issued_at).total_seconds()
    if age_s > max_age_s or age_s < -CLOCK_SKEW_S:
        raise SignInRefused(f"the message was issued {age_s:.0f} s ago: ask for a fresh nonce and sign again")
    if signin.expires_at is not None and signin.expires_at <= now:
        raise SignInRefused("the message has expired: sign a new one")
    if signin.not_before is not None and signin.not_before > now:
        raise SignInRefused("the message is not valid yet")


def compose(
    *,
    domain: str,
    uri: str,
    address: str,
    chain_id: int,
    nonce: str,
    issued_at: datetime,
    statement: str,
    resources: tuple[str, ...],
) -> str:
    """The message that a wallet signs; `parse` reads it back. `issued_at`: an aware time, told to the second."""
    lines = [
        f"{domain} wants you to sign in with your Ethereum account:",
        address,
        "",
        statement,
        "",
        f"URI: {uri}",
        "Version: 1",
        f"Chain ID: {chain_id}",
        f"Nonce: {nonce}",
        f"Issued At: {issued_at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}",
    ]
    if resources:
        lines += ["Resources:", *(f"- {resource}" for resource in resources)]
    return "\n".join(lines)
