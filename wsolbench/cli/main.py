"""The command line: flags say what, `key=value` says how. Nothing heavy is imported before a verb needs it.

Exit status: 0 done; 1 a run failed, the others went on; 2 wrong usage, nothing was started; 75 the time of --max-time is up;
128 + n stopped by signal n: 130 Ctrl-C, 143 SIGTERM, 129 SIGHUP, 138 SIGUSR1. After these and 75 the same command goes on.
"""

from __future__ import annotations

import argparse
import difflib
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NoReturn

from wsolbench import __version__, distributed
from wsolbench.backbones import check_backbone
from wsolbench.cli import data as data_verbs
from wsolbench.cli import leaderboard as board_flags
from wsolbench.cli import profile as profile_flags
from wsolbench.cli import report as report_flags
from wsolbench.config.overrides import integers_in, names_in
from wsolbench.errors import UsageError, WsolbenchError, unknown
from wsolbench.launch import options as launch_flags
from wsolbench.leaderboard.formats import FORMATS
from wsolbench.runs.track import check_tracker
from wsolbench.system.files import NO_ROOM
from wsolbench.system.interrupt import caught, limited, request_of
from wsolbench.system.preflight import check_device, check_writable

Handler = Callable[[argparse.Namespace, list[str]], int]

MAX_TIME = (
    "save and stop by then, with exit status 75; the same command goes on: 2h, 90m, 45s, 1:30:00 (default: never)"
)
KINDS = ("methods", "datasets", "protocols", "backbones")


class _Parser(argparse.ArgumentParser):
    """argparse whose complaints are `UsageError`s and whose flags are never abbreviated."""

    def __init__(self, *, example: str = "", description: str = "", prog: str | None = None) -> None:
        super().__init__(
            prog=prog,
            description=description,
            epilog=f"example (works offline, on a laptop):\n  {example}" if example else None,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see '{self.prog} --help'")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    with caught():
        return distributed.leave(_main(words))


def _main(words: list[str]) -> int:
    try:
        status = _dispatch(words)
        sys.stdout.flush()  # so that a closed pipe is noticed here
        return status
    except WsolbenchError as error:
        if os.environ.get("WSOLBENCH_TRACEBACK") == "1":
            raise
        if distributed.is_first() or isinstance(error, distributed.CannotMeet):
            print(f"wsolbench: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    except KeyboardInterrupt as error:
        stopped = request_of(error)
        if distributed.is_first():
            with suppress(OSError):  # after SIGHUP there is no terminal left
                print(f"\nwsolbench: {stopped.why}{_resume(words)}", file=sys.stderr)
        return stopped.status
    except BrokenPipeError:  # the reader of a pipe, e.g. head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno not in NO_ROOM or os.environ.get("WSOLBENCH_TRACEBACK") == "1":
            raise
        file = f"'{error.filename}'" if error.filename else "standard output, or a file,"
        print(f"wsolbench: {file} could not be written: {error.strerror}", file=sys.stderr)
        return 1


def _resume(words: list[str]) -> str:
    """How to go on, for the verbs that keep what they have done."""
    if words[:1] not in (["run"], ["evaluate"]) and words[:2] != ["data", "pseudo-boxes"]:
        return ""
    command = f"wsolbench {shlex.join(word for word in words if word != '--rerun')}"
    if "--rerun" in words:  # it would forget what was just saved; runs that had not begun keep their former results
        return f"; what was done is saved, resume what had begun without --rerun: {command}"
    return f"; what was done is saved, resume with the same command: {command}"


def _dispatch(words: list[str]) -> int:
    parser = build_parser()
    verbs = sorted(parsers_of(parser))
    if words and not words[0].startswith("-") and words[0] not in verbs:
        raise unknown("verb", words[0], verbs)
    arguments, rest = parser.parse_known_args(words)
    if "handler" not in arguments:
        if rest:
            raise UsageError(f"'{rest[0]}' needs a verb before it: {', '.join(verbs)}")
        parser.print_help()
        return 0
    flags = [flag for action in arguments.parser._actions for flag in action.option_strings]
    for word in rest:
        if word.startswith("-"):
            near = difflib.get_close_matches(word.partition("=")[0], flags, n=1)
            hint = f"did you mean '{near[0]}'?" if near else "options of a run are written key=value, without dashes."
            raise UsageError(f"unknown flag '{word}' of '{arguments.parser.prog}', {hint} Known: {', '.join(flags)}")
    if rest and arguments.handler is not _run and not data_verbs.takes_options(arguments.handler):
        raise UsageError(f"'{arguments.parser.prog}' takes no '{rest[0]}'; see '{arguments.parser.prog} --help'")
    if distributed.processes() > 1 and arguments.handler is not _run:
        raise UsageError(f"'{arguments.parser.prog}' is the work of one process: start it without torchrun")
    handler: Handler = arguments.handler
    with limited(getattr(arguments, "max_time", None)):
        return handler(arguments, rest)


def parsers_of(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The parsers of a parser's verbs, by name."""
    return {
        name: verb
        for action in parser._actions
        if isinstance(action, argparse._SubParsersAction)
        for name, verb in action.choices.items()
    }


def build_parser() -> argparse.ArgumentParser:
    """All verbs and flags."""
    parser = _Parser(
        prog="wsolbench",
        description="Benchmark weakly supervised object localization: train on image labels, localise, compare.",
        example="wsolbench run --methods cam,center-box --dataset badges train.epochs=1",
    )
    parser.add_argument("--version", action="version", version=f"wsolbench {__version__}")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", parser_class=_Parser)

    def verb(name: str, handler: Handler, summary: str, example: str, among: object = verbs) -> argparse.ArgumentParser:
        made: argparse.ArgumentParser = among.add_parser(name, help=summary, description=summary, example=example)  # type: ignore[attr-defined]
        made.set_defaults(handler=handler, parser=made)
        return made

    run = verb(
        "run",
        _run,
        "Train and score methods, then print their table. key=value sets options (a,b or range(0,3) sweep): "
        "train.*, method.*, METHOD.*, dataset.*, protocol.*, evaluate.*, search.*, experiment. launch=joblib or "
        "launch=slurm carries runs out side by side (docs/scale.md).",
        "wsolbench run --methods cam,center-box --dataset badges train.epochs=1 --seeds 0,1",
    )
    run.add_argument("--methods", metavar="A,B", help="names, see 'wsolbench list methods'")
    run.add_argument("--dataset", metavar="NAME", help="see 'wsolbench list datasets' (default: badges)")
    run.add_argument("--root", metavar="PATH", help="folder in which the data set lies")
    run.add_argument("--backbone", metavar="NAME", help="timm or embedded name(s) (default: the recipe's)")
    run.add_argument("--protocol", metavar="NAME", help="preset, <k>shot or <k>shot+preset, or several (default: full)")
    run.add_argument("--seeds", metavar="0,1,2", help="default: 0")
    run.add_argument("--device", metavar="NAME", help="auto, cpu, cuda, cuda:1, mps (default: auto)")
    run.add_argument("--out", metavar="DIR", help="where runs are kept (default: results)")
    run.add_argument(
        "--search",
        metavar="N",
        type=int,
        help="trials of hyper-parameter search of each method (default: none, untuned)",
    )
    run.add_argument(
        "--search-by", metavar="NAME", help="who chooses among them (default: the protocol's, else val-boxes)"
    )
    run.add_argument("--track", metavar="NAME", help="tensorboard or wandb: watch the runs (default: nowhere)")
    run.add_argument("--config", metavar="FILE", help="repeat the run that wrote this config.yaml")
    run.add_argument("--rerun", action="store_true", help="run again what is already done")
    run.add_argument("--max-time", metavar="TIME", help=MAX_TIME)

    evaluate = verb(
        "evaluate",
        _evaluate,
        "Score maps made by any code: <id>.npy files in a folder, or one .npz. See docs/evaluate.md.",
        "wsolbench evaluate --maps my-maps --dataset badges --map-kind raw --name mine",
    )
    evaluate.add_argument(
        "--maps", metavar="PATH", required=True, help="folder of <id>.npy files, or a .npz with ids as keys"
    )
    evaluate.add_argument("--dataset", metavar="NAME", required=True, help="see 'wsolbench list datasets'")
    evaluate.add_argument("--root", metavar="PATH", help="folder in which the data set lies")
    evaluate.add_argument(
        "--split", metavar="NAME", default="test", help="whose maps they are: test or val (default: test)"
    )
    evaluate.add_argument(
        "--logits", metavar="FILE", help="class scores, .npy [images, classes] or .npz, for Top-1 and Top-5"
    )
    evaluate.add_argument(
        "--map-kind",
        metavar="KIND",
        default="score",
        help="score: float64 in [0, 1] at the evaluation resolution; raw: any size and type (default: score)",
    )
    evaluate.add_argument(
        "--convention",
        metavar="NAME",
        default="reference",
        help="also print what a paper's own evaluator would (sat, ...)",
    )
    evaluate.add_argument(
        "--geometry",
        metavar="NAME",
        default="resize",
        help="what the maps show: resize or centre-crop (default: resize)",
    )
    evaluate.add_argument(
        "--interval",
        metavar="X",
        type=float,
        default=0.01,
        help="step between thresholds, in columns of its own (default: 0.01)",
    )
    evaluate.add_argument(
        "--contours", metavar="KIND", default="single", help="single or multi, in columns of its own (default: single)"
    )
    evaluate.add_argument(
        "--name", metavar="METHOD", help="in the leaderboard (default: the name of the folder or file)"
    )
    evaluate.add_argument(
        "--backbone", metavar="NAME", default="-", help="what the maps were made with, for the leaderboard"
    )
    evaluate.add_argument("--val-maps", metavar="PATH", help="maps of val, whose boxes then choose the threshold")
    evaluate.add_argument("--out", metavar="DIR", default="results", help="where runs are kept (default: results)")
    evaluate.add_argument("--rerun", action="store_true", help="score again what is already done")
    evaluate.add_argument("--max-time", metavar="TIME", help=MAX_TIME)

    board = verb(
        "leaderboard",
        _leaderboard,
        "Print finished runs by data set, backbone and protocol; select, pivot, compare; published numbers beside them.",
        board_flags.EXAMPLE,
    )
    board_flags.add_flags(board)

    report_flags.add_flags(verb("report", report_flags.report, report_flags.SUMMARY, report_flags.EXAMPLE))

    profile_flags.add_flags(verb("profile", profile_flags.profile, profile_flags.SUMMARY, profile_flags.EXAMPLE))

    listing = verb("list", _list, "Say what exists, and where it lives.", "wsolbench list methods")
    listing.add_argument("what", nargs="?", metavar="KIND", help=f"{', '.join(KINDS)} (default: all)")

    data = verb("data", _data, "Look at a data set, or make one.", "wsolbench data show badges")
    data_verbs.add_verbs(partial(verb, among=data.add_subparsers(title="verbs", metavar="VERB", parser_class=_Parser)))

    pretrain = verb(
        "pretrain",
        _pretrain,
        "Train the embedded backbones as their shipped weights were trained.",
        "wsolbench pretrain --backbone badges_cnn --scale 0.05 --out backbones",
    )
    pretrain.add_argument("--backbone", metavar="NAME", help="see 'wsolbench list backbones' (default: all embedded)")
    pretrain.add_argument("--seed", type=int, metavar="N", help="default: the one the shipped weights were made with")
    pretrain.add_argument(
        "--scale", default=1.0, type=float, metavar="X", help="share of the full schedule (default: 1)"
    )
    pretrain.add_argument("--out", default="backbones", metavar="DIR", help="default: backbones")
    return parser


def _run(arguments: argparse.Namespace, overrides: list[str]) -> int:
    if distributed.processes() == 1:
        return _run_all(arguments, overrides)
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # a lost process is told in our words; read when torch loads
    from wsolbench.launch.helpers import together

    return together(partial(_run_all, arguments, overrides))


def _run_all(arguments: argparse.Namespace, overrides: list[str]) -> int:
    from wsolbench.config.compose import expand
    from wsolbench.config.saved import repeat

    launcher, overrides = launch_flags.take(overrides)
    launch_flags.check(launcher)
    if arguments.config is not None:
        for flag in ("methods", "dataset", "backbone", "protocol", "seeds", "search", "search-by"):
            if getattr(arguments, flag.replace("-", "_")) is not None:
                raise UsageError(f"--config repeats a run as it was: leave out --{flag}, or leave out --config")
        if overrides:
            raise UsageError(f"--config repeats a run as it was: leave out '{overrides[0]}', or leave out --config")
        configs = [
            repeat(
                arguments.config, device=arguments.device, root=arguments.root, out=arguments.out, track=arguments.track
            )
        ]
    else:
        if not names_in(arguments.methods):
            from wsolbench.registry import list_methods

            raise UsageError(f"say what to run with --methods A,B. Known: {', '.join(list_methods())}")
        configs = expand(
            names_in(arguments.methods),
            dataset=arguments.dataset or "badges",
            backbone=arguments.backbone,
            protocol=arguments.protocol or "full",
            seeds=None if arguments.seeds is None else integers_in(arguments.seeds, "--seeds", least=0),
            overrides=overrides,
            device=arguments.device,
            root=arguments.root,
            out=arguments.out,
            search=arguments.search,
            search_by=arguments.search_by,
            track=arguments.track,
            say=lambda sentence: print(sentence, file=sys.stderr),
        )
    for out in sorted({config.out for config in configs}):
        check_writable(Path(out))
    for device in sorted({config.device for config in configs}):
        if not isinstance(launcher, launch_flags.Slurm):  # its devices are other machines'
            check_device(device)
    for backbone in sorted({config.backbone for config in configs if config.backbone}):
        check_backbone(backbone)
    for tracker in {config.track for config in configs}:
        check_tracker(tracker)

    from wsolbench.launch.start import run_by
    from wsolbench.leaderboard.view import render

    outcomes = run_by(launcher, configs, rerun=arguments.rerun)
    failed = [outcome for outcome in outcomes if outcome.status == "failed"]
    told = {
        "done": "done",
        "skipped": "done before (--rerun repeats them)",
        "failed": "failed",
        "submitted": "submitted",
    }
    counts = {status: sum(outcome.status == status for outcome in outcomes) for status in told}
    print(
        f"{len(outcomes)} {'run' if len(outcomes) == 1 else 'runs'}: "
        + ", ".join(f"{n} {told[status]}" for status, n in counts.items() if n)
    )
    for outcome in failed:
        what = outcome.directory or f"{outcome.config.method['name']} on {outcome.config.dataset['name']}"
        print(f"failed: {what}: {outcome.reason}", file=sys.stderr)
    for out in sorted({outcome.config.out for outcome in outcomes if outcome.status == "submitted"}):
        print(f"what becomes of them: wsolbench leaderboard {out}")
    records = [outcome.record for outcome in outcomes if outcome.record is not None]
    if records or not counts["submitted"]:
        _print(render(records, "table"))
    if any(config.protocol.matrix for config in configs):
        from wsolbench.leaderboard.formats import show
        from wsolbench.leaderboard.tables.matrix import matrix_document

        show(matrix_document(records))
    finished = [(outcome.config.out, outcome.directory) for outcome in outcomes if outcome.record is not None]
    for out in sorted({out for out, _ in finished}):
        print(report_flags.invitation(out, [path for of, path in finished if of == out and path is not None]))
    if counts["submitted"] and getattr(launcher, "wait", False):  # the waiting was ended, not the jobs
        return request_of(KeyboardInterrupt()).status
    return 1 if failed else 0


def _evaluate(arguments: argparse.Namespace, rest: list[str]) -> int:
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
    _print(render([outcome.record], "table"))
    print(report_flags.invitation(arguments.out, [outcome.directory]))
    return 0


def _leaderboard(arguments: argparse.Namespace, rest: list[str]) -> int:
    if arguments.format not in FORMATS:
        raise unknown("format", arguments.format, FORMATS)
    from wsolbench.leaderboard.formats import show, write
    from wsolbench.leaderboard.view import build

    document = build(Path(arguments.results), board_flags.view_of(arguments))
    _print(show(document, arguments.format))
    if arguments.write is not None:
        for path in write(document, arguments.write, board_flags.command_of(arguments)):
            print(path, file=sys.stderr)
    return 0


def _data(arguments: argparse.Namespace, rest: list[str]) -> int:
    known = parsers_of(arguments.parser)
    raise UsageError(f"say what to do with a data set: {', '.join(known)}; see 'wsolbench data --help'")


def _pretrain(arguments: argparse.Namespace, rest: list[str]) -> int:
    if not arguments.scale > 0:
        raise UsageError(f"--scale {arguments.scale}: expected a number above 0")
    check_writable(Path(arguments.out))
    from wsolbench.backbones.embedded import list_backbones
    from wsolbench.backbones.pretrain import pretrain

    names = names_in(arguments.backbone) or list_backbones()
    for name in names:
        if name not in list_backbones():
            raise unknown("embedded backbone", name, list_backbones())
    for name in names:
        summary = pretrain(name, Path(arguments.out), seed=arguments.seed, scale=arguments.scale)
        print(name, *(f"{key}={value}" for key, value in summary.items()))
    return 0


def _list(arguments: argparse.Namespace, rest: list[str]) -> int:
    from wsolbench.cli.list import list_section

    if arguments.what is not None and arguments.what not in KINDS:
        raise unknown("kind", arguments.what, KINDS)
    for number, kind in enumerate([arguments.what] if arguments.what else KINDS):
        rows = list_section(kind)
        if arguments.what is None:
            print("\n" * (number > 0) + kind)
        name_width, summary_width = (max((len(row[i]) for row in rows), default=0) for i in (0, 1))
        for name, summary, where in rows:
            print(f"  {name:{name_width}}  {summary:{summary_width}}  {where}")
    return 0


def _print(text: str | None) -> None:
    if text is not None:
        print(text, end="" if text.endswith("\n") else "\n")
