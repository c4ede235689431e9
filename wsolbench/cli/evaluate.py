"""`wsolbench evaluate`: maps made by any code, scored into a record."""

from __future__ import annotations

import argparse
from pathlib import Path

from wsolbench.cli.parser import MAX_TIME, Verb, print_text
from wsolbench.cli.report import invitation
from wsolbench.system.preflight import check_writable


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Declare what the verb takes."""
    add = parser.add_argument
    add("--maps", metavar="PATH", required=True, help="folder of <id>.npy files, or a .npz with ids as keys")
    add("--dataset", metavar="NAME", required=True, help="see 'wsolbench list datasets'")
    add("--root", metavar="PATH", help="folder in which the data set lies")
    add("--split", metavar="NAME", default="test", help="whose maps they are: test or val (default: test)")
    add("--logits", metavar="FILE", help="class scores, .npy [images, classes] or .npz, for Top-1 and Top-5")
    add(
        "--map-kind",
        metavar="KIND",
        default="score",
        help="score: float64 in [0, 1] at the evaluation resolution; raw: any size and type (default: score)",
    )
    add(
        "--convention",
        metavar="NAME",
        default="reference",
        help="also print what a paper's own evaluator would (sat, ...)",
    )
    add(
        "--geometry",
        metavar="NAME",
        default="resize",
        help="what the maps show: resize or centre-crop (default: resize)",
    )
    add(
        "--interval",
        metavar="X",
        type=float,
        default=0.01,
        help="step between thresholds, in columns of its own (default: 0.01)",
    )
    add("--contours", metavar="KIND", default="single", help="single or multi, in columns of its own (default: single)")
    add("--name", metavar="METHOD", help="in the leaderboard (default: the name of the folder or file)")
    add("--backbone", metavar="NAME", default="-", help="what the maps were made with, for the leaderboard")
    add("--val-maps", metavar="PATH", help="maps of val, whose boxes then choose the threshold")
    add("--out", metavar="DIR", default="results", help="where runs are kept (default: results)")
    add("--rerun", action="store_true", help="score again what is already done")
    add("--max-time", metavar="TIME", help=MAX_TIME)


def evaluate(arguments: argparse.Namespace, rest: list[str]) -> int:
    """Score the maps and print their row."""
    check_writable(Path(arguments.out))
    from wsolbench.external.evaluate import evaluate_maps
    from wsolbench.external.job import Request
    from wsolbench.leaderboard.view import render

    same = ("maps", "root", "split", "logits", "map_kind", "convention", "geometry", "interval", "contours")
    request = Request(
        dataset={"name": arguments.dataset},
        **{name: getattr(arguments, name) for name in (*same, "name", "backbone", "val_maps", "out")},
    )
    outcome = evaluate_maps(request, rerun=arguments.rerun)
    print(
        f"{request.method} on {arguments.dataset}/{arguments.split}: {outcome.status}{outcome.reason and f' ({outcome.reason})'}"
    )
    print_text(render([outcome.record], "table"))
    print(invitation(arguments.out, [outcome.directory]))
    return 0


VERB = Verb(
    "evaluate",
    "Score maps made by any code: <id>.npy files in a folder, or one .npz. See docs/evaluate.md.",
    "wsolbench evaluate --maps my-maps --dataset badges --map-kind raw --name mine",
    add_flags,
    evaluate,
    keeps=True,
)
