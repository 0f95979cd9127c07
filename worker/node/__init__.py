"""What lives as long as the machine: program, supervisor, identity, membership, status, metrics."""
