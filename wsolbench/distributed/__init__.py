"""Several processes that work on one command, as `torchrun` starts them: how they meet, speak, agree and part."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
