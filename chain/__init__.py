"""The contracts seen from Python: compile, deploy, bindings, signed messages, sum trees, event index, wallets."""
