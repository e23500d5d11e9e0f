"""A run while it goes on, and what it leaves behind: receipts, snapshots, commits, history, and how they are read."""
