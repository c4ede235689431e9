"""How each paper's released evaluator turns a map into a number, as switches: names, not code paths.

"Top-1 Loc 71.3" means something else in each code base: other image content, other order of resizing and min-max, other
thresholds, another component, another box, `>` or `>=`, another average. A `Convention` says which, field by field;
`wsolbench.evaluation.by_convention` computes what it says. `docs/metrics.md` shows how far one set of maps moves.
"""
# T thresholds, H W evaluation frame

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from wsolbench.errors import UsageError, unknown

Geometry = Literal["resize", "centre-crop"]
MapKind = Literal["score", "raw"]
Comparison = Literal[">", ">="]

_SUFFIX = " (box rule only)"


@dataclass(frozen=True)
class Convention:
    """Every choice an evaluator makes between a method's map and a printed number.

    The defaults are what all five released evaluators have in common, or what the reference does.
    """

    name: str
    source: str  # code base, commit, files

    # --- what the map shows, and how its values become scores ---
    geometry: Geometry = "resize"
    """Image content: "resize": the whole image at R x R; "centre-crop": the middle R x R of a larger one (`margins`)."""
    box_rule_only: bool = False
    """Scores and ground truth are those of the reference; only what follows is the convention's own."""
    minmax: Literal["before resize", "after resize"] = "after resize"
    """Before: min-max on the small map, so that the resized maximum may stay below 1."""
    epsilon: float = 0.0
    """Added to the denominator of the min-max."""
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    dtype: Literal["float32", "float64"] = "float64"
    """Precision of all of this; thresholds are compared in it too."""
    quantised: bool = True
    """Scores are multiplied by 255 and truncated to uint8 before they are cut."""

    # --- scores to one box ---
    thresholds: Mapping[str, tuple[float, ...]] = field(default_factory=dict, hash=False)
    """By data set, or "dataset/backbone family" where the code has a number of its own for it; "" for all others."""
    relative: bool = True
    """A threshold is a share of the map's own maximum; else of the full range."""
    comparison: Comparison = ">"
    """Foreground is `score > cut` or `score >= cut`."""
    region: Literal["largest contour", "most pixels"] = "largest contour"
    """Which region is boxed. "largest contour": largest area enclosed by the polygon through border pixels, ties to the
    first in OpenCV's order (last start in raster order). "most pixels": the connected component with most pixels, holes
    not filled, ties to the one whose first pixel comes first in raster order."""
    connectivity: Literal[4, 8] = 8
    """Of components; contours are 8-connected always."""
    corners: Literal["clipped", "unclipped"] = "clipped"
    """x1 = x0 + width, clipped to W - 1 or not: the latter is the half-open box, up to W."""
    empty: Literal["(0, 0, 0, 0)", "(0, 0, 1, 1)", "whole frame"] = "(0, 0, 0, 0)"
    """The box of a map without foreground."""

    # --- boxes to hits ---
    truth: Literal["multiply first", "divide first", "fractional"] = "multiply first"
    """Ground truth, for a coordinate c of an image side s: "multiply first": int(c * R / s), not clipped. "divide first":
    int(c / s * resized - margin), at least 0 (x0, y0) and at most R - 1 (x1, y1). "fractional": c * (resized / s) - margin,
    clipped to [0, R] the same way, not truncated. A box outside the crop is left inverted and hits nothing. (The ILSVRC
    loaders of SAT and BAS-Extension divide in float32: no coordinate differs, 256 being a power of two.)"""
    extent: Literal[0, 1] = 1
    """IoU counts x1 - x0 + extent."""
    gt_known: Comparison = ">="
    top_k: Comparison = ">="
    """How the IoU is compared with .5 for GT-known Loc, and for Top-1 and Top-5 Loc."""

    # --- hits to numbers ---
    averaging: Literal["images", "classes"] = "images"
    """Mean over images, or mean over the classes' accuracies."""
    selection: Literal["per IoU level", "GT-known + Top-1", "fixed"] = "per IoU level"
    """Who chooses among several thresholds, on the evaluated images: the best per IoU level, the largest sum of GT-known
    and Top-1 Loc (the first wins), or nobody."""
    v2: Literal["MaxBoxAccV2", "mean Loc@.3/.5/.7"] | None = None
    """What is printed as "V2": MaxBoxAccV2 itself, the mean of IoU .3, .5, .7 at the one threshold, or nothing."""

    def __post_init__(self) -> None:
        if self.region == "largest contour" and self.connectivity != 8:
            raise ValueError("contours are 8-connected: connectivity 4 needs region 'most pixels'")

    def margins_HW(self, resolution_HW: tuple[int, int]) -> tuple[int, int]:
        """Pixels cut off on either side of the resized image: 16 of 256 for a crop of 224, none for "resize".

        No released code knows another resolution than 224. The rule for one is the same share on both sides, R / 14
        rounded: the image is resized to R + 2 margins, so that crop and ground truth cannot be half a pixel apart.

        >>> get_convention("sat").margins_HW((224, 64)), get_convention("tscam").margins_HW((224, 64))
        ((16, 5), (0, 0))
        """
        if self.geometry == "resize":
            return 0, 0
        return round(resolution_HW[0] / 14), round(resolution_HW[1] / 14)

    def thresholds_for(self, dataset: str, backbone: str = "-") -> tuple[float, ...]:
        """The thresholds the released code uses on a data set, with the backbone family's own number where it has one.

        >>> bas = get_convention("bas")
        >>> bas.thresholds_for("ilsvrc"), bas.thresholds_for("ilsvrc", "resnet50"), bas.thresholds_for("badges")
        ((0.5,), (0.45,), (0.15,))
        """
        for key, values in self.thresholds.items():
            name, _, family = key.partition("/")
            if family and name == dataset and backbone.startswith(family):
                return values
        return self.thresholds.get(dataset, self.thresholds[""])


_REFERENCE = Convention(
    "reference",
    "clovaai/wsolevaluation 96f4b88, evaluation.py and util.py (single contour; V2 takes every contour)",
    v2="MaxBoxAccV2",
)

_SAT = Convention(
    "sat",
    "wpy1999/SAT 702290d, evaluator.py, utils/func.py, DataLoader/",
    geometry="centre-crop",
    minmax="before resize",
    epsilon=1e-5,
    interpolation="bilinear",
    dtype="float32",
    quantised=False,
    # train.py chooses among four on test; the stand-alone scripts have .4 (CUB) and .3 (ILSVRC, not scored in training)
    thresholds={"": (0.3, 0.35, 0.4, 0.45), "ilsvrc": (0.3,)},
    relative=False,
    region="most pixels",
    corners="unclipped",
    empty="whole frame",
    truth="divide first",
    selection="GT-known + Top-1",
    v2="mean Loc@.3/.5/.7",
)

_TSCAM = Convention(
    "tscam",
    "vasgaowei/TS-CAM 25aece4, lib/cams_deit.py, lib/datasets/, configs/",
    interpolation="bilinear",
    dtype="float32",
    thresholds={"": (0.2,), "cub": (0.1,), "ilsvrc": (0.12,)},
    corners="unclipped",
    empty="(0, 0, 1, 1)",
    truth="divide first",
    top_k=">",
    selection="fixed",
)

_BAS = Convention(
    "bas",
    "wpy1999/BAS 54c395e, CUB/BAS_inference.py, ILSVRC/BAS_inference.py, utils/augment.py",
    geometry="centre-crop",
    minmax="before resize",
    interpolation="bilinear",
    dtype="float32",
    quantised=False,
    thresholds={
        "": (0.15,),
        "cub/inception": (0.1,),
        "ilsvrc": (0.5,),
        "ilsvrc/resnet": (0.45,),
        "ilsvrc/inception": (0.3,),
    },
    relative=False,
    region="most pixels",
    corners="unclipped",
    empty="whole frame",
    truth="fractional",
    gt_known=">",
    top_k=">",
    averaging="classes",
    selection="fixed",
)

_BAS_JOURNAL = replace(
    _SAT,  # its evaluator is the same file but for the model's call
    name="bas-journal",
    source="wpy1999/BAS-Extension bd1bfa8, WSOL/evaluator.py, WSOL/utils/hyperparameters.py, WSOL/DataLoader/",
    thresholds={
        "": (0.1,),
        "ilsvrc": (0.5,),
        "ilsvrc/vgg": (0.45,),
        "ilsvrc/resnet": (0.25,),
        "ilsvrc/inception": (0.25,),
    },
)


def _box_rule_only(convention: Convention) -> Convention:
    """The part of a convention that needs neither raw maps nor its own geometry."""
    return replace(
        convention,
        name=convention.name + _SUFFIX,
        box_rule_only=True,
        **{
            name: getattr(_REFERENCE, name)
            for name in ("geometry", "minmax", "epsilon", "interpolation", "dtype", "truth")
        },
    )


_PAPERS = (_SAT, _TSCAM, _BAS, _BAS_JOURNAL)
_ALL = {each.name: each for each in (_REFERENCE, *_PAPERS, *map(_box_rule_only, _PAPERS))}

CONVENTIONS: tuple[str, ...] = tuple(_ALL)


def get_convention(name: str) -> Convention:
    """The convention called `name`.

    Raises:
        UsageError: there is none of that name; the message has the nearest one.

    >>> get_convention("tscam").corners
    'unclipped'
    """
    if name not in _ALL:
        raise unknown("convention", name, CONVENTIONS)
    return _ALL[name]


def check_convention(convention: Convention, *, map_kind: MapKind, geometry: Geometry) -> None:
    """Refuse maps that a convention cannot be computed from: another image content, or scores where it needs raw maps.

    Args:
        convention: what is asked for.
        map_kind: "raw": as the method gave them; "score": normalised already.
        geometry: what image content the maps were computed on.

    Raises:
        UsageError: in one sentence, with the convention that these maps do allow, where there is one.

    >>> check_convention(get_convention("tscam"), map_kind="score", geometry="resize")
    Traceback (most recent call last):
    wsolbench.errors.UsageError: convention 'tscam' needs raw maps, these are score maps: use --map-kind raw with raw \
maps, or --convention 'tscam (box rule only)'
    """
    score_maps = map_kind == "score" and convention.name != "reference" and not convention.box_rule_only
    other_content = geometry != convention.geometry
    if not score_maps and not other_content:
        return
    wants = ["raw maps"] * score_maps + [f"maps of {_CONTENT[convention.geometry]}"] * other_content
    has = ["score maps"] * score_maps + [f"of {_CONTENT[geometry]}"] * other_content
    ways = ["compute the maps that way" if other_content else "use --map-kind raw with raw maps"]
    if geometry == "resize" and not convention.box_rule_only:  # the frame in which a box rule alone makes sense
        ways.append(f"--convention '{convention.name}{_SUFFIX}'")
    raise UsageError(
        f"convention '{convention.name}' needs {' and '.join(wants)}, these are {' '.join(has)}: {', or '.join(ways)}"
    )


_CONTENT: dict[Geometry, str] = {
    "resize": "the whole image resized to the evaluation frame",
    "centre-crop": "the centre crop of a larger resized image (224 of 256)",
}
