"""Content addressing: CIDs and UnixFS, the block store, verified exchange between peers, model manifests and shards."""
