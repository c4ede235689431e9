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
from collections.abc import Sequence
from contextlib import suppress

from wsolbench import __version__, distributed
from wsolbench.cli import data, evaluate, leaderboard, list, pretrain, profile, report, run
from wsolbench.cli.parser import Parser, Verb, add_verbs, parsers_of
from wsolbench.errors import UsageError, WsolbenchError, unknown
from wsolbench.system.files import NO_ROOM
from wsolbench.system.interrupt import caught, limited, request_of

VERBS = (run.VERB, evaluate.VERB, leaderboard.VERB, report.VERB, profile.VERB, list.VERB, data.VERB, pretrain.VERB)


def build_parser() -> argparse.ArgumentParser:
    """All verbs and flags."""
    parser = Parser(
        prog="wsolbench",
        description="Benchmark weakly supervised object localization: train on image labels, localise, compare.",
        example="wsolbench run --methods cam,center-box --dataset badges train.epochs=1",
    )
    parser.add_argument("--version", action="version", version=f"wsolbench {__version__}")
    add_verbs(parser, VERBS)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    words = [*(sys.argv[1:] if argv is None else argv)]
    with caught():
        return distributed.leave(_main(words))


def _main(words: Sequence[str]) -> int:
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


def _resume(words: Sequence[str]) -> str:
    """How to go on, for the verbs that keep what they have done."""
    verb = _verb_of(words, VERBS)
    if verb is None or not verb.keeps:
        return ""
    command = f"wsolbench {shlex.join(word for word in words if word != '--rerun')}"
    if "--rerun" in words:  # it would forget what was just saved; runs that had not begun keep their former results
        return f"; what was done is saved, resume what had begun without --rerun: {command}"
    return f"; what was done is saved, resume with the same command: {command}"


def _verb_of(words: Sequence[str], among: Sequence[Verb]) -> Verb | None:
    """The verb that words begin with, or the one below it that follows."""
    verb = next((verb for verb in among if words and verb.name == words[0]), None)
    return verb and (_verb_of(words[1:], verb.verbs) or verb)


def _dispatch(words: Sequence[str]) -> int:
    parser = build_parser()
    verbs = sorted(parsers_of(parser))
    if words and not words[0].startswith("-") and words[0] not in verbs:
        raise unknown("verb", words[0], verbs)
    arguments, rest = parser.parse_known_args(words)
    if "verb" not in arguments:
        if rest:
            raise UsageError(f"'{rest[0]}' needs a verb before it: {', '.join(verbs)}")
        parser.print_help()
        return 0
    verb: Verb = arguments.verb
    _refuse_unknown_flags(rest, arguments.parser)
    if rest and not verb.takes_overrides:
        raise UsageError(f"'{arguments.parser.prog}' takes no '{rest[0]}'; see '{arguments.parser.prog} --help'")
    if distributed.processes() > 1 and not verb.in_several_processes:
        raise UsageError(f"'{arguments.parser.prog}' is the work of one process: start it without torchrun")
    with limited(getattr(arguments, "max_time", None)):
        return verb.carry_out(arguments, rest)


def _refuse_unknown_flags(rest: Sequence[str], parser: argparse.ArgumentParser) -> None:
    flags = [flag for action in parser._actions for flag in action.option_strings]
    for word in rest:
        if word.startswith("-"):
            near = difflib.get_close_matches(word.partition("=")[0], flags, n=1)
            hint = f"did you mean '{near[0]}'?" if near else "options of a run are written key=value, without dashes."
            raise UsageError(f"unknown flag '{word}' of '{parser.prog}', {hint} Known: {', '.join(flags)}")
