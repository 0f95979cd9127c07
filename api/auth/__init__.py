"""Who asks: wallets signing in (EIP-4361), API keys, and requests signed by a session key."""
