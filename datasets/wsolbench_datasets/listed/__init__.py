"""Data sets that are lists of image files: what they share, for built-in ones and for yours (docs/add-a-dataset.md)."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
