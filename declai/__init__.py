"""What people import: the client SDK. Importing it is cheap: no torch, no web3 until a client is made."""
