"""What went over each link, counted in frames and bytes of header and payload."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace

# Links of this many peers are counted; whoever was quiet longest is forgotten, and counted from zero again.
MAX_PEERS = 1024


@dataclass
class LinkTraffic:
    """Counts since the first frame. `peer` is the operator's address, or the link key of one that only sent to us."""

    peer: str
    num_frames_sent: int = 0
    num_bytes_sent: int = 0
    num_frames_received: int = 0
    num_bytes_received: int = 0


class Traffic:
    """One thread counts; others may look."""

    def __init__(self) -> None:
        self._links: OrderedDict[bytes, LinkTraffic] = OrderedDict()

    def sent(self, link_key: bytes, address: str, num_bytes: int, num_frames: int = 1) -> None:
        link = self._link(link_key)
        link.peer = address
        link.num_frames_sent += num_frames
        link.num_bytes_sent += num_bytes

    def received(self, link_key: bytes, num_bytes: int, num_frames: int = 1) -> None:
        link = self._link(link_key)
        link.num_frames_received += num_frames
        link.num_bytes_received += num_bytes

    def snapshot(self) -> tuple[LinkTraffic, ...]:
        """One per peer, even of a peer that moved to another key: the label names the peer."""
        by_peer: dict[str, LinkTraffic] = {}
        for link in list(self._links.values()):
            known = by_peer.get(link.peer)
            by_peer[link.peer] = replace(link) if known is None else _sum(known, link)
        return tuple(by_peer.values())

    def _link(self, link_key: bytes) -> LinkTraffic:
        link = self._links.get(link_key)
        if link is None:
            link = self._links[link_key] = LinkTraffic(link_key.hex())
            if len(self._links) > MAX_PEERS:
                self._links.popitem(last=False)
        else:
            self._links.move_to_end(link_key)
        return link


def _sum(a: LinkTraffic, b: LinkTraffic) -> LinkTraffic:
    return LinkTraffic(
        a.peer,
        a.num_frames_sent + b.num_frames_sent,
        a.num_bytes_sent + b.num_bytes_sent,
        a.num_frames_received + b.num_frames_received,
        a.num_bytes_received + b.num_bytes_received,
    )
