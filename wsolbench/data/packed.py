"""A list of strings that many processes can hold at the price of one."""

from __future__ import annotations

from collections.abc import Iterable

import torch


class PackedStrings:
    """Strings in one tensor of bytes.

    A list of 1.28 million ids is copied into every loading process that reads it, since reading a Python string writes its
    reference count; and it is copied whole where processes are not forked. A tensor is shared either way.

    >>> names = PackedStrings(["cat/1.jpg", "Vögel/2.jpg"])
    >>> len(names), names[1]
    (2, 'Vögel/2.jpg')
    """

    def __init__(self, strings: Iterable[str]) -> None:
        pieces = [string.encode("utf-8", "surrogateescape") for string in strings]
        lengths = torch.tensor([0, *map(len, pieces)], dtype=torch.int64)
        self._bytes = torch.frombuffer(bytearray(b"".join(pieces) or b"\0"), dtype=torch.uint8)
        self._begin = lengths.cumsum(0)

    def __len__(self) -> int:
        return len(self._begin) - 1

    def __getitem__(self, index: int) -> str:
        begin, end = self._begin[index : index + 2].tolist()
        return self._bytes[begin:end].numpy().tobytes().decode("utf-8", "surrogateescape")
