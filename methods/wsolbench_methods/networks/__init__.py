"""Networks, and ways to read them, that several methods share."""
