"""What a node serves, as its heartbeats tell gateways."""

from __future__ import annotations

from dataclasses import dataclass

from declai.protocol.wire import MAX_SECONDS_PER_TOKEN_LAYER, Heartbeat, LinkReport, pack_reports


@dataclass(frozen=True)
class ServedLayers:
    """Layers [first_layer, end_layer) of a model, for at most `capacity` jobs at a time."""

    model: bytes
    manifest_cid: str
    first_layer: int
    end_layer: int
    capacity: int
    numeric_profile: int = 0

    def heartbeat(
        self, num_jobs: int, seconds_per_token_layer: float, draining: bool, links: tuple[LinkReport, ...]
    ) -> Heartbeat:
        """The next heartbeat, with how busy the node is now."""
        return Heartbeat(
            model=self.model,
            manifest_cid=self.manifest_cid,
            first_layer=self.first_layer,
            end_layer=self.end_layer,
            jobs_running=num_jobs,
            capacity=self.capacity,
            seconds_per_token_layer=min(seconds_per_token_layer, MAX_SECONDS_PER_TOKEN_LAYER),
            numeric_profile=self.numeric_profile,
            draining=draining,
            links=pack_reports(links),
        )
