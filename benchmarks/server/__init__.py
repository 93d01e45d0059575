"""What a server costs per message, and what its clients feel of others: docs/server-load.md."""
