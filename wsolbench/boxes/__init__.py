"""Score map -> boxes at every threshold, exactly as the reference evaluator computes them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
