"""Grad-CAM and its relatives: one formula each, of an activation A and the gradient G of the class score with respect to it.

Grad-CAM    Selvaraju et al., ICCV 2017.          https://arxiv.org/abs/1610.02391
Grad-CAM++  Chattopadhay et al., WACV 2018.       https://arxiv.org/abs/1710.11063
XGrad-CAM   Fu et al., BMVC 2020.                 https://arxiv.org/abs/2008.02312
LayerCAM    Jiang et al., IEEE TIP 2021.          https://ieeexplore.ieee.org/document/9462463
HiResCAM    Draelos and Carin, 2020.              https://arxiv.org/abs/2011.08891

Ours: batched torch code. The formulas are those of the package grad-cam (its epsilons included), which is the tests'
oracle; the package's other methods are reached through `gradcam_pkg.py`.
Differs from the package: maps stay on the layer's grid and are not min-max normalised; gradients run from the target
layer on only; nothing is written to `.grad`; any grid and any number of prefix tokens.
"""

# B batch, C channels, H W image, h w map, K classes, N tokens

from __future__ import annotations

from abc import abstractmethod
from typing import Any, final

import torch
from torch import Tensor, nn

from wsolbench.errors import UsageError
from wsolbench.method import evaluating, no_autocast, true_or_predicted, wide
from wsolbench.registry import register_method
from wsolbench.types import Prediction
from wsolbench_methods.networks.target_layer import LayerReader

FP16_SCALE = 1024.0
"""What class scores in float16 are multiplied by on their way back, as in training: gradients of a pooled map vanish else."""


class GradientMap(LayerReader):
    """Abstract base: capture A and G at the target layer of the shared classifier, leave the rest to `formula`."""

    _reads_patches = False  # whether some gradient was seen to reach them

    @staticmethod
    @abstractmethod
    def formula(act_BChw: Tensor, grad_BChw: Tensor) -> Tensor:
        """Map [B, h, w], before the ReLU."""

    @final
    def localize(self, images_BCHW: Tensor, labels_B: Tensor | None = None) -> Prediction:
        """Maps on the target layer's grid."""
        # Inference tensors cannot take part in autograd: what was made under inference_mode is copied outside of it.
        with torch.inference_mode(False), torch.no_grad(), evaluating(self):
            act, logits_BK = self._capture(images_BCHW)
            classes_B = true_or_predicted(logits_BK.detach(), labels_B)
            with torch.enable_grad():
                scale = FP16_SCALE if torch.float16 in (act.dtype, logits_BK.dtype) else 1.0
                score = wide(logits_BK).gather(1, classes_B.clone()[:, None]).sum() * scale
            (grad,) = torch.autograd.grad(score, act)  # images do not mix in evaluation mode: one pass for the batch
            grad_BChw = wide(self.as_map(grad, images_BCHW)) / scale
            self._check_reach(grad, grad_BChw)
            with no_autocast(act):
                maps_Bhw = self.formula(wide(self.as_map(act.detach(), images_BCHW)), grad_BChw)
            if self.config.relu:
                maps_Bhw = maps_Bhw.relu()
        return Prediction(logits_BK.detach().float(), maps_Bhw.float())

    @final
    def _check_reach(self, grad: Tensor, grad_BChw: Tensor) -> None:
        """Refuse a layer whose patches get no gradient. Asked until one does: the question waits for the device."""
        if self._reads_patches:
            return
        self._reads_patches = bool(grad_BChw.any())
        if not self._reads_patches and grad.any():
            raise UsageError(
                f"the class scores do not depend on the patch tokens of {self.place}: the classifier reads another token; "
                "name an earlier layer as target_layer, e.g. the norm before the last attention"
            )

    @final
    def _capture(self, images_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Activation at the target layer, as a leaf of the autograd graph, and logits computed from it."""
        model: Any = self.classifier
        if self.layer is None:
            act = model.forward_features(images_BCHW)
            if not isinstance(act, Tensor):
                raise UsageError(f"{self.place} is not one tensor; name one of its layers as target_layer")
            act.requires_grad_()
            with torch.enable_grad():
                return act, model.forward_head(act.clone())
        acts: list[Tensor] = []

        def cut(module: nn.Module, inputs: Any, output: Any) -> Tensor:
            if not isinstance(output, Tensor) or acts:
                raise UsageError(f"{self.place} does not give one tensor once per image")
            acts.append(output.detach().clone().requires_grad_())  # `output` may be the caller's tensor
            torch.set_grad_enabled(True)  # from here on the graph is recorded; the layers before cost no memory
            return acts[0].clone()  # a copy: what follows may work in place

        hook = self.classifier.get_submodule(self.layer).register_forward_hook(cut)
        try:
            with torch.no_grad():  # puts back what `cut` switched
                logits_BK = model(images_BCHW)
        finally:
            hook.remove()
        if not acts or not logits_BK.requires_grad:
            raise UsageError(f"{self.place} takes no part in the class scores")
        return acts[0], logits_BK


@register_method("gradcam")
@final
class GradCAM(GradientMap):
    """Channels weighted by their mean gradient; by default at the last feature map, on a ViT before the last attention."""

    @staticmethod
    def formula(act_BChw: Tensor, grad_BChw: Tensor) -> Tensor:
        """Sum over c of mean_xy(G)_c A_c."""
        return _weighted(act_BChw, grad_BChw.mean((2, 3)))


@register_method("gradcam++")
@final
class GradCAMPlusPlus(GradientMap):
    """Grad-CAM whose channel weights favour positive gradients at places that explain the score (equation 19)."""

    @staticmethod
    def formula(act_BChw: Tensor, grad_BChw: Tensor) -> Tensor:
        """Weights: sum_xy relu(G) alpha, alpha = G^2 / (2 G^2 + sum_xy(A) G^3 + 1e-6), 0 where G is 0."""
        square = grad_BChw**2
        total = act_BChw.sum((2, 3), keepdim=True)
        alpha = torch.where(grad_BChw != 0, square / (2 * square + total * square * grad_BChw + 1e-6), 0)
        return _weighted(act_BChw, (grad_BChw.relu() * alpha).sum((2, 3)))


@register_method("xgradcam")
@final
class XGradCAM(GradientMap):
    """Grad-CAM whose gradients are averaged with the activation as weight."""

    @staticmethod
    def formula(act_BChw: Tensor, grad_BChw: Tensor) -> Tensor:
        """Weights: sum_xy(G A) / (sum_xy(A) + 1e-7). Meant for A >= 0; signed activations (a ViT's) can sum to almost 0."""
        return _weighted(act_BChw, (grad_BChw * act_BChw / (act_BChw.sum((2, 3), keepdim=True) + 1e-7)).sum((2, 3)))


@register_method("layercam")
@final
class LayerCAM(GradientMap):
    """Each place weighted by its own positive gradient, so that early layers can be read too."""

    @staticmethod
    def formula(act_BChw: Tensor, grad_BChw: Tensor) -> Tensor:
        """Sum over c of relu(G) A."""
        return (grad_BChw.relu() * act_BChw).sum(1)


@register_method("hirescam")
@final
class HiResCAM(GradientMap):
    """Each place weighted by its own gradient: what the place adds to the score, to first order."""

    @staticmethod
    def formula(act_BChw: Tensor, grad_BChw: Tensor) -> Tensor:
        """Sum over c of G A."""
        return (grad_BChw * act_BChw).sum(1)


def _weighted(act_BChw: Tensor, weights_BC: Tensor) -> Tensor:
    return torch.einsum("bchw,bc->bhw", act_BChw, weights_BC)
