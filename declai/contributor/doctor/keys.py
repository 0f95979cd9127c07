"""The files that make this machine the node: signer's keystore, password, link key. Their secrets stay in them."""

from __future__ import annotations

import os
from pathlib import Path

from declai.chain.errors import KeystoreError
from declai.chain.keystore import open_keystore, read_password
from declai.contributor.doctor.case import Case, Check
from declai.contributor.doctor.finding import Finding, Unknown, ok, problem, warning
from declai.links.errors import LinkKeyError
from declai.links.keys import LinkKeyPair


def _others_may_read(path: Path) -> bool:
    return os.name == "posix" and bool(path.stat().st_mode & 0o077)


def keystore(case: Case) -> Finding:
    path = case.settings.signer_keystore
    if not path.exists():
        return problem(
            f"{path.absolute()} is not there",
            "make one with `declai wallet new signer`, and name it in signer_keystore",
        )
    try:
        signer = case.signer
    except Unknown as error:
        return problem(str(error), "bring back the right file, or register another signer")
    value = f"{path} of {signer}"
    return warning(f"{value}: others may read it", f"chmod 600 {path}") if _others_may_read(path) else ok(value)


def password(case: Case) -> Finding:
    """That it opens the keystore, which is shut again at once."""
    settings = case.settings
    if not settings.password_file.exists():
        return problem(
            f"{settings.password_file.absolute()} is not there", "write the keystore's password into it, with mode 600"
        )
    try:
        text = read_password(settings.password_file)
    except KeystoreError as error:
        return problem(str(error), f"write the keystore's password into it: chmod 600 {settings.password_file}")
    case.signer  # noqa: B018 - without a keystore there is nothing to open
    try:
        open_keystore(settings.signer_keystore, text)
    except KeystoreError as error:
        return problem(str(error), f"write the password of {settings.signer_keystore} into {settings.password_file}")
    return ok(f"{settings.password_file} opens the keystore")


def link_key(case: Case) -> Finding:
    path = case.settings.link_key
    if not path.exists():
        return problem(f"{path.absolute()} is not there", "bring the file that `declai node register --link-key` made")
    try:
        keys = LinkKeyPair.load(path)
    except LinkKeyError as error:
        return problem(
            str(error), "a link key that others saw or that is damaged has to be replaced in the registry, too"
        )
    return ok(f"{path}, public half 0x{keys.public.hex()}")


CHECKS: dict[str, Check] = {"keystore": keystore, "password": password, "link_key": link_key}
