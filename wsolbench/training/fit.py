"""The training loop: every step's randomness is a function of (seed, step), so that resuming cannot change a number."""

from __future__ import annotations

import json
import math
import pickle
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from wsolbench.config.schema import TrainConfig
from wsolbench.data.loading import train_steps
from wsolbench.data.split import Split
from wsolbench.distributed import group as dist
from wsolbench.errors import WsolbenchError
from wsolbench.method.base import Method
from wsolbench.method.checkpoint import write_tensors
from wsolbench.method.numerics import Numerics
from wsolbench.protocols.needs import TrainingPlan
from wsolbench.runs.directory import write_text
from wsolbench.system.files import append, atomically
from wsolbench.system.hashing import stable_seed
from wsolbench.system.interrupt import Interrupt
from wsolbench.system.progress import Reporter
from wsolbench.training.optimizers import build_optimizer, set_lr
from wsolbench.training.replica import check_shares
from wsolbench.training.stepping import Losses, Place, StepCheck, Stepper

if TYPE_CHECKING:
    from wsolbench.runs.watch import Watch

SAVE_SECONDS = 5.0  # least time between two saved states
SAVE_SHARE = 0.05  # and saving takes at most this share of the training time
NOTE_SECONDS = 0.3  # least time between two losses shown on a bar
LINES = 20  # a run of many tiny passes writes about this many lines to train.jsonl


def fit(
    method: Method,
    split: Split,
    indices: Sequence[int],
    plan: TrainingPlan,
    train: TrainConfig,
    *,
    seed: int,
    device: torch.device,
    folder: Path,
    reporter: Reporter,
    at_step: Callable[[int], None] | None = None,
    watch: Watch | None = None,
) -> None:
    """Train for `plan.steps` optimizer steps, from the state saved in `folder` if there is one.

    Leaves `train.jsonl`, and `state.pt` while unfinished. On Ctrl-C the state after the last whole step is saved. `at_step` is
    told how many steps were taken, at the beginning (or where it is taken up) and after every one; `watch` of every line.

    Raises:
        WsolbenchError: the loss is not finite. On a CPU nothing is learned from that step, and the state before it is
            saved; a GPU is a step ahead when that is found out, and the state saved last, a good one, stays.
    """
    total = min(train.batch_size, len(indices))  # images of a step; the last part of a pass is dropped
    numerics = Numerics.of(train)
    with dist.turn():
        check_shares(total, train.accumulate)
        method.to(device)
        optimizer = build_optimizer(method, train)
        stepper = Stepper(method, optimizer, train, numerics, device)
        state = _State(folder / "state.pt", method, optimizer, stepper.scaler)
        step = state.load()
        check = StepCheck(device, reporter.message, stepper.scaler.get_scale() if stepper.scaler.is_enabled() else None)
        log = _Log(folder / "train.jsonl", plan, state.sums, watch)
        log.cut_back(step)
        if at_step is not None:
            at_step(step)
    method.train()
    with (
        recomputing(method) if train.checkpoint_gradients else nullcontext(),
        numerics.applied(method),
        reporter.bar("train", plan.steps, done=step, unit="steps") as advance,
        Interrupt() as interrupt,
    ):
        batches = train_steps(
            split,
            indices,
            batch_size=train.batch_size,
            seed=seed,
            first=step,
            last=plan.steps,
            workers=train.workers,
            pin=device.type == "cuda",
            share=(dist.rank(), dist.world()),
        )
        while step < plan.steps:
            with dist.turn():
                batch = next(batches)
            place = Place(step // plan.steps_per_pass + 1, step + 1, batch.ids)
            set_lr(optimizer, step, plan, train)
            torch.manual_seed(stable_seed("step", seed, step, *dist.apart()))  # for whatever a method draws
            losses = stepper.gradients(batch, total)
            try:
                with dist.turn():
                    check.before_update(place, losses)
            except WsolbenchError:
                state.save(step)
                raise
            with dist.turn() as each:
                stepper.update()
                check.after_update(place, losses, stepper.scale())
                step += 1
                log.add(losses.over_processes(), total)
                each.ask(interrupt.requested)
                saves = state.is_due()
                if saves or log.is_due(step):
                    check.settle()  # nothing that is written has seen a bad step
                    log.settle()
                if at_step is not None:
                    at_step(step)
                advance(1, log.note())
                log.write_if_due(step, optimizer.param_groups[0]["lr"])
                if saves:
                    state.save(step)
            if each.answers[0]:
                with dist.turn():
                    check.settle()
                    log.settle()
                    state.save(step)
                raise dist.agreed(interrupt.stopped())


@contextmanager
def recomputing(method: Method) -> Iterator[None]:
    """Compute activations again in backward passes of the block only: evaluation reads layers, which must be there once."""
    method.checkpoint_gradients()
    try:
        yield
    finally:
        method.checkpoint_gradients(False)


def save_weights(module: torch.nn.Module, folder: Path) -> None:
    """Write `last.safetensors` and drop the state it makes useless."""
    write_tensors(folder / "last.safetensors", module.state_dict())
    (folder / "state.pt").unlink(missing_ok=True)


def training_cost(folder: Path) -> dict[str, float | None]:
    """Seconds and images per second of a finished training, from its `train.jsonl`."""
    lines = [json.loads(line) for line in (folder / "train.jsonl").read_text(encoding="utf-8").splitlines()]
    seconds = sum(line["seconds"] for line in lines)
    images = sum(line["images"] for line in lines)
    return {"train_seconds": seconds, "train_images_per_second": images / seconds if seconds else None}


# --- what a loop leaves behind ---------------------------------------------------------------------------------------


class _Log:
    """`train.jsonl`: one line per pass; `sums` is what has run up since the last line, and travels with the state."""

    def __init__(self, path: Path, plan: TrainingPlan, sums: dict[str, float], watch: Watch | None = None) -> None:
        self.path, self.plan, self.sums, self.watch = path, plan, sums, watch
        self.every = min(plan.steps_per_epoch, max(1, math.ceil(plan.steps / LINES)))
        self.clock = time.perf_counter()
        self.totals: dict[str, Tensor] = {}  # on the device: what `sums` will hold of the losses once it is settled
        self.last: Tensor | None = None
        self.noted_at = -math.inf

    def cut_back(self, step: int) -> None:
        """Drop the lines that an interrupted run wrote after its last saved state."""
        if dist.is_main() and self.path.is_file():
            lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
            write_text(self.path, "".join(kept))
        if self.watch is not None:
            self.watch.begin(step)
            self.clock = time.perf_counter()

    def add(self, losses: Losses, images: int) -> None:
        """Count a step. Losses are summed on the device, in float64 where it has that, and read by `settle`."""
        values = {f"loss/{name}": value for name, value in losses.terms.items()} | {"loss": losses.sum}
        wide = torch.float32 if losses.sum.device.type == "mps" else torch.float64
        for name, value in values.items():
            before = self.totals[name] if name in self.totals else self.sums.get(name, 0.0)
            self.totals[name] = value.to(wide) + before
        self.sums["images"] = self.sums.get("images", 0) + images
        self.sums["steps"] = self.sums.get("steps", 0) + 1
        self.last = losses.sum

    def settle(self) -> None:
        """Bring `sums` up to date; waits for the device."""
        if self.totals:
            self.sums.update(zip(self.totals, torch.stack([*self.totals.values()]).tolist(), strict=True))
        now = time.perf_counter()
        self.sums["seconds"] = self.sums.get("seconds", 0.0) + now - self.clock
        self.clock = now

    def note(self) -> str | None:
        """The loss of the step counted last, for a bar; seldom, since it waits for the device."""
        now = time.monotonic()
        if self.last is None or now - self.noted_at < NOTE_SECONDS:
            return None
        self.noted_at = now
        return f"loss {self.last.item():.3f}"

    def is_due(self, step: int) -> bool:
        """A line comes at the end of a pass, unless passes are so short that there would be far too many."""
        end_of_pass = step % self.plan.steps_per_pass == 0 and self.sums["steps"] >= self.every
        return end_of_pass or step == self.plan.steps

    def write_if_due(self, step: int, lr: float) -> None:
        """Write a line at the end of a pass, from settled sums."""
        if not self.is_due(step):
            return
        steps = self.sums["steps"]
        line = {
            "epoch": -(-step // self.plan.steps_per_pass),
            "step": step,
            "loss": self.sums["loss"] / steps,
            "losses": {
                name.removeprefix("loss/"): total / steps
                for name, total in self.sums.items()
                if name.startswith("loss/")
            },
            "lr": lr,
            "images": int(self.sums["images"]),
            "seconds": round(self.sums["seconds"], 4),
            "images_per_second": round(self.sums["images"] / max(self.sums["seconds"], 1e-9), 2),
        }
        if dist.is_main():
            append(self.path, json.dumps(line) + "\n")
        if self.watch is not None:
            self.watch.line(line)
            self.clock = time.perf_counter()  # watching is no training
        self.sums.clear()
        self.totals.clear()


class _State:
    """`state.pt`: all that the rest of the training depends on, after a whole step; tensors and numbers only."""

    def __init__(
        self, path: Path, method: Method, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler
    ) -> None:
        self.path, self.method, self.optimizer, self.scaler = path, method, optimizer, scaler
        self.sums: dict[str, float] = {}
        self.wait = SAVE_SECONDS
        self.saved_at = time.monotonic()

    def load(self) -> int:
        """Restore the state if there is one; returns the number of steps already taken."""
        content = dist.from_main(self._read)
        if content is None:
            return 0
        try:
            self.method.load_state_dict(content["model"])
            self.optimizer.load_state_dict(content["optimizer"])
            if self.scaler.is_enabled():
                self.scaler.load_state_dict(content["scaler"])
            self.sums.update(content["sums"])
            return int(content["step"])
        except (RuntimeError, KeyError, ValueError) as error:
            raise self._useless(error) from error

    def _read(self) -> dict[str, Any] | None:
        try:
            content: dict[str, Any] = torch.load(self.path, map_location="cpu", weights_only=True)
            return content
        except FileNotFoundError:
            return None
        except (pickle.UnpicklingError, EOFError, RuntimeError) as error:
            raise self._useless(error) from error

    def _useless(self, error: Exception) -> WsolbenchError:
        return WsolbenchError(
            f"state '{self.path}' cannot be resumed ({type(error).__name__}): remove it, or run with --rerun"
        )

    def is_due(self) -> bool:
        """Time to save again. Only the leader among several processes does, for all: their states are the same."""
        return dist.is_main() and time.monotonic() - self.saved_at >= self.wait

    def save(self, step: int) -> None:
        """Write the state, unless it is beyond repair: then the one written before stays."""
        if not dist.is_main():
            return
        started = time.monotonic()
        model = self.method.state_dict()
        if not all(value.isfinite().all() for value in model.values()):
            return
        content = {
            "step": step,
            "model": model,
            "optimizer": self.optimizer.state_dict(),
            "sums": self.sums,
            **({"scaler": self.scaler.state_dict()} if self.scaler.is_enabled() else {}),
        }
        with atomically(self.path) as temporary, temporary.open("wb") as file:
            torch.save(content, file)
        self.saved_at = time.monotonic()
        self.wait = max(SAVE_SECONDS, (self.saved_at - started) / SAVE_SHARE)
