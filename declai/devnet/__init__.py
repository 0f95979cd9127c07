"""A whole DeCLAI network on one machine: chain, broker, block store, nodes and gateway as child processes."""
