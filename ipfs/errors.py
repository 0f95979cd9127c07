"""The room's errors: one base class; each text names the CID or file and what to do next.

* IpfsError
  * CorruptBlock
  * FetchFailed
  * InvalidBlock
  * InvalidCid
  * InvalidManifest
  * MissingBlock
  * PublishError
"""

from __future__ import annotations


class IpfsError(Exception):
    """Base of everything this room raises on purpose."""


class InvalidCid(IpfsError):
    """Text or bytes that are no CID of the kinds this store keeps."""


class InvalidBlock(IpfsError):
    """A block whose hash is right and whose content is no node that could be ours."""


class CorruptBlock(IpfsError):
    """A block's bytes do not hash to its CID."""


class MissingBlock(IpfsError):
    """A block is not in the store."""


class FetchFailed(IpfsError):
    """No peer delivered a block that its CID demands."""


class InvalidManifest(IpfsError):
    """A model manifest does not fit its schema or contradicts itself."""


class PublishError(IpfsError):
    """A model folder cannot be published; the text says which file and why."""
