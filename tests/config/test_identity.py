"""Fields say themselves whether they decide: what is added later leaves hashes and fingerprints as they were."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from wsolbench.config.identity import deciding_of, deciding_values, idle_keys, young_keys
from wsolbench.config.schema import RunConfig, TrainConfig
from wsolbench.data import Dataset, DatasetInfo, Split
from wsolbench.options import YOUNG, bounded, deciding, idle, young
from wsolbench.system.hashing import digest, plain


@dataclass
class InputConfig:
    mean: list[float] | None = None
    std: list[float] | None = None
    cache: str = idle("")


@dataclass
class LaterTrainConfig(TrainConfig):
    teacher: str | None = young(None)
    threads: int = idle(1)


@dataclass
class LaterConfig(RunConfig):
    """A later version: a key at the top, a section, and keys in a section that is there already."""

    image_size: int | None = young(None)
    layers: list[int] = field(default_factory=lambda: [1, 2], metadata=YOUNG)
    input: InputConfig = field(default_factory=InputConfig, metadata=YOUNG)
    train: LaterTrainConfig = field(default_factory=LaterTrainConfig)


NAMES: tuple[dict[str, Any], dict[str, Any]] = ({"name": "sat"}, {"name": "badges"})


def identity(of: type[Any], **changes: Any) -> dict[str, Any]:
    return deciding_of(of, plain(of(*NAMES, **changes)))


def test_what_is_added_later_leaves_the_identity_as_it_was_at_its_default() -> None:
    assert (
        digest(identity(LaterConfig))
        == digest(identity(RunConfig))
        == digest(deciding_values(plain(RunConfig(*NAMES))))
    )
    assert digest(identity(LaterConfig, train=LaterTrainConfig(threads=4))) == digest(identity(RunConfig))


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({"image_size": 448}, {"image_size": 448}),
        ({"layers": [3]}, {"layers": [3]}),
        ({"input": InputConfig([0.5], cache="here")}, {"input": {"mean": [0.5], "std": None}}),
    ],
)
def test_what_is_added_later_decides_where_it_is_used(changes: dict[str, Any], shown: dict[str, Any]) -> None:
    assert identity(LaterConfig, **changes) == identity(RunConfig) | shown
    used = identity(LaterConfig, train=LaterTrainConfig(teacher="dino"))
    assert used["train"] == identity(RunConfig)["train"] | {"teacher": "dino"}


def test_keys_are_found_wherever_they_stand() -> None:
    assert {*young_keys(LaterConfig)} - {*young_keys()} == {"image_size", "layers", "input", "train.teacher"}
    assert {*idle_keys(LaterConfig)} - {*idle_keys()} == {"input.cache", "train.threads"}
    assert young_keys()["train.dtype"] == "fp32"


@dataclass
class Options:
    clutter: int = bounded(2, least=0)


@dataclass
class LaterOptions:
    clutter: int = 2
    hue: float = young(0.0)
    views: list[str] = field(default_factory=lambda: ["front"], metadata=YOUNG)
    cache: str | None = idle(None)


class Drawn(Dataset):
    Config: ClassVar[type] = Options
    splits = ("train",)
    info = DatasetInfo("drawn", "", "", "7", ("a",), (8, 8), {"train": 2})

    def split(self, name: str) -> Split:
        class Two(Split):
            ids: ClassVar[list[str]] = ["x", "y"]
            labels = np.zeros(2, np.int64)

            def sample(self, index: int, augment: Any) -> Any: ...

            def annotation(self, id: str) -> Any: ...

        return Two()


def fingerprint(config: Any) -> str:
    # both are called Options, as a class that has grown is
    type(config).__qualname__ = "Options"
    return Drawn(config, root=Path()).fingerprint()


def test_an_option_of_a_data_set_that_is_added_later_leaves_its_fingerprint_as_it_was() -> None:
    before = fingerprint(Options())
    assert fingerprint(LaterOptions()) == fingerprint(LaterOptions(cache="pixels")) == before
    assert len({fingerprint(LaterOptions(hue=0.1)), fingerprint(LaterOptions(views=["side"])), before}) == 3
    assert deciding(LaterOptions()) == {"clutter": 2}


def test_the_text_of_a_fingerprint_is_that_of_the_dataclass() -> None:
    """As it was before fields said anything: fingerprints of data sets without such fields hold."""
    import hashlib

    told = hashlib.sha256(f"7|{Options(3)!r}".encode())
    told.update(b"train")
    told.update(b"x\ny")
    told.update(np.zeros(2, np.int64).tobytes())
    assert fingerprint(Options(3)) == told.hexdigest()
