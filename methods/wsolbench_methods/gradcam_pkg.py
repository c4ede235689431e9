"""Every method of the package grad-cam (Gildenblat et al.), as `gradcam-pkg:<name>`.  https://github.com/jacobgil/pytorch-grad-cam

<name> is the class's name there, in any case: ScoreCAM, AblationCAM, EigenCAM, FullGrad, ... Which ones exist is asked of
the installed version (1.5.4 has 13, 1.5.7 has 19). Each class's docstring or source in the package names its paper.

Ours: the shared classifier, the target layer and its grid (as in `gradcam.py`, which has five of them in batched torch
code), and that nothing is left behind: gradients, hooks, modes, modules, NumPy's random state, progress bars.
Differs from calling the package:
- Maps are raw where the package has raw maps, i.e. one per image on the layer's grid: after its ReLU, before its min-max
  and resize. FullGrad, FinerCAM, RefineCAM and SESS make theirs from several normalised maps: these come as the package
  returns them, at input size and min-max normalised per image. Either way one increasing function per image apart from
  the raw values, so that the order of an image's values is kept.
- Gradients run from the target layer on only, unless the method asks for those of the input (FullGrad, ShapleyCAM).
- Random weights (RandomCAM) are drawn per image from a seed made of the image: repeatable in any batch.
- It works in NumPy, which has no bfloat16: autocast is off inside, nothing is compiled.
- FinerCAM compares the asked class with the three classes of nearest score; the package does so for the predicted class.
What the package cannot do, this cannot do either: ShapleyCAM takes no tokens, so it runs on CNNs only.
"""

# B batch, C channels, H W image, h w map, K classes, N tokens

from __future__ import annotations

import difflib
import functools
import inspect
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from typing import Any, ClassVar, final
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from wsolbench.errors import UsageError, WsolbenchError
from wsolbench.method import evaluating, no_autocast, true_or_predicted
from wsolbench.registry import register_method
from wsolbench.types import Prediction
from wsolbench_methods.networks.target_layer import LayerReader, TargetLayerConfig, channels_last

PREFIX = "gradcam-pkg:"


@dataclass
class PackageConfig(TargetLayerConfig):
    batch_size: int = 32  # altered copies of an image per forward pass (ScoreCAM, AblationCAM, SESS)


class PackageMethod(LayerReader):
    """Abstract base: one class of the package, called on the shared classifier."""

    Config: ClassVar[type] = PackageConfig
    explainer: ClassVar[type[Any]]

    @final
    def localize(self, images_BCHW: Tensor, labels_B: Tensor | None = None) -> Prediction:
        """Maps of the package's method; what they are is said at the top of this file."""
        with torch.inference_mode(False), evaluating(self), _untouched(self.classifier), no_autocast(images_BCHW):
            images_BCHW = images_BCHW.detach().clone()  # an inference tensor cannot take part in autograd
            with torch.no_grad():
                logits_BK = self.classifier(images_BCHW)
            classes_B = true_or_predicted(logits_BK, labels_B)
            with torch.enable_grad():
                maps_Bhw = self._explain(images_BCHW, logits_BK, classes_B.tolist())
        return Prediction(logits_BK.float(), maps_Bhw.to(images_BCHW.device, torch.float32))

    @final
    def _explain(self, images_BCHW: Tensor, logits_BK: Tensor, classes: list[int]) -> Tensor:
        """One call for the batch; image by image where the method draws random numbers."""
        before: Any = np.random.get_state()  # the package draws from the global generator
        try:
            maps_Bhw = self._call(images_BCHW, logits_BK, classes)
            after: Any = np.random.get_state()
            if before[2] == after[2] and np.array_equal(before[1], after[1]):
                return maps_Bhw
            maps = []
            for i, image_CHW in enumerate(images_BCHW):  # what an image gets must not depend on the others
                np.random.seed(zlib.crc32(image_CHW.float().cpu().numpy().tobytes()))
                maps.append(self._call(images_BCHW[i : i + 1], logits_BK[i : i + 1], classes[i : i + 1]))
            return torch.cat(maps)
        finally:
            np.random.set_state(before)

    @final
    def _call(self, images_BCHW: Tensor, logits_BK: Tensor, classes: list[int]) -> Tensor:
        """One call of the package on a batch."""
        model = self.classifier if self.layer else _Staged(self.classifier)
        site: nn.Module = model.get_submodule(self.layer or "site")

        def cut(module: nn.Module, inputs: Any, output: Any) -> Tensor:
            if not isinstance(output, Tensor):
                raise UsageError(f"{self.place} does not give one tensor")
            return output.detach().requires_grad_().clone()  # a copy: what follows may work in place

        def reshape(x: Tensor) -> Tensor:
            return self.as_map(x, images_BCHW).clone(memory_format=torch.contiguous_format)

        # The graph starts at the layer. This hook comes before the package's own, which see what it returns.
        handle = site.register_forward_hook(cut)
        with ExitStack() as stack:
            stack.enter_context(redirect_stdout(StringIO()))  # warnings that do not apply
            stack.enter_context(patch("tqdm.tqdm", lambda steps, **_: steps))  # a progress bar per image
            try:
                explainer = self.explainer(model, [site], reshape_transform=reshape, **self._options())
                explainer.batch_size = self.config.batch_size
                if getattr(explainer, "compute_input_gradient", False):
                    handle.remove()
                if getattr(explainer, "target_layers", [site]) != [
                    site
                ]:  # FullGrad takes layers of its own: all are maps
                    explainer.activations_and_grads.reshape_transform = None
                if not getattr(explainer, "detach", True):  # second derivatives, which fused attention does not have;
                    stack.enter_context(
                        sdpa_kernel(SDPBackend.MATH)
                    )  # at a linear head they are 0 only if it is not frozen
                    self.classifier.requires_grad_()
                with _recording(explainer) as raw:
                    maps = explainer(images_BCHW, _targets(self.explainer.__name__, logits_BK, classes))
            except WsolbenchError:
                raise
            except Exception as error:  # the package raises whatever its arrays do
                reason = next(iter(str(error).splitlines()), "")
                raise WsolbenchError(
                    f"{self.explainer.__name__} of the grad-cam package fails at {self.place} ({type(error).__name__}: "
                    f"{reason}); take another target_layer or backbone"
                ) from error
            finally:
                handle.remove()
        if raw:
            maps = np.maximum(raw[-1], 0) if self.config.relu else raw[-1]
        return torch.as_tensor(np.asarray(maps))

    @final
    def _options(self) -> dict[str, Any]:
        """Arguments that only some of the package's classes take."""
        if "ablation_layer" not in inspect.signature(self.explainer).parameters:
            return {}
        from pytorch_grad_cam import AblationLayer, AblationLayerVit

        tokens = hasattr(self.classifier, "num_prefix_tokens") or channels_last(self.classifier)
        return {"ablation_layer": AblationLayerVit() if tokens else AblationLayer()}


@register_method("gradcam-pkg:")
class PackageAdapter:
    """Any other method of the package grad-cam, e.g. gradcam-pkg:EigenCAM; post-hoc, on the shared classifier."""

    @staticmethod
    def adapt(name: str) -> type[PackageMethod]:
        """The method that calls the package's class `name`.

        Raises:
            UsageError: the installed version has no such method.
        """
        found = explainers()
        by_folded = {_folded(known): known for known in found}
        known = by_folded.get(_folded(name))
        if known is None:
            near = difflib.get_close_matches(_folded(name), by_folded, n=1)
            hint = f", did you mean '{PREFIX}{by_folded[near[0]]}'?" if near else "."
            raise UsageError(
                f"unknown method '{PREFIX}{name}'{hint} The installed grad-cam package has: {', '.join(sorted(found))}"
            )
        return _method(known)


@functools.cache
def explainers() -> dict[str, type[Any]]:
    """The package's classes that take (model, target_layers) and are called with (input_tensor, targets)."""
    import pytorch_grad_cam

    return {
        name: cls
        for name, cls in vars(pytorch_grad_cam).items()
        if inspect.isclass(cls)
        and {"model", "target_layers"} <= {*inspect.signature(cls).parameters}
        and {"input_tensor", "targets"} <= {*inspect.signature(getattr(cls, "forward", lambda: None)).parameters}
    }


@functools.cache
def _method(name: str) -> type[PackageMethod]:
    cls = type(name, (PackageMethod,), {"__doc__": f"{name} of the package grad-cam.", "explainer": explainers()[name]})
    cls.registered_name = PREFIX + name  # type: ignore[attr-defined]
    return final(cls)


def _folded(name: str) -> str:
    """
    >>> _folded("KPCA_CAM"), _folded("score-cam")
    ('kpcacam', 'scorecam')
    """
    return name.lower().replace("_", "").replace("-", "").replace("++", "plusplus")


@final
class _Staged(nn.Module):
    """A timm model with a module between its features and its head, where the package can hook in."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.site = nn.Identity()

    def forward(self, images_BCHW: Tensor) -> Tensor:
        model: Any = self.model
        x: Tensor = self.site(model.forward_features(images_BCHW))
        logits_BK: Tensor = model.forward_head(x)
        return logits_BK


def _targets(name: str, logits_BK: Tensor, classes: list[int]) -> list[Callable[[Tensor], Tensor]]:
    """What is explained: each image's class score; for FinerCAM, what sets it apart from the three nearest scores."""
    from pytorch_grad_cam.utils import model_targets

    if name != "FinerCAM":
        return [model_targets.ClassifierOutputTarget(c) for c in classes]
    targets = []
    for logits_K, c in zip(logits_BK, classes, strict=True):
        nearest = (logits_K - logits_K[c]).abs().argsort(stable=True).tolist()
        targets.append(model_targets.FinerWeightedTarget(c, [other for other in nearest if other != c][:3], 1))
    return targets


@contextmanager
def _recording(explainer: Any) -> Iterator[list[np.ndarray[Any, Any]]]:
    """The raw maps [B, h, w] that `explainer` computes inside the block; none where it merges several maps."""
    from pytorch_grad_cam.base_cam import BaseCAM

    raw: list[np.ndarray[Any, Any]] = []
    if not isinstance(explainer, BaseCAM):
        yield raw
        return
    compute = explainer.get_cam_image

    def record(*args: Any, **kwargs: Any) -> Any:
        raw.append(compute(*args, **kwargs))
        return raw[-1]

    explainer.get_cam_image = record
    try:
        yield raw
    finally:
        del explainer.get_cam_image  # else the two hold each other
        stored = explainer.activations_and_grads
        stored.activations, stored.gradients = [], []  # its own release fails at views


@contextmanager
def _untouched(model: nn.Module) -> Iterator[None]:
    """Parameters frozen inside the block; hooks, submodules and every `.grad` are what they were afterwards."""
    tables: list[tuple[Any, dict[Any, Any]]] = [
        (table, dict(table))
        for module in model.modules()
        for table in (module._modules, module._forward_hooks, module._forward_pre_hooks, module._backward_hooks)
    ]
    parameters = [(p, p.requires_grad, p.grad) for p in model.parameters()]
    for p, _, _ in parameters:
        p.requires_grad_(False)
        p.grad = None
    try:
        yield
    finally:
        for table, content in tables:
            table.clear()
            table.update(content)
        for p, needed, grad in parameters:
            p.requires_grad_(needed)
            p.grad = grad
