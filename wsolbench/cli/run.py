"""`wsolbench run`: which runs are asked for, what is refused before any starts, and what is told when they are done."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from wsolbench import distributed
from wsolbench.cli.parser import MAX_TIME, Verb, print_text
from wsolbench.cli.report import invitation
from wsolbench.config.overrides import integers_in, names_in
from wsolbench.errors import UsageError
from wsolbench.launch import options as launch_options
from wsolbench.runs.track import check_tracker
from wsolbench.system.interrupt import request_of
from wsolbench.system.preflight import check_device, check_writable

if TYPE_CHECKING:
    from wsolbench.config.schema import RunConfig
    from wsolbench.runs.engine import Outcome


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Declare what the verb takes."""
    add = parser.add_argument
    add("--methods", metavar="A,B", help="names, see 'wsolbench list methods'")
    add("--dataset", metavar="NAME", help="see 'wsolbench list datasets' (default: badges)")
    add("--root", metavar="PATH", help="folder in which the data set lies")
    add("--backbone", metavar="NAME", help="timm or embedded name(s) (default: the recipe's)")
    add("--protocol", metavar="NAME", help="preset, <k>shot or <k>shot+preset, or several (default: full)")
    add("--seeds", metavar="0,1,2", help="default: 0")
    add("--device", metavar="NAME", help="auto, cpu, cuda, cuda:1, mps (default: auto)")
    add("--out", metavar="DIR", help="where runs are kept (default: results)")
    add(
        "--search",
        metavar="N",
        type=int,
        help="trials of hyper-parameter search of each method (default: none, untuned)",
    )
    add("--search-by", metavar="NAME", help="who chooses among them (default: the protocol's, else val-boxes)")
    add("--track", metavar="NAME", help="tensorboard or wandb: watch the runs (default: nowhere)")
    add("--config", metavar="FILE", help="repeat the run that wrote this config.yaml")
    add("--rerun", action="store_true", help="run again what is already done")
    add("--max-time", metavar="TIME", help=MAX_TIME)


def run(arguments: argparse.Namespace, overrides: list[str]) -> int:
    """Carry the runs out, in this process or together with those that torchrun started."""
    if distributed.processes() == 1:
        return _run(arguments, overrides)
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # a lost process is told in our words; read when torch loads
    from wsolbench.launch.helpers import together

    return together(partial(_run, arguments, overrides))


def _run(arguments: argparse.Namespace, overrides: list[str]) -> int:
    launcher, overrides = launch_options.take(overrides)
    launch_options.check(launcher)
    configs = configs_of(arguments, overrides)
    refuse_early(configs, launcher)

    from wsolbench.launch.start import run_by

    outcomes = run_by(launcher, configs, rerun=arguments.rerun)
    tell(outcomes, matrix=any(config.protocol.matrix for config in configs))
    if getattr(launcher, "wait", False) and _with_status(outcomes, "submitted"):  # the waiting was ended, not the jobs
        return request_of(KeyboardInterrupt()).status
    return 1 if _with_status(outcomes, "failed") else 0


def configs_of(arguments: argparse.Namespace, overrides: list[str]) -> list[RunConfig]:
    """The runs that flags and `key=value` ask for, or the one that `--config` repeats."""
    from wsolbench.config.compose import expand
    from wsolbench.config.saved import repeat

    same = {name: getattr(arguments, name) for name in ("device", "root", "out", "track")}
    if arguments.config is not None:
        for flag in ("methods", "dataset", "backbone", "protocol", "seeds", "search", "search-by"):
            if getattr(arguments, flag.replace("-", "_")) is not None:
                raise UsageError(f"--config repeats a run as it was: leave out --{flag}, or leave out --config")
        if overrides:
            raise UsageError(f"--config repeats a run as it was: leave out '{overrides[0]}', or leave out --config")
        return [repeat(arguments.config, **same)]
    if not names_in(arguments.methods):
        from wsolbench.registry import list_methods

        raise UsageError(f"say what to run with --methods A,B. Known: {', '.join(list_methods())}")
    return expand(
        names_in(arguments.methods),
        dataset=arguments.dataset or "badges",
        backbone=arguments.backbone,
        protocol=arguments.protocol or "full",
        seeds=None if arguments.seeds is None else integers_in(arguments.seeds, "--seeds", least=0),
        overrides=overrides,
        search=arguments.search,
        search_by=arguments.search_by,
        say=lambda sentence: print(sentence, file=sys.stderr),
        **same,
    )


def refuse_early(configs: Sequence[RunConfig], launcher: launch_options.Launcher) -> None:
    """Refuse places, devices, backbones and trackers that are not there, before anything is computed."""
    for out in sorted({config.out for config in configs}):
        check_writable(Path(out))
    for device in sorted({config.device for config in configs}):
        if not isinstance(launcher, launch_options.Slurm):  # its devices are other machines'
            check_device(device)
    for backbone in sorted({config.backbone for config in configs if config.backbone}):
        from wsolbench.backbones import check_backbone

        check_backbone(backbone)
    for tracker in {config.track for config in configs}:
        check_tracker(tracker)


TOLD = {
    "done": "done",
    "skipped": "done before (--rerun repeats them)",
    "failed": "failed",
    "submitted": "submitted",
}


def tell(outcomes: Sequence[Outcome], *, matrix: bool) -> None:
    """Print what became of the runs: how many, why some failed, their table, where the records are."""
    counts = {status: len(_with_status(outcomes, status)) for status in TOLD}
    print(
        f"{len(outcomes)} {'run' if len(outcomes) == 1 else 'runs'}: "
        + ", ".join(f"{n} {TOLD[status]}" for status, n in counts.items() if n)
    )
    for outcome in _with_status(outcomes, "failed"):
        what = outcome.directory or f"{outcome.config.method['name']} on {outcome.config.dataset['name']}"
        print(f"failed: {what}: {outcome.reason}", file=sys.stderr)
    for out in sorted({outcome.config.out for outcome in _with_status(outcomes, "submitted")}):
        print(f"what becomes of them: wsolbench leaderboard {out}")
    records = [outcome.record for outcome in outcomes if outcome.record is not None]
    if records or not counts["submitted"]:
        from wsolbench.leaderboard.view import render

        print_text(render(records, "table"))
    if matrix:
        from wsolbench.leaderboard.formats import show
        from wsolbench.leaderboard.tables.matrix import matrix_document

        show(matrix_document(records))
    finished = [(outcome.config.out, outcome.directory) for outcome in outcomes if outcome.record is not None]
    for out in sorted({out for out, _ in finished}):
        print(invitation(out, [path for of, path in finished if of == out and path is not None]))


def _with_status(outcomes: Sequence[Outcome], status: str) -> list[Outcome]:
    return [outcome for outcome in outcomes if outcome.status == status]


VERB = Verb(
    "run",
    "Train and score methods, then print their table. key=value sets options (a,b or range(0,3) sweep): "
    "train.*, method.*, METHOD.*, dataset.*, protocol.*, evaluate.*, search.*, experiment. launch=joblib or "
    "launch=slurm carries runs out side by side (docs/scale.md).",
    "wsolbench run --methods cam,center-box --dataset badges train.epochs=1 --seeds 0,1",
    add_flags,
    run,
    takes_overrides=True,
    in_several_processes=True,
    keeps=True,
)
