"""A protocol by its name: a preset, `<k>shot` or `<p>percent` of the training images, or both."""

from __future__ import annotations

import copy
import functools
import re

from omegaconf import DictConfig

from wsolbench.config.naming import preset_name
from wsolbench.config.presets import protocol_presets
from wsolbench.config.schema import RunConfig
from wsolbench.errors import UsageError, unknown


def compose_protocol(name: str) -> DictConfig:
    """The root config under a protocol: a preset, `<k>shot` or `<p>percent` of the training images, or both: `5shot+realistic`."""
    presets = protocol_presets()
    amount: re.Match[str] | None = None
    preset: str | None = None
    for part in name.split("+"):
        few = re.fullmatch(r"([1-9]\d*)(shot|percent)", part)
        if few is None and part not in presets:
            raise unknown("protocol", part, [*presets, "1shot", "5shot", "<k>shot", "<p>percent"])
        if (few and amount is not None) or (not few and preset is not None):
            raise UsageError(
                f"protocol '{name}' names two of a kind: join at most one <k>shot or <p>percent and one preset"
            )
        if few:
            amount = few
        else:
            preset = part
    config = copy.deepcopy(_hydra_compose(preset or "full"))
    if amount is not None:
        number = int(amount[1])
        if amount[2] == "shot":
            config.protocol.shots = number
        else:
            config.protocol.fraction = number / 100
        config.protocol.name = preset_name(amount[0], preset)
    return config


@functools.cache
def _hydra_compose(preset: str) -> DictConfig:
    """Defaults and a protocol preset, composed by Hydra."""
    from hydra import compose, initialize_config_module
    from hydra.core.config_store import ConfigStore
    from hydra.core.global_hydra import GlobalHydra

    outer = GlobalHydra.instance().hydra  # the caller may itself be a Hydra application
    GlobalHydra.instance().hydra = None
    try:
        ConfigStore.instance().store(name="schema", node=RunConfig)
        with initialize_config_module(config_module="wsolbench.config.presets", version_base="1.3"):
            return compose("run", overrides=[f"protocol={preset}"])
    finally:
        GlobalHydra.instance().hydra = outer
