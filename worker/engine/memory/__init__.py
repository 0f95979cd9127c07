"""Page ids of the cache (blocks, lanes, prefixes), and the rows that a stage handed on."""
