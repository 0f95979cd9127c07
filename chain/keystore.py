"""Encrypted keystores (V3, as every Ethereum tool reads them): create, import, open.

A key enters through a file, a pipe or a prompt, never through a command line; it leaves only as an account object.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from eth_account import Account
from eth_account.signers.local import LocalAccount

from declai.chain.errors import KeystoreError
from declai.chain.messages import new_account

# scrypt's cost N. The light one is for wallets whose password lies beside them anyway: a devnet's, a session's.
SCRYPT_STANDARD = 2**18
SCRYPT_LIGHT = 2**12
MAX_KEYSTORE_BYTES = 16 * 1024


def encrypt(account: LocalAccount, password: str, scrypt_n: int = SCRYPT_STANDARD) -> str:
    """The keystore's JSON text."""
    return json.dumps(Account.encrypt(account.key, password, kdf="scrypt", iterations=scrypt_n))


def decrypt(text: str, password: str, source: str = "the keystore") -> LocalAccount:
    """The account in a keystore's JSON text.

    Raises:
        KeystoreError: damaged text or a wrong password; `source` is named in the message.
    """
    try:
        fields: Any = json.loads(text)
        account: LocalAccount = Account.from_key(Account.decrypt(fields, password))
    except ValueError as error:
        if "MAC mismatch" in str(error):
            raise KeystoreError(f"wrong password for {source}") from None
        raise KeystoreError(f"{source} is damaged or no V3 keystore") from None
    except (KeyError, TypeError, AttributeError):
        raise KeystoreError(f"{source} is damaged or no V3 keystore") from None
    return account


def save(account: LocalAccount, path: Path, password: str, scrypt_n: int = SCRYPT_STANDARD) -> None:
    """Write a keystore for its owner alone; an existing file is never replaced.

    Raises:
        KeystoreError: the file exists.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    text = encrypt(account, password, scrypt_n)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise KeystoreError(f"{path} exists: choose another name, keystores are never overwritten") from None
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def create(path: Path, password: str, scrypt_n: int = SCRYPT_STANDARD) -> LocalAccount:
    """A fresh key in a new keystore."""
    account = new_account()
    save(account, path, password, scrypt_n)
    return account


def import_key(secret: str, path: Path, password: str, scrypt_n: int = SCRYPT_STANDARD) -> LocalAccount:
    """Put a raw private key (64 hex digits) into a new keystore.

    Raises:
        KeystoreError: not a private key, or the file exists. The text never repeats the secret.
    """
    try:
        account: LocalAccount = Account.from_key(bytes.fromhex(secret.strip().removeprefix("0x")))
    except Exception:
        raise KeystoreError("that is no private key: 64 hexadecimal digits are needed") from None
    save(account, path, password, scrypt_n)
    return account


def _read(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_KEYSTORE_BYTES:
            raise KeystoreError(f"{path} is too large for a keystore")
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise KeystoreError(f"cannot read the keystore {path}: {error}") from None


def address_of(path: Path) -> str | None:
    """The address that a keystore names, without opening it; None when it names none."""
    try:
        address = json.loads(_read(path)).get("address")
    except (ValueError, AttributeError):
        raise KeystoreError(f"{path} is damaged or no V3 keystore") from None
    if not isinstance(address, str):
        return None
    from_hex: str = address if address.startswith("0x") else f"0x{address}"
    return from_hex


def open_keystore(path: Path, password: str) -> LocalAccount:
    """Unlock a keystore file.

    Raises:
        KeystoreError: missing, damaged, or a wrong password.
    """
    return decrypt(_read(path), password, str(path))


def read_password(path: Path) -> str:
    """The password in a file: its first line, without the line's end.

    Raises:
        KeystoreError: unreadable, empty, or readable by others.
    """
    try:
        mode = path.stat().st_mode
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise KeystoreError(f"cannot read the password file {path}: {error}") from None
    if mode & 0o077:
        raise KeystoreError(f"{path} can be read by others: chmod 600 {path}")
    if not lines or not lines[0]:
        raise KeystoreError(f"the password file {path} is empty")
    return lines[0]
