"""Backbones by timm name.

Importing this package adds the embedded `badges_cnn` and `badges_vit` to timm's registry, and the reference networks
`wsol_resnet50`, `wsol_vgg16` and `wsol_inception_v3` with 14x14 and, as `..._28`, 28x28 maps.
"""

from wsolbench.backbones.create import check_backbone, create_backbone, family
from wsolbench.backbones.embedded import list_backbones, weights_sha256

__all__ = ["check_backbone", "create_backbone", "family", "list_backbones", "weights_sha256"]
