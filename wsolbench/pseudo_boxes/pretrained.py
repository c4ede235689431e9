"""Proposals of models that others trained: torchvision's region proposal network, and CLIP's maps of a class's name.

Both bring supervision of their own (a detector's boxes, captions); `external` says so, and `source.json` keeps it.
"""
# C channels, H W image, h w grid, K classes, M boxes, N tokens

from __future__ import annotations

import importlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from wsolbench.boxes.maps import normalize_maps
from wsolbench.boxes.scan import boxes_at_threshold
from wsolbench.errors import UsageError, WsolbenchError
from wsolbench.method.checkpoint import match, read_tensors
from wsolbench.pseudo_boxes.proposals import Boxes, Image, tidy
from wsolbench.system.hashing import file_sha256

CLIP_MODEL, CLIP_WEIGHTS = "ViT-B-16", "openai"
THRESHOLDS = tuple(step / 10 for step in range(1, 10))  # at which a CLIP map gives a box each


class RpnProposals:
    """Class-agnostic proposals of a torchvision detector's region proposal network, the most object-like first."""

    name = "rpn"

    def __init__(self, detector: Any, external: str, device: torch.device, count: int = 200) -> None:
        """`detector` is one of torchvision's two-stage detectors; `count` proposals an image are kept at most."""
        self.detector, self.external, self.device, self.count = detector.to(device).eval(), external, device, count

    @torch.inference_mode()
    def __call__(self, image_HW3: Image, label: int) -> Boxes:
        """Boxes [M, 4] in the image's own pixels."""
        image_CHW = _unit(image_HW3).to(self.device)
        images, _ = self.detector.transform([image_CHW])
        features = self.detector.backbone(images.tensors)
        (boxes_M4,), _ = self.detector.rpn(images, features)
        height, width = images.image_sizes[0]
        size_HW = (image_HW3.shape[0], image_HW3.shape[1])
        scale = torch.tensor([size_HW[1] / width, size_HW[0] / height] * 2)
        return tidy((boxes_M4[: self.count].cpu() * scale).double().numpy(), size_HW)


def load_rpn(weights: str | Path | None, device: torch.device) -> RpnProposals:
    """torchvision's Faster R-CNN with ResNet-50 and FPN; its COCO weights, or tensors from a file in their layout.

    Raises:
        WsolbenchError: the file is damaged or does not fit, or torchvision cannot get its weights here.
    """
    from torchvision.models.detection import fasterrcnn_resnet50_fpn

    name = "torchvision fasterrcnn_resnet50_fpn"
    if weights is not None:
        detector = fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None)
        _load(detector, weights)
        return RpnProposals(detector, f"{name}, weights with SHA-256 {file_sha256(weights)}", device)
    try:
        detector = fasterrcnn_resnet50_fpn(weights="DEFAULT")
    except (OSError, RuntimeError) as error:
        raise WsolbenchError(
            f"torchvision cannot get the weights of fasterrcnn_resnet50_fpn here ({error}); give them with --weights FILE"
        ) from error
    return RpnProposals(detector, f"{name}, trained by torchvision with the boxes of COCO", device)


class ClipProposals:
    """Boxes of a CLIP map of the class's name, the largest component's at each of nine thresholds.

    The map is Grad-CAM at the last block's first norm of the image transformer, of the class's probability among all
    classes, as in CLIP-ES (Lin et al., CVPR 2023, https://arxiv.org/abs/2212.09506); no thresholds are published for the
    released boxes, so which of ours is taken is left to the filter.
    """

    name = "clip"

    def __init__(
        self, model: Any, tokenize: Any, class_names: Sequence[str], external: str, device: torch.device
    ) -> None:
        """`model` and `tokenize` as open_clip makes them; the image encoder must be a ViT with a class token in front."""
        self.model, self.external, self.device = model.to(device).eval().requires_grad_(False), external, device
        prompts = tokenize([f"a photo of a {readable(name)}." for name in class_names]).to(device)
        with torch.inference_mode():
            text = [self.model.encode_text(part, normalize=True) for part in prompts.split(64)]
        self.text_KC = torch.cat(text).clone()

    def __call__(self, image_HW3: Image, label: int) -> Boxes:
        """Boxes [M, 4] in the image's own pixels."""
        size_HW = (image_HW3.shape[0], image_HW3.shape[1])
        side = int(self.model.visual.image_size[0])
        map_hw = self.map_of(image_HW3, label, side)
        score_HW = normalize_maps(map_hw[None], side)[0]
        boxes_M4 = np.concatenate([boxes_at_threshold(score_HW, threshold) for threshold in THRESHOLDS])
        return tidy(boxes_M4 * np.array([size_HW[1] / side, size_HW[0] / side] * 2), size_HW)

    def map_of(self, image_HW3: Image, label: int, side: int) -> Tensor:
        """The raw map [h, w] of a class."""
        visual = self.model.visual
        unit_CHW = F.interpolate(_unit(image_HW3)[None], (side, side), mode="bicubic", antialias=True).clamp(0, 1)
        mean, std = (torch.tensor(values)[:, None, None] for values in (visual.image_mean, visual.image_std))
        kept: list[Tensor] = []

        def keep(module: Any, inputs: Any, output: Tensor) -> Tensor:
            kept.append(output.detach().requires_grad_())  # the gradient need not go further back
            return kept[0]

        handle = visual.transformer.resblocks[-1].ln_1.register_forward_hook(keep)
        try:
            with torch.enable_grad():
                image_1C = self.model.encode_image(((unit_CHW - mean) / std).to(self.device), normalize=True)
                logits_K = self.model.logit_scale.exp() * (image_1C @ self.text_KC.T)[0]
                (gradient,) = torch.autograd.grad(logits_K.softmax(0)[label], kept)
        finally:
            handle.remove()
        # one image: the same whether the transformer puts batch or tokens first
        tokens_NC, slopes_NC = (each.detach().reshape(-1, each.shape[-1]) for each in (kept[0], gradient))
        map_N = (tokens_NC[1:] * slopes_NC[1:].mean(0)).sum(1).relu()
        side_of_grid = round(len(map_N) ** 0.5)
        return map_N.reshape(side_of_grid, side_of_grid).float().cpu()


def load_clip(weights: str | Path | None, class_names: Sequence[str], device: torch.device) -> ClipProposals:
    """OpenAI's CLIP ViT-B/16 through the package open_clip; its weights, or tensors from a file in open_clip's layout.

    Raises:
        UsageError: open_clip is not installed, or the class names are numbers of WordNet, which CLIP cannot read.
        WsolbenchError: the file is damaged or does not fit, or open_clip cannot get its weights here.
    """
    try:
        open_clip: Any = importlib.import_module("open_clip")
    except ImportError as error:
        raise UsageError("source 'clip' needs the package open_clip: pip install 'wsolbench[clip]'") from error
    if all(re.fullmatch(r"n\d{8}|/?m?/?0[0-9a-z_]+", name) for name in class_names):
        raise UsageError(
            f"the class names of this data set are codes ('{class_names[0]}'), which CLIP cannot read: give names with "
            "--class-names FILE, one a line in the order of labels"
        )
    name = f"open_clip {CLIP_MODEL}"
    if weights is not None:
        model = open_clip.create_model(CLIP_MODEL, pretrained=None, force_quick_gelu=True)
        _load(model, weights)
        external = f"{name}, weights with SHA-256 {file_sha256(weights)}"
    else:
        try:
            model = open_clip.create_model(CLIP_MODEL, pretrained=CLIP_WEIGHTS, force_quick_gelu=True)
        except Exception as error:  # whatever its hub client raises
            reason = " ".join(str(error).split())[:160]
            raise WsolbenchError(
                f"open_clip cannot get the weights '{CLIP_WEIGHTS}' of {CLIP_MODEL} here ({reason}); give them with "
                "--weights FILE"
            ) from error
        external = f"{name}, trained by OpenAI with images and their captions"
    return ClipProposals(model, open_clip.get_tokenizer(CLIP_MODEL), class_names, external, device)


def readable(name: str) -> str:
    """A class's name as one would say it.

    >>> readable("001.Black_footed_Albatross")
    'Black footed Albatross'
    """
    return re.sub(r"^\d+\.", "", name).replace("_", " ").strip()


def _load(model: Any, weights: str | Path) -> None:
    """Tensors only; a file that does not fit is one sentence."""
    _, state = match(model, read_tensors(weights), source=f"weights '{weights}'")
    model.load_state_dict(state)


def _unit(image_HW3: Image) -> Tensor:
    """float32 [3, H, W] in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(image_HW3)).permute(2, 0, 1).float() / 255
