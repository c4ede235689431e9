"""The training loop: every step's randomness is a function of (seed, step), so that resuming cannot change a number."""

from __future__ import annotations

import json
import math
import os
import pickle
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wsolbench.checkpoint import write_tensors
from wsolbench.config import Optimizer, Schedule, TrainConfig
from wsolbench.data import Split, stable_seed, train_steps
from wsolbench.errors import WsolbenchError
from wsolbench.interrupt import Interrupt
from wsolbench.method import Method
from wsolbench.progress import Reporter
from wsolbench.protocol import TrainingPlan
from wsolbench.rundir import write_text

SAVE_SECONDS = 5.0  # least time between two saved states
SAVE_SHARE = 0.05  # and saving takes at most this share of the training time
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
) -> None:
    """Train for `plan.steps` optimizer steps, from the state saved in `folder` if there is one.

    Leaves `train.jsonl`, and `state.pt` while unfinished. On Ctrl-C the state after the last whole step is saved. `at_step` is
    told how many steps were taken, at the beginning (or where it is taken up) and after every one.

    Raises:
        WsolbenchError: the loss is not finite; nothing is learned from that step, and the last good state is kept.
    """
    method.to(device)
    optimizer = build_optimizer(method, train)
    state = _State(folder / "state.pt", method, optimizer)
    step = state.load()
    log = _Log(folder / "train.jsonl", plan, state.sums)
    log.cut_back(step)
    if at_step is not None:
        at_step(step)
    method.train()
    with (
        reporter.bar("train", plan.steps, done=step, unit="steps") as advance,
        Interrupt() as interrupt,
    ):
        for batch in train_steps(
            split,
            indices,
            batch_size=train.batch_size,
            seed=seed,
            first=step,
            last=plan.steps,
            workers=train.workers,
            pin=device.type == "cuda",
        ):
            factor = lr_factor(step, plan, train)
            for group in optimizer.param_groups:
                group["lr"] = group["base_lr"] * factor
            torch.manual_seed(stable_seed("step", seed, step))  # dropout, drop path, whatever a method draws
            losses = method(batch.to(device))
            loss = sum(losses.values(), torch.zeros((), device=device))
            if not torch.isfinite(loss):
                state.save(step)
                raise _not_finite(losses, step // plan.steps_per_pass, step, batch.ids)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            step += 1
            if at_step is not None:
                at_step(step)
            advance(1, f"loss {log.add(losses, loss, len(batch.ids)):.3f}")
            log.write_if_due(step, optimizer.param_groups[0]["lr"])
            if state.is_due() or interrupt.requested:
                state.save(step)
            if interrupt.requested:
                raise KeyboardInterrupt


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


# --- optimizer and schedule ------------------------------------------------------------------------------------------


def build_optimizer(method: Method, train: TrainConfig) -> torch.optim.Optimizer:
    """AdamW, or SGD with Nesterov momentum, over the method's own parameter groups."""
    groups = method.param_groups(train)
    for group in groups:
        group.setdefault("lr", train.lr)
        group["base_lr"] = group["lr"]
    if train.optimizer is Optimizer.adamw:
        return torch.optim.AdamW(groups, lr=train.lr, weight_decay=train.weight_decay)
    return torch.optim.SGD(
        groups,
        lr=train.lr,
        momentum=train.momentum,
        weight_decay=train.weight_decay,
        nesterov=train.momentum > 0,
    )


def lr_factor(step: int, plan: TrainingPlan, train: TrainConfig) -> float:
    """What the learning rate is multiplied by at a step (0-based): a linear warm-up, then the schedule.

    cosine falls from 1 to 0 over the steps after the warm-up; step multiplies by gamma at each milestone epoch.

    >>> plan = TrainingPlan(steps=10, steps_per_pass=5, steps_per_epoch=5)
    >>> lr_factor(0, plan, TrainConfig(warmup_steps=4)), lr_factor(9, plan, TrainConfig())
    (0.25, 1.0)
    """
    if step < train.warmup_steps:
        return (step + 1) / train.warmup_steps
    if train.schedule is Schedule.cosine:
        share = (step - train.warmup_steps) / max(1, plan.steps - train.warmup_steps)
        return 0.5 * (1 + math.cos(math.pi * share))
    if train.schedule is Schedule.step:
        passed = sum(step >= milestone * plan.steps_per_epoch for milestone in train.milestones)
        return float(train.gamma**passed)
    return 1.0


def _not_finite(losses: dict[str, Tensor], epoch: int, step: int, ids: list[str]) -> WsolbenchError:
    values = ", ".join(f"{name} {value.item():g}" for name, value in losses.items())
    shown = ", ".join(ids[:8]) + (f", ... ({len(ids)} in all)" if len(ids) > 8 else "")
    return WsolbenchError(
        f"the loss is not finite ({values}) at epoch {epoch + 1}, step {step + 1}, images {shown}; "
        "try a smaller train.lr or more train.warmup_steps"
    )


# --- what a loop leaves behind ---------------------------------------------------------------------------------------


class _Log:
    """`train.jsonl`: one line per pass; `sums` is what has run up since the last line, and travels with the state."""

    def __init__(self, path: Path, plan: TrainingPlan, sums: dict[str, float]) -> None:
        self.path, self.plan, self.sums = path, plan, sums
        self.every = min(plan.steps_per_epoch, max(1, math.ceil(plan.steps / LINES)))
        self.clock = time.perf_counter()

    def cut_back(self, step: int) -> None:
        """Drop the lines that an interrupted run wrote after its last saved state."""
        if self.path.is_file():
            lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
            write_text(self.path, "".join(kept))

    def add(self, losses: dict[str, Tensor], loss: Tensor, images: int) -> float:
        now = time.perf_counter()
        value = loss.item()
        amounts = {f"loss/{name}": each.item() for name, each in losses.items()}
        for name, amount in {
            **amounts,
            "loss": value,
            "images": images,
            "steps": 1,
            "seconds": now - self.clock,
        }.items():
            self.sums[name] = self.sums.get(name, 0.0) + amount
        self.clock = now
        return value

    def write_if_due(self, step: int, lr: float) -> None:
        """Write a line at the end of a pass, unless passes are so short that there would be far too many."""
        steps = self.sums["steps"]
        end_of_pass = step % self.plan.steps_per_pass == 0 and steps >= self.every
        if not (end_of_pass or step == self.plan.steps):
            return
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
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        self.sums.clear()


class _State:
    """`state.pt`: all that the rest of the training depends on, after a whole step; tensors and numbers only."""

    def __init__(self, path: Path, method: Method, optimizer: torch.optim.Optimizer) -> None:
        self.path, self.method, self.optimizer = path, method, optimizer
        self.sums: dict[str, float] = {}
        self.wait = SAVE_SECONDS
        self.saved_at = time.monotonic()

    def load(self) -> int:
        """Restore the state if there is one; returns the number of steps already taken."""
        if not self.path.is_file():
            return 0
        try:
            content: dict[str, Any] = torch.load(self.path, map_location="cpu", weights_only=True)
            self.method.load_state_dict(content["model"])
            self.optimizer.load_state_dict(content["optimizer"])
            self.sums.update(content["sums"])
            return int(content["step"])
        except (pickle.UnpicklingError, EOFError, RuntimeError, KeyError, ValueError) as error:
            raise WsolbenchError(
                f"state '{self.path}' cannot be resumed ({type(error).__name__}): remove it, or run with --rerun"
            ) from error

    def is_due(self) -> bool:
        return time.monotonic() - self.saved_at >= self.wait

    def save(self, step: int) -> None:
        """Write the state, unless it is beyond repair: then the one written before stays."""
        started = time.monotonic()
        model = self.method.state_dict()
        if not all(value.isfinite().all() for value in model.values()):
            return
        content = {
            "step": step,
            "model": model,
            "optimizer": self.optimizer.state_dict(),
            "sums": self.sums,
        }
        temporary = self.path.with_name(self.path.name + ".tmp")
        with temporary.open("wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.path)
        self.saved_at = time.monotonic()
        self.wait = max(SAVE_SECONDS, (self.saved_at - started) / SAVE_SHARE)
