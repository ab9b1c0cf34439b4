"""SQLite: connections that are safe, files that are ours, transactions in threads. Knows no tables but the stamp."""
