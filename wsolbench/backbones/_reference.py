"""What the networks of clovaai/wsolevaluation share: their initialisation, their optimizer's groups, their starting weights."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from wsolbench.config.schema import TrainConfig

AUTHORS = "wsolevaluation CAM (authors)"  # whose checkpoints have these networks' keys
NORMALISATION = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def initialise(model: nn.Module, *, he: bool) -> None:
    """Convolutions He (normal, fan out) or Xavier (uniform), linear layers N(0, 0.01), norms the identity, biases 0."""
    for part in model.modules():
        if isinstance(part, nn.Conv2d) and he:
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(part, nn.Conv2d):
            nn.init.xavier_uniform_(part.weight)
        elif isinstance(part, nn.BatchNorm2d):
            nn.init.ones_(part.weight)
        elif isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, 0, 0.01)
        if isinstance(part, nn.Conv2d | nn.BatchNorm2d | nn.Linear) and part.bias is not None:
            nn.init.zeros_(part.bias)


def two_rates(model: nn.Module, train_config: TrainConfig, fast: tuple[str, ...]) -> list[dict[str, Any]]:
    """The reference's two groups: parts named in `fast` learn at lr * head_lr_scale; everything decays, biases and norms too."""
    groups: dict[bool, list[nn.Parameter]] = {False: [], True: []}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups[name.partition(".")[0] in fast].append(parameter)
    return [
        {
            "params": parameters,
            "lr": train_config.lr * (train_config.head_lr_scale if is_fast else 1.0),
            "weight_decay": train_config.weight_decay,
        }
        for is_fast, parameters in groups.items()
        if parameters
    ]


def starting_state(
    state: dict[str, Tensor], model: nn.Module, *, dropped: tuple[str, ...], new: tuple[str, ...]
) -> dict[str, Tensor]:
    """torchvision's weights without the parts in `dropped`, and the model's own for the parts in `new`.

    Complete, so that it loads strictly: a tensor that fits nowhere is an error, as it is not in the reference.
    """
    own = {name: value for name, value in model.state_dict().items() if name.startswith(new)}
    return own | {name: value for name, value in state.items() if not name.startswith(dropped)}
