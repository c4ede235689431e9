"""Where methods that explain a trained classifier look: a layer found by default or by name, its tokens put on a grid."""

# B batch, C channels, H W image, h w map, N tokens

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass
from typing import Any, ClassVar, final

from torch import Tensor, nn

from wsolbench.backbones import create_backbone
from wsolbench.errors import UsageError
from wsolbench.method import PostHoc


@dataclass
class TargetLayerConfig:
    # Module path. None: the last feature map of a CNN, "blocks.<last>.norm1" of a ViT (behind it, the patch tokens of a
    # classifier that reads the class token get no gradient at all).
    target_layer: str | None = None
    relu: bool = True  # negative evidence is cut off


class LayerReader(PostHoc):
    """Abstract base: the shared classifier, and the layer of it that is read."""

    Config: ClassVar[type] = TargetLayerConfig
    needs: ClassVar[frozenset[str]] = frozenset({"gradients"})
    default_backbone: ClassVar[str | None] = "resnet50"

    def __init__(self, config: Any, **build: Any) -> None:
        super().__init__(config, **build)
        assert self.backbone is not None
        self.classifier = create_backbone(self.backbone, num_classes=self.num_classes, pretrained=self.pretrained)
        self.layer: str | None = config.target_layer or default_layer(self.classifier)
        if self.layer is not None:
            _check_layer(self.classifier, self.layer, self.backbone)

    @final
    def as_map(self, x: Tensor, images_BCHW: Tensor) -> Tensor:
        """An activation or gradient at the layer as [B, C, h, w]: tokens lose their prefix, channels come first.

        Raises:
            UsageError: `x` has no places, e.g. it comes from behind the pooling.
        """
        if x.ndim == 4:
            return x.permute(0, 3, 1, 2) if channels_last(self.classifier) else x
        grid = token_grid(self.classifier, x.shape[1], images_BCHW.shape[-2:]) if x.ndim == 3 else None
        if grid is None:
            raise UsageError(
                f"{self.place} gives shape {tuple(x.shape)}, which is no map; name a layer before the pooling as "
                "target_layer"
            )
        h, w = grid
        return x[:, x.shape[1] - h * w :].transpose(1, 2).reshape(len(x), x.shape[2], h, w)

    @property
    def place(self) -> str:
        """The layer, as error messages call it."""
        return f"target_layer '{self.layer}' of '{self.backbone}'" if self.layer else f"the output of '{self.backbone}'"


def default_layer(model: nn.Module) -> str | None:
    """The input of a ViT's last attention; None: the output of `forward_features`."""
    blocks = getattr(model, "blocks", None)
    if hasattr(model, "num_prefix_tokens") and isinstance(blocks, nn.Sequential | nn.ModuleList):
        layer = f"blocks.{len(blocks) - 1}.norm1"
        return layer if any(name == layer for name, _ in model.named_modules()) else None
    return None


def channels_last(model: nn.Module) -> bool:
    """Whether the model's four-dimensional activations are [B, h, w, C], as Swin's are."""
    return getattr(model, "output_fmt", "NCHW") == "NHWC"


def token_grid(model: nn.Module, tokens: int, size_HW: tuple[int, ...]) -> tuple[int, int] | None:
    """Rows and columns of the patches among `tokens`, which follow the class, distillation and register tokens.

    The grid is the patch embedding's where it fits, else the one of the image's shape; None: neither fits.

    >>> token_grid(nn.Identity(), 50, (160, 80)), token_grid(nn.Identity(), 7, (160, 80))
    ((10, 5), None)
    """
    H, W = size_HW
    stem = getattr(model, "patch_embed", None)
    for prefix in dict.fromkeys((getattr(model, "num_prefix_tokens", 0), 0)):  # CaiT's class token comes late
        patches = tokens - prefix
        known = getattr(stem, "grid_size", None)
        if known is not None and getattr(stem, "img_size", None) == (H, W) and known[0] * known[1] == patches:
            return known[0], known[1]
        rows = round(math.sqrt(max(patches, 0) * H / W))
        columns = patches // max(rows, 1)
        if rows * columns == patches > 1 and rows == round(columns * H / W):
            return rows, columns
    return None


def _check_layer(model: nn.Module, layer: str, backbone: str) -> None:
    names = [name for name, _ in model.named_modules() if name]
    if layer not in names:
        near = difflib.get_close_matches(layer, names, n=3)
        hint = f"did you mean {', '.join(near)}?" if near else f"its parts: {', '.join(dict(model.named_children()))}"
        raise UsageError(f"unknown target_layer '{layer}' of '{backbone}'; {hint}")
