"""Page ids of the cache: blocks, lanes, prefixes. Pure Python."""
