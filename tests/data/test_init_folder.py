"""`data init` makes a folder that the data set `folder` reads, and never touches what is there."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from folder_trees import write_folder

from wsolbench import create_dataset
from wsolbench.cli.main import build_parser, main
from wsolbench.cli.parser import parsers_of


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_is_made_and_the_next_commands_are_told(tmp_path, capsys):
    folder = tmp_path / "my images"
    assert main(["data", "init", str(folder)]) == 0
    assert {path.name for path in folder.iterdir()} == {"train", "val", "test", "README.txt", "boxes.csv"}
    told = capsys.readouterr().out
    commands = [line.strip() for line in told.splitlines() if line.startswith("  ")]
    assert len(commands) == 3
    verbs = parsers_of(build_parser())
    known = {*verbs, *(f"data {name}" for name in parsers_of(verbs["data"]))}
    for command in commands:
        program, *words = shlex.split(command)
        assert program == "wsolbench"
        assert str(folder) in words
        assert words[0] in known
        assert command in (folder / "README.txt").read_text(encoding="utf-8")


def test_the_template_is_no_obstacle_and_its_examples_are_lines_of_boxes(tmp_path):
    main(["data", "init", str(tmp_path)])
    tree = write_folder(tmp_path)
    assert not create_dataset("folder", root=tmp_path).split("val").annotated
    path = tmp_path / "boxes.csv"
    header, *examples = [line for line in path.read_text().splitlines() if not line.startswith("# ") or "," in line][
        -3:
    ]
    assert header == "id,x0,y0,x1,y1"
    assert all(example.startswith(("# val/", "# test/")) and example.count(",") == 4 for example in examples)
    with path.open("a", encoding="utf-8") as file:
        file.writelines(f"{id},{','.join(map(str, tree.boxes[id]))}\n" for id in tree.scored)
    split = create_dataset("folder", root=tmp_path).split("test")
    assert split.annotation(split.ids[0]).boxes_N4.tolist() == [tree.boxes[split.ids[0]]]


def test_nothing_is_overwritten(tmp_path, capsys):
    tree = write_folder(tmp_path)
    tree.write_csv()
    (tmp_path / "README.txt").write_text("mine")
    before = content(tmp_path)
    assert main(["data", "init", str(tmp_path)]) == 0
    assert content(tmp_path) == before
    assert "kept train/, val/, test/, README.txt, boxes.csv as they were" in capsys.readouterr().out


def test_a_tree_without_splits_stays_readable(tmp_path):
    write_folder(tmp_path / "images", splits=False)
    ids = create_dataset("folder", root=tmp_path).split("train").ids
    main(["data", "init", str(tmp_path)])
    assert create_dataset("folder", root=tmp_path).split("train").ids == ids


@pytest.mark.parametrize("file", ["taken", "taken/inside", "folder/val"])
def test_a_file_in_the_way_is_named(tmp_path, capsys, file):
    (tmp_path / "folder").mkdir()
    (tmp_path / "taken").write_text("")
    (tmp_path / "folder" / "val").write_text("")
    assert main(["data", "init", str(tmp_path / file.removesuffix("/val"))]) == 2
    message = capsys.readouterr().err
    assert file in message
    assert message.count("\n") == 1
