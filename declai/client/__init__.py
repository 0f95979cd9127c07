"""The client SDK: sessions, signed requests, answers, and receipts checked before they are acknowledged."""
