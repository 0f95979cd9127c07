"""What is said and signed between parties, and the rules that several of them apply: no socket, torch, clock."""
