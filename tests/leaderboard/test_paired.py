"""The paired test over seeds and images: against an analysis of variance, by hand, and that it keeps its level."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from board_cases import make_levels
from coverage_simulation import POPULATIONS, draws, false_alarms, interval_coverage

from wsolbench.config.selectors import parse_threshold
from wsolbench.data.annotations import AnnotationReader
from wsolbench.errors import WsolbenchError
from wsolbench.evaluation.cells import RESAMPLES, compute_cells
from wsolbench.evaluation.resampling import interval_of
from wsolbench.evaluation.threshold import Threshold
from wsolbench.leaderboard.paired import holm, paired_test, statistic_of, value_of
from wsolbench.protocols.select import choose_threshold
from wsolbench.record import Cell


def test_variance_and_degrees_of_freedom_are_those_of_the_analysis_of_variance() -> None:
    """For means the test is the two-way random-effects one; its mean squares come from statsmodels."""
    from scipy import stats
    from statsmodels.formula.api import ols
    from statsmodels.stats.anova import anova_lm

    rng = np.random.default_rng(3)
    seeds, images = 4, 60
    d_Sn = 0.05 + rng.normal(0, 0.1, (seeds, 1)) + rng.normal(0, 0.3, (1, images)) + rng.normal(0, 0.4, (seeds, images))
    place = np.indices(d_Sn.shape)
    frame = pd.DataFrame({"d": d_Sn.ravel(), "seed": place[0].ravel(), "image": place[1].ravel()})
    table = anova_lm(ols("d ~ C(seed) + C(image)", frame).fit())
    by_seed, by_image, residual = table["mean_sq"]
    variance = (by_seed + by_image - residual) / (seeds * images)
    df = (seeds - 1) * ((by_seed + by_image - residual) / by_seed) ** 2
    expected = 2 * stats.t.sf(abs(d_Sn.mean()) / np.sqrt(variance), df)

    drawn_Rn = rng.multinomial(images, np.full(images, 1 / images), size=40_000)
    found = paired_test(d_Sn.mean(1), d_Sn @ drawn_Rn.T / images)
    assert found.difference == pytest.approx(d_Sn.mean())
    # the covariance is estimated from resamples: 40,000 of them leave a per cent, and n in place of n - 1 another
    assert found.df == pytest.approx(df, rel=0.1)
    assert (found.high - found.low) / 2 == pytest.approx(stats.t.ppf(0.975, df) * np.sqrt(variance), rel=0.04)
    assert found.p == pytest.approx(expected, rel=0.1)


def test_what_only_images_vary_is_a_normal_test_over_images() -> None:
    rng = np.random.default_rng(0)
    d_n = rng.normal(0.1, 1, 400)
    drawn_Rn = rng.multinomial(400, np.full(400, 1 / 400), size=20_000)
    found = paired_test([d_n.mean()], (d_n @ drawn_Rn.T / 400)[None])
    error = d_n.std() / 20
    assert found.df == np.inf
    assert (found.low, found.high) == pytest.approx((d_n.mean() - 1.96 * error, d_n.mean() + 1.96 * error), rel=0.05)


def test_equal_methods_are_equal_and_constant_differences_are_not() -> None:
    assert paired_test([0, 0, 0], np.zeros((3, 100))).p == 1
    assert paired_test([0.1, 0.1, 0.1], np.full((3, 100), 0.1)).p == 0
    with pytest.raises(ValueError, match="expected resamples of 3 seeds"):
        paired_test([0, 0, 0], np.zeros((2, 100)))


def test_seeds_that_differ_make_the_test_careful() -> None:
    """The same mean difference, certain over images: three seeds that disagree about it do not prove it."""
    images = 0.001 * np.random.default_rng(0).standard_normal((3, 1000))
    assert paired_test([0.12, 0.11, 0.13], images).p < 0.01
    assert paired_test([0.00, 0.32, 0.04], images).p > 0.2


def test_holm_corrects_in_any_order_and_for_none() -> None:
    assert holm([]) == []
    assert holm([0.03, 0.01, 0.04]) == pytest.approx([0.06, 0.03, 0.06])


LIST = (0.2, 0.3, 0.55)


@pytest.mark.parametrize("by", ["val-boxes", "otsu", "fixed:0.35", "test-oracle", "test-oracle:0.2/0.3/0.55"])
def test_every_cell_is_compared_by_the_statistic_its_interval_was_made_with(by: str) -> None:
    levels = make_levels(0.5, 1)
    selector = parse_threshold(by)
    outcomes = {"val": levels, "test": levels}
    threshold = choose_threshold(AnnotationReader(), selector, outcomes, selector.settings("badges", "vit", 0.01))
    candidates = LIST if ":0.2/" in by else ()
    assert threshold.candidates == candidates
    cells = compute_cells(levels, threshold, AnnotationReader(), 0.01)
    compared = [cell for cell in cells if not cell.metric.startswith("BoxAcc")]
    assert len(compared) == 10
    for cell in compared:
        statistic = statistic_of(levels, cell, 0.01, candidates)
        assert value_of(statistic, len(levels)) == pytest.approx(cell.value, abs=1e-12), cell.metric
        maximum = cell.value if cell.oracle else None
        interval = interval_of(levels.resample(statistic, RESAMPLES), maximum)
        assert interval == pytest.approx((cell.low, cell.high)), cell.metric


def test_otsu_cells_are_read_at_each_images_own_level() -> None:
    levels = make_levels(0.5, 1)
    statistic = statistic_of(levels, Cell("GT-known", 0, threshold_by="otsu"), 0.01)
    assert value_of(statistic, len(levels)) == levels.hits_otsu().mean()
    top = statistic_of(levels, Cell("Top-1 Loc", 0, threshold_by="otsu"), 0.01)
    assert value_of(top, len(levels)) == (levels.hits_otsu() & (levels.ranks == 0)).mean()


@pytest.mark.parametrize(
    "cell", [Cell("PxAP", 0.5), Cell("GT-known", 0.5, threshold=0.4, threshold_by="fixed:0.4", convention="sat")]
)
def test_what_has_no_outcome_per_image_is_refused(cell: Cell) -> None:
    with pytest.raises(WsolbenchError, match=r"cannot be compared in pairs: .*another --metric"):
        statistic_of(make_levels(0.5, 1), cell, 0.01)


# --- by simulation; results/coverage.csv has the long version


def test_draws_are_those_of_levels() -> None:
    levels = make_levels(0.5, 1)
    hits_n = levels.hits(0.35)
    low, high = interval_of(draws(len(levels)) @ hits_n / len(levels))
    cell = next(
        c
        for c in compute_cells(levels, Threshold(0.35, "val-boxes", False), AnnotationReader(), 0.01)
        if c.metric == "GT-known"
    )
    assert (low, high) == pytest.approx((cell.low, cell.high))


def test_intervals_at_a_threshold_chosen_elsewhere_cover_and_oracles_are_too_high() -> None:
    known = list(interval_coverage(POPULATIONS[0], 300, 150))
    rows, plain = (
        {row["what"]: row for row in known if row["check"] == check} for check in ("interval", "percentile interval")
    )
    for name in ("GT-known@val", "Top-1 Loc@val"):
        assert 0.89 < rows[name]["share"] <= 1  # 150 trials: a standard error of 1.8 points
        assert abs(rows[name]["bias"]) < 0.01
    oracle = rows["GT-known@test-oracle, MaxBoxAcc"]
    assert 0.001 < oracle["bias"] < 0.03
    assert plain["MaxBoxAccV2"]["above"] > 5 * plain["MaxBoxAccV2"]["below"]
    assert rows["MaxBoxAccV2"]["share"] > plain["MaxBoxAccV2"]["share"] + 0.03


def test_the_paired_test_keeps_its_level_where_looking_at_images_only_does_not() -> None:
    alarms = {row["what"]: row["share"] for row in false_alarms(8, 3, 200, 200)}
    assert alarms["paired_test"] < 0.1
    assert alarms["images only"] > 0.3
    assert alarms["paired_test"] < alarms["bootstrap of seeds and images"]
