"""Files that are whole or absent, locks, signals, hashes, the machine."""
