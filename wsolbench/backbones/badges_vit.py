"""`badges_vit`: timm's VisionTransformer for 64x64 images, 8x8 tokens from `badges_cnn`'s trunk; two pretraining seeds."""

from __future__ import annotations

from typing import Any

from timm.layers.hybrid_embed import HybridEmbed
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.vision_transformer import VisionTransformer

from wsolbench.backbones.badges_cnn import MEAN_STD, Trunk
from wsolbench.backbones.embedded import weights_file

__all__: list[str] = []


def _embed(in_chans: int = 3, **kwargs: Any) -> HybridEmbed:
    return HybridEmbed(Trunk(in_chans), in_chans=in_chans, **kwargs)


default_cfgs = generate_default_cfgs(
    {
        f"badges_vit.{tag}": {
            "file": str(weights_file(f"badges_vit.{tag}")),
            "num_classes": 16,
            "input_size": (3, 64, 64),
            "fixed_input_size": True,
            "crop_pct": 1.0,
            "first_conv": "patch_embed.backbone.stem.0",
            "classifier": "head",
            "license": "mit",
            **MEAN_STD,
        }
        for tag in ("s0", "s1")
    }
)


@register_model
def badges_vit(pretrained: bool = False, **kwargs: Any) -> VisionTransformer:
    """The embedded ViT: class token, width 96, 6 blocks of 3 heads, 0.6 M parameters; tags s0 and s1 are seeds."""
    options = {
        "img_size": 64,
        "patch_size": 2,  # of the trunk's 16x16 map
        "embed_dim": 96,
        "depth": 6,
        "num_heads": 3,
        "mlp_ratio": 2,
        "embed_layer": _embed,
    }
    model: VisionTransformer = build_model_with_cfg(
        VisionTransformer, "badges_vit", pretrained, **{**options, **kwargs}
    )
    return model
