from .create import check_backbone, create_backbone, family
from .embedded import list_backbones, weights_sha256

__all__ = ["check_backbone", "create_backbone", "family", "list_backbones", "weights_sha256"]
