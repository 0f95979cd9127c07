"""A node's link key: the CURVE pair that proves who speaks on its links, in a file of its own."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import zmq
from zmq.utils import z85

from declai.links.errors import LinkKeyError


@dataclass(frozen=True)
class LinkKeyPair:
    """A CURVE key pair, 32 bytes each; `public` is the registry's linkKey."""

    public: bytes
    secret: bytes = field(repr=False)

    @classmethod
    def create(cls, path: Path) -> LinkKeyPair:
        """Make a new pair and keep it in a new file that only its owner may read."""
        public, secret = zmq.curve_keypair()
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            raise LinkKeyError(f"{path} exists: a link key is never overwritten") from None
        with os.fdopen(descriptor, "wb") as file:
            file.write(public + b"\n" + secret + b"\n")
            file.flush()
            os.fsync(file.fileno())
        return cls.load(path)

    @classmethod
    def load(cls, path: Path) -> LinkKeyPair:
        """Read a pair that `create` wrote; raises LinkKeyError when it is missing, damaged or readable by others."""
        try:
            if os.name == "posix" and path.stat().st_mode & 0o077:
                raise LinkKeyError(
                    f"others may read {path}: run `chmod 600 {path}`, then change the key in the registry"
                )
            public, secret = (z85.decode(line) for line in path.read_bytes().split())
            derived = zmq.curve_public(z85.encode(secret))
        except (OSError, ValueError, zmq.ZMQError) as error:
            raise LinkKeyError(f"{path} holds no link key pair: {type(error).__name__}") from None
        if z85.decode(derived) != public:
            raise LinkKeyError(f"the two halves of {path} do not belong together")
        return cls(public, secret)
