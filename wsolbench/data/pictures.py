"""Images as they are looked at: a network's input as pixels again, a map laid over it."""
# C channels, H W image

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from torch import Tensor

Pixels = npt.NDArray[np.uint8]


def pixels(image_CHW: Tensor) -> Pixels:
    """A network's input, whatever it was normalised by, as RGB pixels [H, W, 3]: its range stretched to 0 .. 255."""
    image_HW3 = image_CHW.detach().cpu().numpy().transpose(1, 2, 0)
    low, high = image_HW3.min(), image_HW3.max()
    return np.asarray(np.rint((image_HW3 - low) * (255 / max(high - low, 1e-12))), np.uint8)


def coloured(map_HW: npt.NDArray[np.uint8]) -> Pixels:
    """A map of 0 .. 255 in viridis, which colour-blind eyes read too: RGB [H, W, 3]."""
    from matplotlib import colormaps

    return np.asarray(np.rint(255 * colormaps["viridis"](map_HW)[..., :3]), np.uint8)


def overlay(image_HW3: Pixels, map_HW: npt.NDArray[np.uint8], opacity: float = 0.55) -> Pixels:
    """A map of 0 .. 255 laid over an image of its size: RGB [H, W, 3]."""
    return np.asarray(np.rint((1 - opacity) * image_HW3 + opacity * coloured(map_HW)), np.uint8)
