from .arrays import LEVELS, Array, Contours, check_boxes, check_contours, check_maps, to_numpy
from .maps import level_of, normalize_maps, otsu_level, quantize, threshold_grid
from .scan import Scan, best_iou_per_level, boxes_at_threshold, scan_maps
from .truth import iou_matrix, resize_boxes, resize_mask

__all__ = [
    "LEVELS",
    "Array",
    "Contours",
    "Scan",
    "best_iou_per_level",
    "boxes_at_threshold",
    "check_boxes",
    "check_contours",
    "check_maps",
    "iou_matrix",
    "level_of",
    "normalize_maps",
    "otsu_level",
    "quantize",
    "resize_boxes",
    "resize_mask",
    "scan_maps",
    "threshold_grid",
    "to_numpy",
]
