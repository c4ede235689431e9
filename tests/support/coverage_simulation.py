"""Do the intervals cover, do the tests keep their level? Simulated with the project's own code, where the truth is known.

Intervals: a sample of n images is drawn from a population whose value is known, the 95 % bootstrap interval of each kind of
cell is computed as `Levels.bootstrap` does, and it is counted how often it holds the population's value. Each image is
correct in a window of thresholds of its own; in the "wide" population the windows are wide, so that many thresholds are
nearly best and the maximum over them is most biased. The intervals of an oracle's cells are bias-corrected; beside them stand
plain percentile intervals.

Tests: two methods that are equally good in the population of seeds and images, S seeds each on the same n images; counted
is how often their difference is called significant at the 5 % level, by `wsolbench.leaderboard.paired.paired_test`, by a percentile
bootstrap of seeds and images, and by looking at the images only.

    python tests/support/coverage_simulation.py --out results/coverage.csv          (minutes)
"""
# n images, T thresholds, I IoU levels, R resamples, S seeds, P images of a population

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from wsolbench.boxes.maps import threshold_grid
from wsolbench.evaluation.cells import RESAMPLES
from wsolbench.evaluation.levels import Levels
from wsolbench.evaluation.resampling import Statistic, best_of, interval_of, mean_of, read_at_best
from wsolbench.leaderboard.paired import LEVEL, paired_test

Bools = npt.NDArray[np.bool_]
GRID = threshold_grid(0.01)
POPULATION = 200_000
FIXED = 30  # a threshold near the best one, chosen before any image was seen


@dataclass(frozen=True)
class Population:
    """Image i is correct at threshold t and IoU level k where |t - centre_i| < share_k * width_i."""

    name: str
    spread: float  # of the centres around 0.3
    width: float

    def draw(self, n: int, rng: np.random.Generator) -> tuple[Bools, Bools]:
        """Hits [I, n, T] at IoU .3, .5, .7, and whether the class is right [n]; places that are hit are easier classes."""
        centre_n = rng.normal(0.3, self.spread, n)
        width_n = np.abs(rng.normal(self.width, self.width / 2, n))
        away_nT = np.abs(GRID - centre_n[:, None])
        hits_InT = np.stack([away_nT < share * width_n[:, None] for share in (1.6, 1.0, 0.5)])
        return hits_InT, rng.random(n) < 0.6 + 0.2 * (width_n > self.width)


POPULATIONS = (Population("peaked", 0.10, 0.12), Population("wide", 0.10, 0.30))

Cell = Callable[[Bools, Bools], Statistic]
CELLS: dict[str, Cell] = {
    "GT-known@val": lambda hits_InT, _: mean_of(hits_InT[1][:, FIXED]),
    "Top-1 Loc@val": lambda hits_InT, right_n: mean_of(hits_InT[1][:, FIXED] & right_n),
    "GT-known@test-oracle, MaxBoxAcc": lambda hits_InT, _: best_of(hits_InT[1]),
    "Top-1 Loc@test-oracle": lambda hits_InT, right_n: read_at_best([hits_InT[1]], hits_InT[1] & right_n[:, None]),
    "MaxBoxAccV2": lambda hits_InT, _: best_of(*hits_InT),
}


@cache
def draws(n: int) -> npt.NDArray[np.float32]:
    """How often each of n images is drawn in each resample [R, n]: the draws of `Levels.resample` themselves."""
    column = np.zeros(n, np.int32)
    levels = Levels(
        np.arange(n).astype(np.str_), column, column, column, column.astype(np.uint8), column.astype(np.uint8)
    )
    taken: list[npt.NDArray[np.float32]] = []

    def take(drawn_Rn: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        taken.append(drawn_Rn)
        return np.zeros(len(drawn_Rn))

    levels.resample(take, RESAMPLES)
    return np.concatenate(taken)


def interval_coverage(population: Population, n: int, trials: int, seed: int = 0) -> Iterator[dict[str, object]]:
    """Per kind of cell and interval: share that hold the truth, that lie above or below it, and the bias of the value."""
    rng = np.random.default_rng(seed)
    ones = np.ones((1, n), np.float32)
    parts = [population.draw(POPULATION // 10, rng) for _ in range(10)]
    sums = {name: cell(*_joined(parts)) for name, cell in CELLS.items()}
    whole = np.ones((1, POPULATION), np.float32)
    truth = {name: float(statistic(whole)[0]) for name, statistic in sums.items()}
    found: dict[tuple[str, str], list[tuple[float, float, float]]] = {}
    for _ in range(trials):
        hits_InT, right_n = population.draw(n, rng)
        for name, cell in CELLS.items():
            statistic = cell(hits_InT, right_n)
            value, values_R = float(statistic(ones)[0]), statistic(draws(n))
            maximum = None if "@val" in name else value
            found.setdefault(("interval", name), []).append((value, *interval_of(values_R, maximum)))
            if maximum is not None:
                found.setdefault(("percentile interval", name), []).append((value, *interval_of(values_R)))
    for (check, name), rows in found.items():
        estimates, low, high = np.array(rows).T
        covered = (low <= truth[name]) & (truth[name] <= high)
        yield {
            "check": check,
            "case": population.name,
            "what": name,
            "images": n,
            "seeds": 1,
            "trials": trials,
            "share": float(covered.mean()),
            "above": float((low > truth[name]).mean()),
            "below": float((high < truth[name]).mean()),
            "truth": truth[name],
            "bias": float(estimates.mean() - truth[name]),
        }


def _joined(parts: list[tuple[Bools, Bools]]) -> tuple[Bools, Bools]:
    return np.concatenate([hits for hits, _ in parts], axis=1), np.concatenate([right for _, right in parts])


def false_alarms(points: float, seeds: int, n: int, trials: int, seed: int = 0) -> Iterator[dict[str, object]]:
    """How often methods that are equally good are told apart; `points`: accuracy's standard deviation over seeds."""
    rng = np.random.default_rng(seed)
    drawn_Rn = draws(n)
    effect = points / 100 / 0.2821  # of a probit at accuracy .5 with unit image effects: d accuracy / d effect
    alarms = dict.fromkeys(("paired_test", "bootstrap of seeds and images", "images only"), 0)
    for _ in range(trials):
        image_n = rng.normal(0, 1, n)  # how hard the image is, for both methods
        d_Sn = np.zeros((seeds, n))
        for sign in (1, -1):
            own_n = rng.normal(0, 0.6, n)  # what the method makes of the image
            trained_S = rng.normal(0, effect, seeds)
            noise_Sn = rng.normal(0, 0.8, (seeds, n))
            d_Sn += sign * (image_n + own_n + trained_S[:, None] + noise_Sn > 0)
        resampled_SR = d_Sn @ drawn_Rn.T / n
        alarms["paired_test"] += paired_test(d_Sn.mean(1), resampled_SR).p < LEVEL
        picked_RS = rng.integers(seeds, size=(RESAMPLES, seeds))
        both_R = resampled_SR[picked_RS, np.arange(RESAMPLES)[:, None]].mean(1)
        for name, values_R in (("bootstrap of seeds and images", both_R), ("images only", resampled_SR.mean(0))):
            low, high = interval_of(values_R)
            alarms[name] += not low <= 0 <= high
    for name, count in alarms.items():
        yield {
            "check": "test",
            "case": f"sd {points:g} points over seeds",
            "what": name,
            "images": n,
            "seeds": seeds,
            "trials": trials,
            "share": count / trials,
        }


def main() -> int:
    """Run all simulations and write the table."""
    parser = argparse.ArgumentParser(description="Coverage of intervals, level of tests, by simulation.")
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    rows: list[dict[str, object]] = []
    for population in POPULATIONS:
        for n in (100, 600, 2000):
            rows += interval_coverage(population, n, arguments.trials)
            print(population.name, n, file=sys.stderr)
    for seeds in (1, 3, 5, 10):
        for points in (0.0, 1.0, 3.0, 8.0):
            rows += false_alarms(points, seeds, 600, arguments.trials)
        print("seeds", seeds, file=sys.stderr)
    pd.DataFrame(rows).to_csv(arguments.out, index=False, float_format="%.4f", lineterminator="\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
