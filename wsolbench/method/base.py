"""The abstract `Method`: what every localisation method promises. Concrete methods are final and live one per file."""

# B batch, C channels, H W image, h w map, K classes

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, cast, final

import torch.nn.functional as F
from torch import Tensor, nn

from wsolbench.config.schema import TrainConfig
from wsolbench.errors import UsageError
from wsolbench.method.checkpoint import Layout, classifier_layout, load_into
from wsolbench.method.param_groups import classifier_groups, decay_groups
from wsolbench.method.precision import wide
from wsolbench.method.recompute import recompute_activations
from wsolbench.types import Batch, Prediction

Training = Literal["own", "classifier", "none"]


@dataclass
class NoConfig:
    """For methods without hyper-parameters of their own."""


class Method(nn.Module, ABC):
    """Train on image labels, answer with a score map.

    Required: `loss`, `localize`. Optional: `Config`, `training`, `needs`, `param_groups`, `layouts`,
    `checkpoint_gradients`.
    A method never sees annotations, data sets, files or thresholds.
    """

    Config: ClassVar[type] = NoConfig
    """A small dataclass of hyper-parameters; not frozen (the config system overrides it), Enum instead of Literal."""
    # A class attribute by contract. torch.nn.Module gives each *instance* a bool of the same name (train / eval mode),
    # so it is read off the class, and the engine asks `training_for`.
    training: ClassVar[Training] = "own"  # type: ignore[misc, assignment]
    """own: trained by `loss`; classifier: reads a shared trained classifier (see `PostHoc`); none: nothing is trained."""
    needs: ClassVar[frozenset[str]] = frozenset()
    """What else it needs, e.g. "gradients" at test time."""
    global_losses: ClassVar[frozenset[str]] = frozenset()
    """Losses that are taken over the images of all processes (`global_mean`); others are means over a process's own."""
    default_backbone: ClassVar[str | None] = None
    """timm name used when neither the user nor a recipe names one; None: the method has no network."""
    version: ClassVar[int] = 1
    """Moves when the method's numbers move; part of a run's hash."""

    def __init__(
        self,
        config: Any,
        *,
        num_classes: int,
        backbone: str | None,
        pretrained: bool = False,
        class_names: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.num_classes = num_classes
        self.backbone = backbone
        self.pretrained = pretrained
        self.class_names = class_names

    @classmethod
    def training_for(cls, backbone: str | None) -> Training:
        """How the method is trained on this backbone; differs from `training` only where the backbone decides."""
        return cls.training

    @abstractmethod
    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Named scalar losses, already weighted; the training loss is their sum."""

    @abstractmethod
    def localize(self, images_BCHW: Tensor, labels_B: Tensor | None = None) -> Prediction:
        """Score maps of `labels_B` (None: of the predicted class), raw float32 [B, h, w], and logits [B, K] or None.

        Works under grad, no_grad and inference_mode, and leaves every parameter's `.grad` alone.
        """

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Equal `loss`, so that the hooks of DistributedDataParallel run."""
        return self.loss(batch)

    def param_groups(self, train_config: TrainConfig) -> list[dict[str, Any]]:
        """Optimizer groups; by default 1-d tensors (biases, norms) are free of weight decay."""
        return decay_groups(self.named_parameters(), train_config)

    def checkpoint_gradients(self, enable: bool = True) -> None:
        """From now on compute activations again in the backward pass: less memory, same losses and gradients, more time.

        By default every part of the method that has timm's `set_grad_checkpointing` is told to; `enable=False` ends it.

        Raises:
            UsageError: no part of it has.
        """
        told = [recompute_activations(part, enable) for part in self.children()]
        if not any(told):
            raise UsageError(
                f"backbone '{self.backbone}' cannot compute its activations again: it has no gradient checkpointing; "
                "leave train.checkpoint_gradients at false"
            )

    def layouts(self) -> Sequence[Layout]:
        """Checkpoint layouts it reads beside its own names: the authors', those of plain classifiers."""
        return ()

    @final
    def load_checkpoint(self, path: str | Path) -> Layout:
        """Load weights from safetensors or a torch file holding tensors only; returns the layout the file was in.

        Raises:
            WsolbenchError: the file is damaged, needs unpickling, or fits no layout; the weights are as they were.
        """
        return load_into(self, path, self.layouts())


class PostHoc(Method):
    """Abstract base of methods that read a classifier trained once and shared between them.

    Subclasses set `self.classifier`, a module mapping images [B, C, H, W] to logits [B, K].
    """

    training: ClassVar[Training] = "classifier"  # type: ignore[misc]
    classifier: nn.Module

    @final
    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy of the shared classifier."""
        return {"cls": F.cross_entropy(wide(self.classifier(batch.images_BCHW)), batch.labels_B)}

    def layouts(self) -> Sequence[Layout]:
        """A classifier by itself: timm's, or the one the harness shares between methods."""
        return (classifier_layout(self.classifier),)

    def param_groups(self, train_config: TrainConfig) -> list[dict[str, Any]]:
        """The classifier's own groups where it brings some, so that methods sharing it train it alike."""
        return classifier_groups(self.classifier, train_config) or super().param_groups(train_config)


class Untrained(Method):
    """Abstract base of methods that train nothing: controls and trivial baselines."""

    training: ClassVar[Training] = "none"  # type: ignore[misc]

    @final
    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Nothing to minimise."""
        return {}


class evaluating:
    """Evaluation mode inside the block; every submodule's own mode is back afterwards.

    Touches what is in training mode only, so that a compiled `localize` of a method in evaluation mode has nothing to do.
    """

    def __init__(self, module: nn.Module) -> None:
        self.trained = [part for part in module.modules() if part.training]

    def __enter__(self) -> None:
        for part in self.trained:
            part.training = False

    def __exit__(self, *error: object) -> None:
        for part in self.trained:
            part.training = True


def true_or_predicted(logits_BK: Tensor, labels_B: Tensor | None) -> Tensor:
    """The classes whose maps are wanted: the labels where given, else the arg-max of the logits."""
    return logits_BK.argmax(1) if labels_B is None else labels_B


def create_method(
    name: str,
    *,
    num_classes: int,
    backbone: str | None = None,
    pretrained: bool = False,
    checkpoint: str | Path | None = None,
    class_names: Sequence[str] | None = None,
    **method_config: Any,
) -> Method:
    """Build a registered method.

    >>> m = create_method("center-box", num_classes=3)
    >>> m.localize(torch.zeros(2, 3, 8, 8)).maps_Bhw.shape
    torch.Size([2, 8, 8])
    """
    from wsolbench.options import build_method_config
    from wsolbench.registry import METHODS

    cls = cast(type[Method], METHODS.get(name))
    config = build_method_config(cls, name, method_config)
    method = cls(
        config,
        num_classes=num_classes,
        backbone=backbone or cls.default_backbone,
        pretrained=pretrained,
        class_names=class_names,
    )
    if checkpoint is not None:
        method.load_checkpoint(checkpoint)
    return method
