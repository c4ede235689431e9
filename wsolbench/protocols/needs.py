"""What a protocol needs of the data: the annotations that its selectors look at."""

from __future__ import annotations

from collections.abc import Mapping

from omegaconf import OmegaConf

from wsolbench.config.presets import protocol_presets
from wsolbench.config.schema import ProtocolConfig
from wsolbench.config.selectors import parse_checkpoint, parse_threshold
from wsolbench.errors import UsageError


def check_annotated(
    protocol: ProtocolConfig, dataset: str, annotated: Mapping[str, bool], has_boxes: bool, *, is_trained: bool = True
) -> None:
    """Refuse a protocol that chooses by ground truth which is not there, and say which presets remain.

    Args:
        protocol: of the run.
        dataset: its name, for the sentence.
        annotated: per split ("val", "test") whether it has boxes or masks.
        has_boxes: of the data set; where there are only masks no threshold is chosen.
        is_trained: where nothing is trained there is one checkpoint, and no choice.

    Raises:
        UsageError: nothing could be scored or chosen.
    """
    if not annotated["test"]:
        raise UsageError(f"the test images of data set '{dataset}' have no boxes and no masks: no map could be scored")
    there: dict[str | None, bool] = {None: True, "val-pseudo": has_boxes and protocol.pseudo_boxes is not None}
    there |= {split: has_boxes and has for split, has in annotated.items()}
    needs = _needs(protocol.checkpoint, protocol.threshold, has_boxes, is_trained)
    lacking = next((what for what in needs if not there[what]), None)
    if lacking is None:
        return
    presets = {name: OmegaConf.load(path) for name, path in protocol_presets().items()}
    remaining = [
        name
        for name, preset in presets.items()
        if all(there[what] for what in _needs(preset.checkpoint, preset.threshold, has_boxes, is_trained))
    ]
    if lacking == "val-pseudo":
        raise UsageError(
            f"protocol '{protocol.name}' chooses by pseudo-boxes of val: give protocol.pseudo_boxes=FOLDER (made by "
            f"'wsolbench data pseudo-boxes', or released ones), or take --protocol {' or '.join(remaining)}"
        )
    raise UsageError(
        f"protocol '{protocol.name}' chooses by the boxes of {lacking}, but data set '{dataset}' has none there; give it "
        f"some, or take --protocol {' or '.join(remaining)} (reference chooses on test boxes, an oracle)"
    )


def _needs(checkpoint: str, threshold: str, has_boxes: bool, is_trained: bool) -> list[str | None]:
    """The annotation that two selectors look at; without boxes no threshold is chosen."""
    chosen = [parse_threshold(threshold)] if has_boxes else []
    return [each.looks_at for each in ([parse_checkpoint(checkpoint)] if is_trained else []) + chosen]
