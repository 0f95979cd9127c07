"""Keystores: never overwritten, never readable by others, and every mistake has a name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from declai.chain.errors import KeystoreError
from declai.chain.keystore import SCRYPT_LIGHT, address_of, create, import_key, open_keystore, read_password, save
from declai.chain.messages import new_account


def test_a_keystore_opens_with_its_password_alone(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "alice.json"
    account = create(path, "secret", SCRYPT_LIGHT)
    assert path.stat().st_mode & 0o777 == 0o600
    assert open_keystore(path, "secret").address == account.address
    assert (address_of(path) or "").lower() == account.address.lower()
    with pytest.raises(KeystoreError, match="wrong password"):
        open_keystore(path, "other")


def test_a_keystore_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "alice.json"
    create(path, "secret", SCRYPT_LIGHT)
    before = path.read_bytes()
    with pytest.raises(KeystoreError, match="never overwritten"):
        save(new_account(), path, "secret", SCRYPT_LIGHT)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", "not json", '{"crypto": 1}', "\x00\xff", '{"version": 3, "crypto": {}}']
)
def test_a_damaged_keystore_is_a_typed_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "damaged.json"
    path.write_text(text)
    with pytest.raises(KeystoreError):
        open_keystore(path, "secret")


def test_a_flipped_byte_of_the_key_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "alice.json"
    create(path, "secret", SCRYPT_LIGHT)
    fields = json.loads(path.read_text())
    cipher = fields["crypto"]["ciphertext"]
    fields["crypto"]["ciphertext"] = ("1" if cipher[0] != "1" else "2") + cipher[1:]
    path.write_text(json.dumps(fields))
    with pytest.raises(KeystoreError):
        open_keystore(path, "secret")


def test_an_imported_key_is_never_repeated_in_an_error(tmp_path: Path) -> None:
    account = new_account()
    imported = import_key("0x" + account.key.hex(), tmp_path / "bob.json", "secret", SCRYPT_LIGHT)
    assert imported.address == account.address
    for wrong in ("deadbeef", "zz" * 32, "00" * 32, "ff" * 32):
        with pytest.raises(KeystoreError) as caught:
            import_key(wrong, tmp_path / "wrong.json", "secret", SCRYPT_LIGHT)
        assert wrong not in str(caught.value)
        assert not (tmp_path / "wrong.json").exists()


def test_a_password_file_must_be_private_and_not_empty(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.touch(mode=0o600)
    with pytest.raises(KeystoreError, match="empty"):
        read_password(path)
    path.write_text("secret\n")
    assert read_password(path) == "secret"
    path.chmod(0o644)
    with pytest.raises(KeystoreError, match="chmod 600"):
        read_password(path)
