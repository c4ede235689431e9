"""What has been built of the methods of a profile on one backbone: laid out, compiled, and on or off the device."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import torch
from torch import nn

from wsolbench.backbones import family
from wsolbench.config.schema import RunConfig
from wsolbench.errors import WsolbenchError
from wsolbench.method.base import Method, create_method
from wsolbench.method.numerics import Numerics
from wsolbench.options import Named
from wsolbench.profile.timing import status_of
from wsolbench.profile.work import (
    FORWARD,
    PLAIN,
    TRAIN,
    network_of,
    prepare,
    random_batch,
    reads_classifier,
    sizes_of,
)
from wsolbench.types import Batch


class Networks:
    """The methods of some configs on one backbone, each built when it is first asked for in another layout or compiled.

    Args:
        on_unfit: is told of a config whose method cannot use the backbone, and why, and the method is left out.

    Raises:
        WsolbenchError: a method cannot be built on the backbone, and there is no `on_unfit` to tell.
    """

    def __init__(
        self,
        configs: Sequence[RunConfig],
        device: torch.device,
        size_HW: tuple[int, int],
        num_classes: int,
        on_unfit: Callable[[RunConfig, WsolbenchError], None] | None = None,
    ) -> None:
        self.device, self.size_HW, self.num_classes = device, size_HW, num_classes
        self.configs: list[RunConfig] = []
        self.methods: list[Method] = []
        self._targets: dict[Hashable, nn.Module] = {}
        self._batches: dict[tuple[int, bool], Batch] = {}
        for config in configs:
            try:
                self.methods.append(self._build(config))
                self.configs.append(config)
            except WsolbenchError as error:
                if on_unfit is None:
                    raise
                on_unfit(config, error)

    def get(self, at: int, work: str, numerics: Numerics) -> nn.Module:
        """The method of config `at`, or of FORWARD its network, on the device; number formats share it.

        Raises:
            WsolbenchError: the backbone is no network by itself.
        """
        plain = work == FORWARD and not reads_classifier(self.methods[at])
        key = (None if plain else at, work == FORWARD, numerics.compile, numerics.channels_last)
        if key not in self._targets:
            own = self.methods[at] if not numerics.compile and not numerics.channels_last else None
            method = own or self._build(self.configs[at])
            self._targets[key] = network_of(method) if work == FORWARD else method
            prepare(self._targets[key], numerics)
        return self._targets[key].to(self.device)

    def batch(self, batch_size: int, channels_last: bool) -> Batch:
        """Random images on the device, the same for all until they are released."""
        key = (batch_size, channels_last)
        if key not in self._batches:
            self._batches[key] = random_batch(batch_size, self.size_HW, self.num_classes, self.device, channels_last)
        return self._batches[key]

    def same_work(self, at: int, work: str) -> Hashable:
        """Equal for methods that do the very same: FORWARD of equal networks, training of the classifier they share."""
        method = self.methods[at]
        shared = work == FORWARD or (work == TRAIN and type(method).training_for(method.backbone) == "classifier")
        try:
            network = self.get(at, FORWARD, PLAIN) if shared else None
        except WsolbenchError:  # told where it is measured
            network = None
        return at if network is None else (type(network), sizes_of(network))

    def release(self) -> None:
        """Drop images and gradients."""
        self._batches.clear()
        for network in (*self.methods, *self._targets.values()):
            network.zero_grad(set_to_none=True)

    def clear_device(self) -> None:
        """Drop images and gradients, and leave nothing on a CUDA device; `get` brings back what is asked for, `restore` the methods."""
        self.release()
        if self.device.type == "cuda":
            for network in (*self.methods, *self._targets.values()):
                network.to("cpu")
            torch.cuda.empty_cache()

    def restore(self) -> None:
        """All methods on the device again."""
        for method in self.methods:
            method.to(self.device)

    def _build(self, config: RunConfig) -> Method:
        name, options = Named.of(config.method)
        try:
            method = create_method(name, num_classes=self.num_classes, backbone=config.backbone, **options)
            return method.to(self.device)
        except WsolbenchError:
            raise
        except Exception as error:
            reason = status_of(error).removeprefix("failed: ")
            raise WsolbenchError(
                f"method '{name}' could not be built on backbone '{config.backbone}': {reason}"
            ) from error


def is_convolutional(backbone: str | None) -> bool:
    """Whether there are feature maps to lay out; names that only a method knows count as such."""
    try:
        return backbone is not None and family(backbone) != "vit"
    except WsolbenchError:
        return True
