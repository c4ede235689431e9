"""Backbones by timm name, and those of our own, which importing this adds to timm's registry."""

from __future__ import annotations

import difflib
from functools import cache
from typing import Any, Literal

import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from wsolbench.backbones import badges_cnn as _badges_cnn
from wsolbench.backbones import badges_vit as _badges_vit
from wsolbench.backbones import wsol_inception_v3 as _wsol_inception_v3
from wsolbench.backbones import wsol_resnet50 as _wsol_resnet50
from wsolbench.backbones import wsol_vgg16 as _wsol_vgg16
from wsolbench.backbones.embedded import list_backbones
from wsolbench.errors import UsageError, WsolbenchError

_REGISTERED = (
    _badges_cnn,
    _badges_vit,
    _wsol_inception_v3,
    _wsol_resnet50,
    _wsol_vgg16,
)  # imported for what they register
# Networks that only one method can read, and brings along itself; others refuse them by name.
_BESPOKE = {"conformer_small_patch16": "tscam"}
_REMOTE = ("hf-hub:", "hf_hub:", "local-dir:")  # timm's own prefixes for weights outside its registry


def create_backbone(name: str, *, num_classes: int, pretrained: bool, **kwargs: Any) -> nn.Module:
    """Build a timm model with a classifier of `num_classes` outputs.

    Args:
        name: Any name timm knows, "badges_cnn" and "badges_vit.s0" among them.
        pretrained: Load the weights published under that name. The embedded ones come with the package, others are
            downloaded by timm.
        kwargs: Passed to the model, e.g. drop_path_rate.

    Raises:
        UsageError: timm knows no such name.
        WsolbenchError: the pretrained weights could not be had.
    """
    _check(name)
    if name in _BESPOKE:
        raise UsageError(
            f"backbone '{name}' works with method '{_BESPOKE[name]}' only: its classes come from two branches at once; "
            "take e.g. deit_small_patch16_224 or resnet50"
        )
    if not pretrained:
        model: nn.Module = timm.create_model(name, pretrained=False, num_classes=num_classes, **kwargs)
        return model
    try:
        model = timm.create_model(name, pretrained=True, num_classes=num_classes, **kwargs)
    except TypeError:  # an argument the model does not take: nothing to do with weights
        raise
    except Exception as error:  # the hub's, the network's and timm's own errors share no base class
        reason = next(iter(str(error).splitlines()), "")
        raise WsolbenchError(
            f"pretrained weights of backbone '{name}' could not be loaded ({type(error).__name__}: {reason[:200]}); check the "
            "network, take an embedded backbone "
            f"({', '.join(list_backbones())}), or train from scratch with pretrained=false"
        ) from error
    return model


@cache
def family(name: str) -> Literal["vit", "cnn", "conformer"]:
    """ "vit" for timm's VisionTransformer with a class token, else "cnn"; decided on a model without memory.

    "conformer" is no timm model: methods that can read it bring it along.
    """
    _check(name)
    if name in _BESPOKE:
        return "conformer"
    try:
        with torch.device("meta"):
            model = timm.create_model(name, pretrained=False)
    except Exception:  # noqa: BLE001  # models that read values while they are built (older timm's drop path rates) need real memory
        model = timm.create_model(name, pretrained=False)
    return "vit" if isinstance(model, VisionTransformer) and model.has_class_token else "cnn"


def _check(name: str) -> None:
    if name.startswith(_REMOTE) or name in _BESPOKE:
        return
    architecture, _, tag = name.partition(".")
    if timm.is_model(architecture):
        known = timm.list_pretrained(f"{architecture}*")
        if not tag or name in known:
            return
        close = [other for other in known if other.partition(".")[0] == architecture]
    else:
        known = [*timm.list_models(), *list_backbones(), *_BESPOKE]
        close = difflib.get_close_matches(name, known, n=3) or difflib.get_close_matches(architecture, known, n=3)
    hint = f", did you mean {' or '.join(repr(other) for other in close)}?" if close else "."
    raise UsageError(
        f"unknown backbone '{name}'{hint} Embedded: {', '.join(list_backbones())}; any name of timm.list_models() works too"
    )


def check_backbone(name: str) -> None:
    """Refuse a name that neither timm nor this package knows; weights kept elsewhere ("hf-hub:...") are not looked up."""
    if ":" not in name:
        family(name)
