"""What a run is: its keys, presets, recipes and sweeps, from the command line to a `RunConfig`."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
