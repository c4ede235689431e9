"""Hyper-parameter search as a field of a run."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import staged_fakes  # noqa: F401 (registers methods)
from engine_fakes import FakeSplit, NaN, fake_config

import wsolbench.runs.search
from wsolbench.config.compose import expand
from wsolbench.config.presets import space_presets
from wsolbench.config.saved import from_yaml, repeat, to_yaml
from wsolbench.config.schema import RunConfig, SearchConfig
from wsolbench.config.search_space import load_space, with_values
from wsolbench.config.selectors import Settings
from wsolbench.errors import UsageError, WsolbenchError
from wsolbench.evaluation.levels import Levels
from wsolbench.leaderboard.groups import summarise
from wsolbench.leaderboard.records import load_records
from wsolbench.leaderboard.view import render
from wsolbench.protocols.select import CHECKPOINTS, Look
from wsolbench.record import RunRecord, comparable, search_text
from wsolbench.runs.engine import run
from wsolbench.runs.load import load_run
from wsolbench.runs.opening import Session, open_job

SPACE = """
space:
  - for: {methods: ["*"]}
    train: {lr: {log-uniform: [1.0e-3, 0.3]}}
  - for: {methods: [tiny, straying]}
    method: {scale: {uniform: [0.5, 2]}}
"""


@pytest.fixture
def searched(tmp_path: Path) -> Callable[..., RunConfig]:
    """A fake run with a search of three trials; the first argument is the folder below which it is kept."""
    space = tmp_path / "space.yaml"
    space.write_text(SPACE)

    def make(out: str = "out", method: str = "tiny", by: str | None = None, trials: int = 3, **more: Any) -> RunConfig:
        search = SearchConfig(trials, by, str(space))
        return replace(fake_config(tmp_path / out, method, **more), search=search)

    return make


def done(config: RunConfig) -> tuple[RunRecord, Path]:
    outcome = run(config)
    assert outcome.status == "done"
    assert outcome.record is not None
    assert outcome.directory is not None
    return outcome.record, outcome.directory


# --- spaces ----------------------------------------------------------------------------------------------------------


def test_the_realistic_space_is_that_of_the_paper() -> None:
    """lr, weight decay and gamma log-uniform in [1e-5, 1]; step size 5-45 epochs on CUB, 2-9 on ILSVRC."""
    cub, ilsvrc = (load_space(None, name, "sat", "deit_small_patch16_224") for name in ("cub", "ilsvrc"))
    assert cub.name == ilsvrc.name == "realistic"
    wide = {"log-uniform": [1e-5, 1.0]}
    both = {"train.lr": wide, "train.weight_decay": wide, "train.gamma": wide, "train.schedule": {"choice": ["step"]}}
    both["method.area"] = {"uniform": [0, 1]}
    assert cub.distributions == both | {"train.milestones": {"multiples": [5, 45]}}
    assert ilsvrc.distributions == both | {"train.milestones": {"multiples": [2, 9]}}
    for number in range(1, 50):
        drawn = with_values(RunConfig({"name": "sat"}, {"name": "cub"}), cub.draw(0, "sat", number, 50)).train
        assert 1e-5 <= drawn.lr <= 1
        size = drawn.milestones[0]
        assert 5 <= size <= 45
        assert drawn.milestones == list(range(size, 51, size))


def test_values_spread_over_their_distribution() -> None:
    space = load_space("realistic", "cub", "sat", None)
    drawn = [space.draw(0, "sat", number, 50) for number in range(1, 401)]
    small = sum(values["train.lr"] < 10**-2.5 for values in drawn)  # half of the decades
    assert 160 < small < 240
    assert 160 < sum(values["method.area"] < 0.5 for values in drawn) < 240


def test_every_shipped_space_fits_every_method() -> None:
    from wsolbench.registry import list_methods

    for name in space_presets():
        for method in ("sat", "tscam", "cam", "gradcam", "center-box"):
            assert method in list_methods()
            assert load_space(name, "badges", method, "badges_vit.s0").distributions


def test_a_trial_is_the_same_in_every_process_and_for_every_method() -> None:
    code = "from wsolbench.config.search_space import load_space; print(load_space(None, 'badges', 'sat', None).draw(3, 'sat', 3, 5))"
    env = os.environ | {"PYTHONHASHSEED": "12", "PYTHONPATH": os.pathsep.join(sys.path)}
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=env).stdout
    ours = load_space(None, "badges", "sat", None).draw(3, "sat", 3, 5)
    assert printed.strip() == str(ours)
    cam = load_space(None, "badges", "cam", None).draw(3, "cam", 3, 5)
    assert cam.items() <= ours.items()
    assert ours != load_space(None, "badges", "sat", None).draw(4, "sat", 3, 5)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("space: [{train: {lr: {uniform: [0, 1]}}}]", "whom it is for"),
        ("space: [{for: {methods: [tiny]}, train: {lrr: {uniform: [0, 1]}}}]", "train.lrr.*did you mean 'train.lr'"),
        ("space: [{for: {methods: [tiny]}, method: {scal: {uniform: [0, 1]}}}]", "did you mean 'method.scale'"),
        ("space: [{for: {methods: [tiny]}, train: {lr: {normal: [0, 1]}}}]", "distribution of train.lr 'normal'"),
        ("space: [{for: {methods: [tiny]}, train: {lr: {log-uniform: [0, 1]}}}]", "above 0"),
        ("space: [{for: {methods: [tiny]}, train: {lr: {uniform: [1, 0]}}}]", "the smaller first"),
        ("space: [{for: {methods: [tiny]}, train: {lr: 0.1}}]", "takes one distribution"),
        ("space: [{for: {methods: [tiny]}, evaluate: {interval: {uniform: [0, 1]}}}]", "unknown key 'evaluate'"),
        ("other: []", "one list named 'space'"),
    ],
)
def test_a_space_that_makes_no_sense_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=said):
        load_space(str(path), "badges", "tiny", None)


def test_an_unknown_space_is_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'realistic'"):
        load_space("realistc", "badges", "cam", None)


# --- the command -----------------------------------------------------------------------------------------------------


def test_every_method_gets_the_same_number_of_trials() -> None:
    runs = expand(["sat", "cam"], protocol="full,5shot", seeds=[0, 1], search=8, overrides=["train.epochs=2"])
    assert len(runs) == 8
    assert {(each.search.trials, each.search.by, each.search.space) for each in runs} == {(8, None, None)}


@pytest.mark.parametrize(
    ("options", "overrides", "said"),
    [
        ({"search": 4}, ["train.lr=0.1"], "'train.lr=0.1' contradicts the search"),
        ({"search": 4}, ["sat.area=0.1"], "contradicts the search, which tries values of method.area"),
        ({"search": 4}, ["search.trials=2"], "--search and 'search.trials=2' contradict"),
        ({"search": 0}, [], "search.trials=0 is impossible"),
        ({"search_by": "val-boxes"}, [], "nothing is searched"),
        ({"search": 2, "search_by": "last"}, [], "search.by"),
        ({"search": 2}, ["search.found={}"], "unknown key 'search.found'"),
        ({"search": 2}, ["search.space=nowhere"], "unknown search space 'nowhere'"),
    ],
)
def test_what_contradicts_a_search_is_refused(options: dict[str, Any], overrides: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        expand(["sat"], overrides=overrides, **options)


def test_val_without_boxes_is_refused(searched: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeSplit, "annotated", property(lambda split: not split.ids[0].startswith("val")))
    with pytest.raises(UsageError, match=r"by 'val-boxes', but there are no boxes of val .* class-accuracy"):
        run(searched(threshold="otsu"))
    record, _ = done(searched(threshold="otsu", by="class-accuracy"))
    assert record.protocol == "full+search3:class-accuracy"
    assert not [use for use in record.ledger.annotations if use["split"] == "val" and use["kind"] != "labels"]


# --- the search ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["straying", "straying-b"])
def test_the_run_is_that_of_the_best_trial(searched: Callable[..., RunConfig], tmp_path: Path, method: str) -> None:
    """The smaller the learning rate, the nearer the maps of these methods are to the objects."""
    record, folder = done(searched(method=method))
    found = record.ledger.search
    assert record.protocol == "full+search3"
    assert (found["trials"], found["by"], found["failed"], len(found["tried"])) == (3, "val-boxes", 0, 3)
    scores = [entry["score"] for entry in found["tried"]]
    rates = [entry["values"]["train.lr"] for entry in found["tried"]]
    assert found["chosen"] == 1 + rates.index(min(rates)) == 1 + scores.index(max(scores))
    assert found["values"] == found["tried"][found["chosen"] - 1]["values"]
    assert set(found["values"]) == {"train.lr"} | ({"method.scale"} if method == "straying" else set())
    assert record.config["train"]["lr"] == found["values"]["train.lr"]
    assert not record.test_selected
    assert [use["images"] for use in record.ledger.annotations if use["purpose"] == "hyper-parameter search"] == [12]

    plain, elsewhere = done(with_values(fake_config(tmp_path / "plain", method), found["values"]))
    assert plain.cells == record.cells
    assert (folder / "levels.npz").read_bytes() == (elsewhere / "levels.npz").read_bytes()
    loaded, trained = load_run(folder).state_dict(), load_run(elsewhere).state_dict()
    assert all((loaded[name] == trained[name]).all() for name in trained)
    shared = tmp_path / "out/runs/fake-data" / ("_trainings" if method == "straying" else "_classifiers")
    assert len(list(shared.iterdir())) == 3  # the chosen one was not trained again


def test_ties_go_to_the_earliest_trial(searched: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CHECKPOINTS, "val-boxes", lambda look, settings: 0.5)
    assert done(searched())[0].ledger.search["chosen"] == 1


def test_the_order_of_runs_changes_nothing(searched: Callable[..., RunConfig]) -> None:
    first = [done(searched("a", name))[0] for name in ("shared-a", "shared-b", "tiny")]
    second = [done(searched("b", name))[0] for name in ("tiny", "shared-b", "shared-a")]
    assert [comparable(each) for each in first] == [comparable(each) for each in reversed(second)]
    lrs = [[entry["values"]["train.lr"] for entry in each.ledger.search["tried"]] for each in first]
    assert lrs[0] == lrs[1] == lrs[2]


def test_only_the_chosen_trial_is_scored_on_test(searched: Callable[..., RunConfig], tmp_path: Path) -> None:
    done(searched())
    homes = list((tmp_path / "out/runs/fake-data/_trainings").iterdir())
    assert len(homes) == 3
    assert all(list(home.glob("outcomes/*/*/val.json")) for home in homes)
    assert sum(bool(list(home.glob("outcomes/*/*/test.*"))) for home in homes) == 1


def test_the_choice_does_not_depend_on_test(
    searched: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = done(searched("a"))[0].ledger.search
    truth = FakeSplit._box
    monkeypatch.setattr(
        FakeSplit, "_box", lambda split, index: (0, 0, 3, 3) if split.ids[0].startswith("test") else truth(split, index)
    )
    assert done(searched("b"))[0].ledger.search == before


def _cheats(look: Look, settings: Settings) -> float:
    return look.boxes("test").box_summary("single", (0.5,), settings.interval)["value"]


@pytest.mark.parametrize("by", ["val-boxes", "test-oracle"])
def test_who_looks_at_test_is_marked_whatever_its_name(
    searched: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    monkeypatch.setitem(CHECKPOINTS, "val-boxes", _cheats)
    record, folder = done(searched(by=by))
    assert record.test_selected
    assert record.ledger.search["test_selected"]
    assert {
        "split": "test",
        "kind": "boxes",
        "purpose": "hyper-parameter search",
        "images": 12,
    } in record.ledger.annotations
    again = replace(repeat(str(folder / "config.yaml")), out=str(folder.parents[5] / "again"))
    assert done(again)[0].test_selected


def test_a_cheat_whose_trials_fail_after_looking_is_marked(
    searched: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Levels] = []

    def fails(look: Look, settings: Settings) -> float:
        seen.append(look.boxes("test") if not seen else look.boxes("val"))
        return float("nan") if len(seen) == 1 else 0.5

    monkeypatch.setitem(CHECKPOINTS, "val-boxes", fails)
    record, _ = done(searched())
    assert (record.ledger.search["failed"], record.test_selected) == (1, True)


def test_a_protocol_that_chooses_among_checkpoints_searches_by_the_same(searched: Callable[..., RunConfig]) -> None:
    record, folder = done(searched(name="labels-only", checkpoint="class-accuracy", threshold="otsu"))
    assert record.ledger.search["by"] == "class-accuracy"
    assert record.protocol == "labels-only+search3"
    assert record.ledger.checkpoints == 4
    assert (folder / "best-class-accuracy.safetensors").is_file()


def test_nothing_to_search(searched: Callable[..., RunConfig]) -> None:
    record, _ = done(searched(method="centre"))
    assert record.protocol == "full+search3"
    assert search_text(record.ledger.search) == "nothing to search"


# --- failures and interruptions --------------------------------------------------------------------------------------


def test_a_failed_trial_is_counted_and_loses(
    searched: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    method_loss, diverging = NaN.loss, []

    def loss(self: NaN, batch: Any) -> Any:
        lr = diverging[-1]
        return method_loss(self, batch) if lr else super(NaN, self).loss(batch)

    created = wsolbench.runs.search.create

    def create(config: RunConfig, *rest: Any) -> Any:
        diverging.append(len(diverging) == 0)  # the first trial only
        return created(config, *rest)

    monkeypatch.setattr(NaN, "loss", loss)
    monkeypatch.setattr(wsolbench.runs.search, "create", create)
    record, _ = done(searched(method="nan"))
    found = record.ledger.search
    assert found["failed"] == 1
    assert found["chosen"] in (2, 3)
    assert "not finite" in found["tried"][0]["failed"]
    assert found["tried"][0]["score"] is None
    assert record.notes[-1].endswith("; 1 failed")


def test_a_search_whose_trials_all_fail_fails(searched: Callable[..., RunConfig], tmp_path: Path) -> None:
    with pytest.raises(
        WsolbenchError, match="all 3 trials of the search failed; the first one: the loss is not finite"
    ):
        run(searched(method="nan"))
    assert len(list((tmp_path / "out").rglob("failed.json"))) == 4
    assert load_records(tmp_path / "out") == []


def test_an_interrupted_search_is_taken_up(
    searched: Callable[..., RunConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = done(searched("whole", "interrupted"))[0]
    created, count = wsolbench.runs.search.create, [0]

    def create(config: RunConfig, *rest: Any) -> Any:
        count[0] += 1
        monkeypatch.setenv("INTERRUPT_AT_LOSS", "4" if count[0] == 2 else "never")  # in the second trial
        return created(config, *rest)

    monkeypatch.setattr(wsolbench.runs.search, "create", create)
    asked = searched(method="interrupted")
    with pytest.raises(KeyboardInterrupt):
        run(asked)
    homes = tmp_path / "out/runs/fake-data/_trainings"
    assert sorted((home / "state.pt").exists() for home in homes.iterdir()) == [False, True]
    assert not list((tmp_path / "out").rglob("record.json"))
    monkeypatch.undo()
    before = {
        home: (home / "last.safetensors").stat().st_mtime_ns
        for home in homes.glob("*")
        if (home / "training.json").exists()
    }
    record, _ = done(asked)
    assert comparable(record) == comparable(whole)
    assert len(before) == 1
    assert all((home / "last.safetensors").stat().st_mtime_ns == when for home, when in before.items())


# --- what stays ------------------------------------------------------------------------------------------------------


def test_a_searched_run_is_skipped_when_done_and_repeated_from_its_config(
    searched: Callable[..., RunConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record, folder = done(searched())
    monkeypatch.setattr(wsolbench.runs.search, "_search", None)  # no search takes place from here on
    assert run(searched()).status == "skipped"
    config = repeat(str(folder / "config.yaml"))
    assert run(config).status == "skipped"
    assert from_yaml(to_yaml(config)) == config
    again, elsewhere = done(replace(config, out=str(tmp_path / "again")))
    assert (again.hash, again.protocol, again.ledger.search) == (
        record.hash,
        record.protocol,
        record.ledger.search,
    )
    assert again.cells == record.cells
    assert elsewhere.relative_to(tmp_path / "again") == folder.relative_to(tmp_path / "out")


def test_a_searched_run_has_its_own_hash_and_others_keep_theirs(searched: Callable[..., RunConfig]) -> None:
    def hash_of(config: RunConfig) -> str:
        return open_job(config, Session()).directory.hash

    plain = fake_config(Path(searched().out))
    identity = open_job(plain, Session()).identity
    assert "search" not in identity["config"]
    variants = [plain, searched(), searched(trials=4), searched(by="class-accuracy"), searched(epochs=4)]
    assert len({hash_of(each) for each in variants}) == len(variants)
    assert hash_of(searched(lr=0.5)) == hash_of(searched())  # the search decides


def test_the_leaderboard_shows_one_row_per_searched_method(searched: Callable[..., RunConfig], tmp_path: Path) -> None:
    for seed in (0, 1):
        done(searched(seed=seed))
        done(fake_config(tmp_path / "out", seed=seed))
    records = load_records(tmp_path / "out")
    assert len(records) == 4
    chosen = {str(each.ledger.search["values"]) for each in records if isinstance(each.ledger.search, dict)}
    assert len(chosen) == 2  # each seed chose its own
    groups = {group.protocol: group for group in summarise(records)}
    assert {name: [row.seeds for row in group.rows] for name, group in groups.items()} == {
        "full": [(0, 1)],
        "full+search3": [(0, 1)],
    }
    text = str(render(records, "markdown"))
    assert "hyper-parameter search: 3 trials by val-boxes in space" in text
    assert "hyper-parameter search: none (untuned)" in text
    assert "seed 1: trial" in text
