from .folder import PseudoBoxes, read_pseudo_boxes, write_pseudo_boxes

__all__ = [
    "PseudoBoxes",
    "read_pseudo_boxes",
    "write_pseudo_boxes",
]
