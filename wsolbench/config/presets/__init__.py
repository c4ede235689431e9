"""YAML that composes runs: `protocol/` presets and `experiment/` recipes. Defaults live in the dataclasses."""
