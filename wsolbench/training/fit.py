"""The training loop: every step's randomness is a function of (seed, step), so that resuming cannot change a number."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch

from wsolbench import distributed
from wsolbench.config.schema import TrainConfig
from wsolbench.data.loading import train_steps
from wsolbench.data.split import Split
from wsolbench.errors import WsolbenchError
from wsolbench.method.base import Method
from wsolbench.method.numerics import Numerics
from wsolbench.system.hashing import stable_seed
from wsolbench.system.interrupt import Interrupt
from wsolbench.system.progress import Advance, Reporter
from wsolbench.training.log import Listener, Log
from wsolbench.training.optimizers import build_optimizer, set_lr
from wsolbench.training.plan import TrainingPlan
from wsolbench.training.replica import check_shares
from wsolbench.training.state import State
from wsolbench.training.stepping import Place, StepCheck, Stepper
from wsolbench.types import Batch


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
    watch: Listener | None = None,
) -> None:
    """Train for `plan.steps` optimizer steps, from the state saved in `folder` if there is one.

    Leaves `train.jsonl`, and `state.pt` while unfinished. On Ctrl-C the state after the last whole step is saved. `at_step` is
    told how many steps were taken, at the beginning (or where it is taken up) and after every one; `watch` of every line.

    Raises:
        WsolbenchError: the loss is not finite. On a CPU nothing is learned from that step, and the state before it is
            saved; a GPU is a step ahead when that is found out, and the state saved last, a good one, stays.
    """
    training = _Training(method, plan, train, seed, at_step, min(train.batch_size, len(indices)))
    with distributed.turn():
        step = training.begin(device, folder, reporter, watch)
    method.train()
    with (
        recomputing(method) if train.checkpoint_gradients else nullcontext(),
        Numerics.of(train).applied(method),
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
            share=(distributed.rank(), distributed.world()),
        )
        training.steps(step, batches, advance, interrupt)


@dataclass
class _Training:
    """What a training holds from step to step."""

    method: Method
    plan: TrainingPlan
    train: TrainConfig
    seed: int
    at_step: Callable[[int], None] | None
    total: int  # images of a step; the last part of a pass is dropped

    def begin(self, device: torch.device, folder: Path, reporter: Reporter, watch: Listener | None) -> int:
        """Take up what is saved in `folder`; returns the number of steps already taken."""
        check_shares(self.total, self.train.accumulate)
        self.method.to(device)
        self.optimizer = build_optimizer(self.method, self.train)
        self.stepper = Stepper(self.method, self.optimizer, self.train, Numerics.of(self.train), device)
        scaler = self.stepper.scaler
        self.state = State(folder / "state.pt", self.method, self.optimizer, scaler)
        step = self.state.load()
        self.check = StepCheck(device, reporter.message, scaler.get_scale() if scaler.is_enabled() else None)
        self.log = Log(folder / "train.jsonl", self.plan, self.state.sums, watch)
        self.log.cut_back(step)
        if self.at_step is not None:
            self.at_step(step)
        return step

    def steps(self, step: int, batches: Iterator[Batch], advance: Advance, interrupt: Interrupt) -> None:
        """The story of a training: one optimizer step after the other, from step number `step` on."""
        plan, train, stepper, check, log, state = self.plan, self.train, self.stepper, self.check, self.log, self.state
        while step < plan.steps:
            with distributed.turn():
                batch = next(batches)
            place = Place(step // plan.steps_per_pass + 1, step + 1, batch.ids)
            set_lr(self.optimizer, step, plan, train)
            torch.manual_seed(stable_seed("step", self.seed, step, *distributed.apart()))  # for whatever a method draws
            losses = stepper.gradients(batch, self.total)
            try:
                with distributed.turn():
                    check.before_update(place, losses)
            except WsolbenchError:
                state.save(step)
                raise
            with distributed.turn() as each:
                stepper.update()
                check.after_update(place, losses, stepper.scale())
                step += 1
                log.add(losses.over_processes(), self.total)
                each.ask(interrupt.requested)
                saves = state.is_due()
                if saves or log.is_due(step):
                    check.settle()  # nothing that is written has seen a bad step
                    log.settle()
                if self.at_step is not None:
                    self.at_step(step)
                advance(1, log.note())
                log.write_if_due(step, self.optimizer.param_groups[0]["lr"])
                if saves:
                    state.save(step)
            if each.answers[0]:
                with distributed.turn():
                    check.settle()
                    log.settle()
                    state.save(step)
                raise distributed.agreed(interrupt.stopped())


@contextmanager
def recomputing(method: Method) -> Iterator[None]:
    """Compute activations again in backward passes of the block only: evaluation reads layers, which must be there once."""
    method.checkpoint_gradients()
    try:
        yield
    finally:
        method.checkpoint_gradients(False)
