"""One run from configuration to record: where it lies, what is computed, what is written down."""
