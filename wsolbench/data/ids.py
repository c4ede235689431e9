"""Image ids as file names, which never name a file outside their folder, and in sentences."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from wsolbench.errors import WsolbenchError

# absolute paths, drive letters, parent folders, backslashes (folders on Windows), NUL and other control characters
_UNSAFE = re.compile(r"^/|^[A-Za-z]:|(?:^|/)\.\.(?:/|$)|[\\\x00-\x1f\x7f]")
EXPECTED = "a relative path with forward slashes and without '..'"


def is_safe(id: str) -> bool:
    """Say whether an id stays inside whatever folder it is appended to.

    >>> is_safe("001.Black_footed_Albatross/a.b..jpg"), is_safe("a/../../b.jpg"), is_safe("/etc/passwd")
    (True, False, False)
    """
    return bool(id.strip("./")) and (_is_plain(id) or _UNSAFE.search(id) is None)


def _is_plain(id: str) -> bool:
    """The quick answer for nearly every id: no character or pair of characters in it needs a second look."""
    return id.isascii() and id.isprintable() and id[0] != "/" and not (".." in id or ":" in id or "\\" in id)


def safe_path(folder: str | Path, id: str) -> Path:
    """Return `folder / id`, or refuse an id that would leave the folder.

    The check is on the text alone: a link inside the folder is the user's own, and is followed (data sets and maps are
    often links to another disk).

    Raises:
        WsolbenchError: the id is empty, absolute, holds '..' as a part, a backslash or a control character.

    >>> safe_path("images", "val/0001.JPEG").as_posix()
    'images/val/0001.JPEG'
    """
    if not is_safe(id):
        raise WsolbenchError(f"id {id!r} could name a file outside '{folder}'; expected {EXPECTED}")
    return Path(folder, id)


def images_named(ids: Sequence[str], most: int = 8) -> str:
    """Name some images in a sentence.

    >>> images_named(["a", "b", "c"], most=2)
    'images a, b, ... (3 in all)'
    """
    return f"images {', '.join(ids[:most])}" + (f", ... ({len(ids)} in all)" if len(ids) > most else "")
