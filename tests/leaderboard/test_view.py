"""`wsolbench leaderboard`: what is selected, pivoted, compared, shown beside published numbers; and what is refused."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from board_cases import make_levels, make_record, write_run
from rich.console import Console

from wsolbench.cli.main import main
from wsolbench.errors import UsageError, WsolbenchError
from wsolbench.leaderboard.formats import show, write
from wsolbench.leaderboard.selection import Selection
from wsolbench.leaderboard.view import View, build
from wsolbench.record import Cell, read_record, to_json


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two backbones, two protocols, three methods of different skill, and a baseline."""
    folder = tmp_path_factory.mktemp("results")
    for backbone in ("vit.s0", "vit.s1"):
        for seed in range(3):
            for method, skill in (("sat", 0.62), ("tscam", 0.60), ("cam", 0.2)):
                write_run(folder, method, skill, seed=seed, backbone=backbone)
    for seed in range(3):
        write_run(folder, "sat", 0.4, seed=seed, backbone="vit.s0", protocol="5shot")
    write_run(folder, "center-box", 0.3, backbone="-", training="none")
    return folder


def text(results: Path, view: View | None = None, format: str = "markdown") -> str:
    return show(build(results, view or View()), format) or ""


def frame(results: Path, view: View) -> pd.DataFrame:
    return pd.read_csv(io.StringIO(text(results, view, "csv")))


def headings(markdown: str) -> list[str]:
    return re.findall(r"^## (.*)$", markdown, re.MULTILINE)


# --- selection


def test_each_axis_selects_and_baselines_stay_for_reference(results: Path) -> None:
    shown = text(results, View(Selection(backbones=("vit.s1",))))
    assert headings(shown) == ["badges · vit.s1 · full"]
    assert "center-box (ref)" in shown
    assert headings(text(results, View(Selection(protocols=("5*",))))) == ["badges · vit.s0 · 5shot"]
    assert headings(text(results, View(Selection(backbones=("-",))))) == ["badges · any backbone · full"]
    only = frame(results, View(Selection(methods=("sat", "cam"), protocols=("full",))))
    assert set(only["method"]) == {"sat", "cam"}
    assert headings(text(results, View(Selection(datasets=("badges",))))) == headings(text(results))


def test_metrics_select_columns_by_metric_title_or_pattern(results: Path) -> None:
    for asked, shown in (
        (("GT-known@val",), ["GT-known@val"]),
        (("GT-known", "Top-1 *"), ["Top-1 Cls", "GT-known@val", "Top-1 Loc@val"]),
        (("MaxBoxAcc",), ["MaxBoxAcc†"]),
    ):
        head = text(results, View(Selection(metrics=asked, backbones=("vit.s0",)))).split("| method | seeds | ")[1]
        assert head.split("\n")[0].split(" | ")[: len(shown)] == shown
        assert head.split(" | ")[len(shown)] == "train s"


def test_rows_are_ordered_by_what_is_left_or_asked_for(results: Path) -> None:
    def methods(view: View) -> list[str]:
        lines = text(results, view).splitlines()
        return [found[1] for line in lines if (found := re.match(r"\| ([a-z-]+) \| [\d]", line))]

    selection = Selection(backbones=("vit.s0",), protocols=("full",))
    assert methods(View(selection)) == ["sat", "tscam", "cam"]
    assert methods(View(selection, sort="method")) == ["cam", "sat", "tscam"]
    by_accuracy = (
        frame(results, View(selection)).set_index("method")["Top-1 Cls mean"].drop("center-box", errors="ignore")
    )
    assert methods(View(selection, sort="Top-1 Cls")) == list(
        by_accuracy.sort_values(ascending=False, kind="stable").index
    )
    assert "Rows are ordered by Top-1 Cls." in text(results, View(selection, sort="Top-1 Cls"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--method satt", "unknown method 'satt' among the finished runs, did you mean 'sat'?"),
        ("--dataset badge", "unknown data set 'badge' among the finished runs, did you mean 'badges'?"),
        ("--metric GT-know", "unknown metric 'GT-know' among the finished runs, did you mean 'GT-known'?"),
        ("--backbone vit.s2", "unknown backbone 'vit.s2' among the finished runs, did you mean 'vit.s"),
        ("--protocol ful", "unknown protocol 'ful' among the finished runs, did you mean 'full'?"),
        ("--dataset cubb --reported", "and the published numbers, did you mean 'cub'?"),
        ("--method cam --protocol 5shot", "no finished run in"),
        ("--pivot metod", "unknown pivot 'metod'"),
        ("--pivot backbone --compare", "--pivot and --compare are different tables"),
        ("--pivot backbone --sort method", "--sort does not go with --pivot"),
        ("--contradictions --reported", "--reported does not go with --contradictions"),
        ("--force", "--force is about --compare"),
        ("--sort GT-knwn", "unknown column to sort by 'GT-knwn', did you mean 'GT-known'?"),
        ("--spread sd", "unknown spread 'sd', did you mean 'std'?"),
        ("--compare sat tscamm", "unknown method 'tscamm' among the finished runs, did you mean 'tscam'?"),
        ("--compare sat", "--compare sat: name a second method"),
        ("--compare sat tscam --metric PxAp", "unknown metric 'PxAp'"),
        ("--method ,", "--method ',': expected one or more names"),
    ],
)
def test_wrong_requests_are_one_sentence(
    results: Path, capsys: pytest.CaptureFixture[str], words: str, said: str
) -> None:
    assert main(["leaderboard", str(results), *words.split()]) in (1, 2)
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_a_corrupted_record_is_named_and_the_rest_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path, "cam", 0.3)
    broken = write_run(tmp_path, "sat", 0.5) / "record.json"
    broken.write_text(broken.read_text()[:200])
    assert main(["leaderboard", str(tmp_path), "--format", "markdown"]) == 0
    captured = capsys.readouterr()
    assert str(broken) in captured.err
    assert "| cam | 1 |" in captured.out
    assert "| sat |" not in captured.out


# --- pivots


def test_a_pivot_has_methods_as_rows_and_keeps_marks_inside_its_columns(results: Path) -> None:
    shown = text(results, View(pivot="backbone"))
    assert headings(shown) == ["badges · 5shot", "badges · full"]
    full = shown.split("## badges · full")[1]
    assert "| method | seeds | vit.s0 GT-known@val | vit.s1 GT-known@val |" in full
    [sat] = [line for line in full.splitlines() if line.startswith("| sat |")]
    assert sat.count("**") == 4
    assert "| center-box (ref) | fixed |" in full
    assert "vit: fewer than 4 pretraining seeds of one backbone, listed one by one and not averaged" in full
    assert "mean of" not in full
    by_protocol = text(results, View(Selection(backbones=("vit.s0",)), pivot="protocol"))
    assert "| method | seeds | 5shot GT-known@val | full GT-known@val |" in by_protocol
    assert re.search(r"\| cam \| 3 \| - \| \d", by_protocol)
    numbers = frame(results, View(pivot="backbone"))
    plain = frame(results, View()).set_index(["backbone", "protocol", "method"])["GT-known@val mean"]
    for _, row in numbers[numbers["method"] != "center-box"].iterrows():
        assert row["mean"] == plain[row["backbone"], row["protocol"], row["method"]]


def test_values_of_different_selectors_never_share_a_column_of_a_pivot(tmp_path: Path) -> None:
    for protocol, by in (("full", "val-boxes"), ("reference", "test-oracle")):
        record = make_record(
            "cam", [Cell("GT-known", 0.5, threshold_by=by, oracle=by != "val-boxes")], protocol=protocol
        )
        folder = tmp_path / "runs" / protocol
        folder.mkdir(parents=True)
        (folder / "record.json").write_text(to_json(record))
    shown = text(tmp_path, View(pivot="protocol"))
    assert "| full GT-known@val | reference GT-known†@test-oracle |" in shown


def test_four_backbone_seeds_are_averaged_in_a_column_of_their_own(tmp_path: Path) -> None:
    for number, value in enumerate((0.1, 0.2, 0.3, 0.6)):
        record = make_record("cam", [Cell("GT-known", value, threshold_by="val-boxes")], backbone=f"vit.s{number}")
        folder = tmp_path / "runs" / str(number)
        folder.mkdir(parents=True)
        (folder / "record.json").write_text(to_json(record))
    shown = text(tmp_path, View(pivot="backbone"))
    assert "vit, mean of 4 backbone seeds GT-known@val |" in shown
    assert "| 30.0 ± 21.6 |" in shown
    assert "listed one by one" not in shown


# --- comparisons


def test_named_methods_are_compared_in_each_group_they_share(results: Path) -> None:
    found = frame(results, View(compare=("sat", "cam"), spread="t"))
    assert list(found["backbone"]) == ["vit.s0", "vit.s1"]
    assert list(found["seeds"]) == ["0 1 2"] * 2
    assert set(found["metric"]) == {"GT-known@val"}
    assert found["significant"].all()
    assert (found["low"] > 0).all()
    board = frame(results, View()).set_index(["backbone", "protocol", "method"])["GT-known@val mean"]
    for _, row in found.iterrows():
        apart = board[row["backbone"], "full", "sat"] - board[row["backbone"], "full", "cam"]
        assert row["difference"] == pytest.approx(apart)


def test_ties_are_marked_inside_a_group_and_p_values_corrected_for_its_pairs(results: Path) -> None:
    view = View(Selection(backbones=("vit.s0",), protocols=("full",)), compare=())
    shown, found = text(results, view), frame(results, view)
    assert set(zip(found["first"], found["second"], strict=True)) == {
        ("sat", "tscam"),
        ("sat", "cam"),
        ("tscam", "cam"),
    }
    assert (found["p_holm"] >= found["p"]).all()
    assert found["p_holm"].min() == pytest.approx(3 * found["p"].min())
    [tscam] = [line for line in shown.splitlines() if line.startswith("| tscam | 3 |")]
    [cam] = [line for line in shown.splitlines() if line.startswith("| cam | 3 |")]
    assert "≈" in tscam
    assert "≈" not in cam
    assert "≈ not told from the best one" in shown
    assert "no test of significance" not in shown
    assert "3 pairs tested." in shown


def test_a_baseline_is_compared_when_it_is_named_with_every_seed_of_the_other(results: Path) -> None:
    found = frame(results, View(Selection(backbones=("vit.s0",)), compare=("sat", "center-box")))
    assert list(found["seeds"]) == ["0 1 2"]
    assert "center-box" not in set(frame(results, View(compare=()))["second"])


def test_oracle_cells_and_v2_can_be_compared_and_pixel_metrics_say_why_not(results: Path) -> None:
    selection = Selection(metrics=("MaxBoxAcc", "MaxBoxAccV2", "Top-1 Cls"), backbones=("vit.s0",), protocols=("full",))
    found = frame(results, View(selection, compare=("sat", "cam")))
    assert list(found["metric"]) == ["Top-1 Cls", "MaxBoxAcc", "MaxBoxAccV2"]
    assert found.set_index("metric").loc["MaxBoxAccV2", "significant"]
    with pytest.raises(WsolbenchError, match="cannot be compared in pairs"):
        build(results, View(Selection(metrics=("BoxAcc area",)), compare=("sat", "cam")))


def test_thresholds_chosen_among_a_list_on_test_are_chosen_among_it_again(tmp_path: Path) -> None:
    by, candidates = "test-oracle:0.2/0.3/0.55", (0.2, 0.3, 0.55)
    values = {}
    for method, skill in (("sat", 0.6), ("cam", 0.3)):
        folder, levels = write_run(tmp_path, method, skill), make_levels(skill, 0)
        sums = {at: levels.hits(at).sum() + (levels.hits(at) & levels.in_top(1)).sum() for at in candidates}
        at = max(candidates, key=lambda each: sums[each])
        values[method] = levels.hits(at).mean()
        cell = Cell("GT-known", float(values[method]), threshold=at, threshold_by=by, oracle=True)
        record = read_record(folder / "record.json")
        (folder / "record.json").write_text(to_json(replace(record, cells=[cell])))
    [found] = frame(tmp_path, View(compare=("sat", "cam"))).to_dict("records")
    assert found["metric"] == f"GT-known@{by}"
    assert found["difference"] == pytest.approx(values["sat"] - values["cam"])


def test_one_seed_is_said_to_know_of_images_only(tmp_path: Path) -> None:
    for method, skill in (("sat", 0.6), ("cam", 0.2)):
        write_run(tmp_path, method, skill)
    assert "One seed: the test knows of the images only" in text(tmp_path, View(compare=("sat", "cam")))


def test_seeds_that_only_one_method_ran_are_left_out_and_none_in_common_is_said(tmp_path: Path) -> None:
    for method, skill, seeds in (("sat", 0.6, (0, 1, 2)), ("cam", 0.2, (1, 2, 3)), ("tscam", 0.4, (7, 8))):
        for seed in seeds:
            write_run(tmp_path, method, skill, seed=seed)
    found = frame(tmp_path, View(compare=())).set_index(["first", "second"])
    assert found.loc[("sat", "cam"), "seeds"] == "1 2"
    assert found.loc[("sat", "tscam"), "problem"] == "no seed in common"
    assert "not tested (no seed in common)" in text(tmp_path, View(compare=()))


def test_runs_on_other_images_cannot_be_paired(tmp_path: Path) -> None:
    write_run(tmp_path, "sat", 0.6)
    write_run(tmp_path, "cam", 0.2, prefix="other")
    with pytest.raises(WsolbenchError, match=r"scored on different images \(120 and 120, 0 in common\)"):
        build(tmp_path, View(compare=("sat", "cam")))


def test_outcomes_that_do_not_belong_to_their_record_are_noticed(tmp_path: Path) -> None:
    good, other = write_run(tmp_path, "sat", 0.6), write_run(tmp_path, "cam", 0.2)
    (good / "levels.npz").write_bytes((other / "levels.npz").read_bytes())
    with pytest.raises(WsolbenchError, match=r"in its record.json and .* in its levels.npz"):
        build(tmp_path, View(compare=("sat", "cam")))
    (good / "levels.npz").write_bytes(b"PK")
    with pytest.raises(WsolbenchError, match=r"run sat \(vit, full, seed 0, .*its outcomes per image cannot be read"):
        build(tmp_path, View(compare=("sat", "cam")))
    (good / "levels.npz").unlink()
    with pytest.raises(WsolbenchError, match="its outcomes per image cannot be read"):
        build(tmp_path, View(compare=("sat", "cam")))


# --- what is not comparable


def test_different_data_is_refused_unless_forced_and_then_marked(tmp_path: Path) -> None:
    write_run(tmp_path, "sat", 0.6, fingerprint="f00d")
    write_run(tmp_path, "cam", 0.2, fingerprint="beef")
    with pytest.raises(WsolbenchError, match=r"run on different data \(.*f00d; .*beef\).*--force"):
        build(tmp_path, View(compare=("sat", "cam")))
    forced = text(tmp_path, View(compare=("sat", "cam"), force=True))
    assert headings(forced)[0] == "badges (forced: different data) · vit · full"
    assert "forced: runs on different data, nothing is comparable (" in forced
    assert "sat: revision 1, fingerprint f00d" in forced
    assert "**" not in forced.replace("**Bold**", "")
    assert len(frame(tmp_path, View(compare=("sat", "cam"), force=True))) == 1
    assert len(headings(text(tmp_path))) == 2  # without a comparison they stand in tables of their own


def test_forcing_never_averages_seeds_of_different_data(tmp_path: Path) -> None:
    write_run(tmp_path, "sat", 0.6, seed=0, fingerprint="f00d")
    write_run(tmp_path, "sat", 0.3, seed=1, fingerprint="beef")
    write_run(tmp_path, "cam", 0.2, seed=0, fingerprint="f00d")
    found = frame(tmp_path, View(compare=("sat", "cam"), force=True))
    assert {"sat (data=f00d)", "sat (data=beef)"} <= {*found["first"], *found["second"]}


def test_methods_that_share_no_group_are_told_apart(tmp_path: Path) -> None:
    write_run(tmp_path, "sat", 0.6, backbone="vit")
    write_run(tmp_path, "cam", 0.2, backbone="cnn")
    for force in (False, True):
        with pytest.raises(WsolbenchError, match="no two of these methods share data set, backbone and protocol"):
            build(tmp_path, View(compare=("sat", "cam"), force=force))


def test_different_conventions_are_refused_unless_forced_and_then_marked(tmp_path: Path) -> None:
    for method, convention in (("mine", "sat"), ("theirs", "bas")):
        cell = Cell("GT-known", 0.5, threshold=0.4, threshold_by="fixed:0.4", convention=convention)
        folder = tmp_path / "runs" / method
        folder.mkdir(parents=True)
        (folder / "record.json").write_text(to_json(make_record(method, [cell])))
    view = View(Selection(metrics=("GT-known",)), compare=("mine", "theirs"))
    with pytest.raises(WsolbenchError, match=r"different conventions are not comparable; --force"):
        build(tmp_path, view)
    forced = text(tmp_path, View(view.selection, compare=view.compare, force=True))
    assert "not tested (different conventions, forced)" in forced
    assert "| not tested |" in forced


# --- published numbers


def test_published_numbers_need_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert (
        main(["leaderboard", "--reported", "--dataset", "cub", "--backbone", "deit_small*", "--format", "markdown"])
        == 0
    )
    shown = capsys.readouterr().out
    assert headings(shown) == ["CUB-200-2011 · DeiT-S · as published"]
    assert re.search(r"\| SAT \| ICCV 2023 \| \[\d+\] \| 98\.45 \| 80\.96 \| 94\.13 \| - \|", shown)
    assert re.search(r"\[\d+\] SAT paper \(arXiv 2303\.10438\)", shown)
    assert "**" not in shown
    assert main(["leaderboard", "--contradictions", "--method", "sat", "--format", "csv"]) == 0
    found = pd.read_csv(io.StringIO(capsys.readouterr().out))
    assert set(found["method"]) == {"SAT"}
    assert main(["leaderboard"]) == 2
    assert "'results' is no folder of results" in capsys.readouterr().err


def test_published_numbers_stand_beside_measured_ones_and_change_none(tmp_path: Path) -> None:
    backbone = "deit_small_patch16_224"
    for seed in range(2):
        write_run(tmp_path, "sat", 0.6, seed=seed, dataset="cub", backbone=backbone)
        write_run(tmp_path, "cam", 0.3, seed=seed, dataset="cub", backbone=backbone)
    view = View(Selection(datasets=("cub",), backbones=(backbone,)), reported=True)
    alone, beside = text(tmp_path, View(view.selection)), text(tmp_path, view)
    assert headings(beside) == ["cub · deit_small_patch16_224 · full", "CUB-200-2011 · DeiT-S · as published"]
    for line in (line for line in alone.splitlines() if line.startswith("| ")):
        [longer] = [each for each in beside.splitlines() if each.startswith(line.removesuffix("|"))]
        if line.startswith("| sat"):
            assert "| 98.19 / 98.45 [" in longer
        if line.startswith("| cam"):
            assert set(longer.removeprefix(line.removesuffix("|")).split()) == {"|", "-"}
    table = frame(tmp_path, view)
    plain = frame(tmp_path, View(view.selection))
    measured = table[table["protocol"] == "full"]
    pd.testing.assert_frame_equal(measured[plain.columns].reset_index(drop=True), plain, check_dtype=False)
    assert "0.9819 0.9845" in set(measured["GT-known Loc reported"])
    published = table[table["protocol"] == "as published"]
    assert published["source"].notna().all()
    assert published["GT-known@val mean"].isna().all()


# --- formats


HOSTILE = "<b>&_%$#{x}~^\\"


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    for number, method in enumerate((HOSTILE, "[bracket", "plain")):
        folder = tmp_path / "runs" / str(number)
        folder.mkdir(parents=True)
        cells = [Cell("GT-known", 0.5 + number / 10, threshold_by="val-boxes")]
        (folder / "record.json").write_text(to_json(make_record(method, cells)))
    return tmp_path


def test_latex_is_escaped_best_is_bold_and_second_underlined(hostile: Path) -> None:
    shown = text(hostile, format="latex")
    assert (
        r"\textless{}b\textgreater{}\&\_\%\$\#\{x\}\textasciitilde{}\textasciicircum{}\textbackslash{} & 1 & 50.0"
        in shown
    )
    assert "plain & 1 & \\textbf{70.0}" in shown
    assert "{}[bracket & 1 & \\underline{60.0}" in shown  # a bracket after \\ would be its argument
    rows = shown.split("\\midrule")[1].split("\\bottomrule")[0]
    heads = shown.split("\\toprule")[1].split("\\midrule")[0]
    assert {len(re.split(r"(?<!\\)&", row)) for row in (*rows.strip().splitlines(), heads)} == {5}
    assert shown.count("{") == shown.count("}")


def test_latex_of_many_tables_stays_below_the_floats_latex_can_hold(results: Path) -> None:
    many = build(results, View(reported=True))
    parts = (show(many, "latex") or "").split("\\clearpage")
    assert len(parts) > 2
    assert max(part.count("\\begin{table}") for part in parts) <= 15


def test_html_is_one_page_and_escaped(hostile: Path) -> None:
    shown = text(hostile, format="html")
    assert "&lt;b&gt;&amp;_%$#{x}~^\\" in shown
    assert "<b>&" not in shown
    assert "<b>70.0</b>" in shown
    assert "<u>60.0</u>" in shown
    assert not re.search(r"(?:src|href)=|https?://", shown)
    from html.parser import HTMLParser

    open_tags: list[str] = []

    class Balanced(HTMLParser):
        def handle_starttag(self, tag: str, attrs: object) -> None:
            if tag not in ("meta",):
                open_tags.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert open_tags.pop() == tag

    Balanced().feed(shown)
    assert not open_tags


@pytest.mark.parametrize("format", ["markdown", "latex", "html", "csv"])
@pytest.mark.parametrize(
    "view", [View(), View(pivot="backbone"), View(compare=()), View(reported=True), View(contradictions=True)]
)
def test_every_view_has_every_format(results: Path, format: str, view: View) -> None:
    assert len(text(results, view, format)) > 200


@pytest.mark.parametrize("width", [80, 120, 200])
@pytest.mark.parametrize(
    "view",
    [
        View(pivot="backbone"),
        View(compare=()),
        View(Selection(datasets=("cub", "badges"), methods=("sat", "cam")), reported=True),
        View(Selection(datasets=("cub",)), contradictions=True),
    ],
)
def test_every_view_fits_a_terminal(results: Path, width: int, view: View) -> None:
    console = Console(file=io.StringIO(), width=width)
    assert show(build(results, view), "table", console) is None
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert "…" not in console.file.getvalue()


def test_the_interval_over_seeds_is_students(results: Path) -> None:
    from scipy import stats

    selection = Selection(methods=("sat",), backbones=("vit.s0",), protocols=("full",), metrics=("GT-known",))
    [row] = frame(results, View(selection)).to_dict("records")
    low, high = stats.t.interval(0.95, 2, row["GT-known@val mean"], row["GT-known@val std"] / 3**0.5)
    shown = text(results, View(selection, spread="t"))
    assert f"± {100 * (high - low) / 2:.1f} |" in shown
    assert "± is half of the 95 % t-interval over seeds." in shown
    assert row["GT-known@val half_width"] == pytest.approx((high - low) / 2)


def test_what_is_written_says_the_command_that_shows_it_again(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["leaderboard", str(results), "--pivot", "backbone", "--metric", "GT-known@val", "--format", "markdown"]
    assert main([*words, "--write", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    written = (tmp_path / "leaderboard-by-backbone.md").read_text()
    assert f"wsolbench leaderboard {results} --metric GT-known@val --pivot backbone\n" in written
    assert shown.split("\n\n", 1)[1] in written
    assert (tmp_path / "leaderboard-by-backbone.csv").exists()
    with pytest.raises(WsolbenchError, match="could not be written"):
        write(build(results, View()), tmp_path / "leaderboard-by-backbone.md", "x")


def test_an_unknown_format_is_refused(results: Path) -> None:
    with pytest.raises(UsageError, match="unknown format 'latx', did you mean 'latex'"):
        text(results, format="latx")
