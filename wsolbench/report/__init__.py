"""`wsolbench report`: finished runs as one page that needs no other file.

Records give tables and most figures, `levels.npz` the curves, `images.csv.gz` the boxes of the gallery. Only the maps laid over
its pictures are computed anew, for a sample of images; where a run's weights or its data are gone, the page says so.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
