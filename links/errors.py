"""The links room's errors: one base class, one class per thing a sender can act on.

* LinkError
  * LinkFull
  * LinkGone
  * LinkKeyError
"""

from __future__ import annotations


class LinkError(Exception):
    """Something about a link that the sender must handle."""


class LinkFull(LinkError):
    """The peer takes bytes more slowly than they are made; nothing was sent."""


class LinkGone(LinkError):
    """The connection that a frame was to go back over is no more; nothing was sent."""


class LinkKeyError(LinkError):
    """A link key file is missing, readable by others, or not a key pair."""
