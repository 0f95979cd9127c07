"""Nodes as the gateway knows them: directory, joining, accounts, dispatch, links."""
