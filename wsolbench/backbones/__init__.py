"""Backbones by timm name.

`create` adds the embedded `badges_cnn` and `badges_vit` to timm's registry, and the reference networks `wsol_resnet50`,
`wsol_vgg16` and `wsol_inception_v3` with 14x14 and, as `..._28`, 28x28 maps; asking for one of its functions imports it.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
