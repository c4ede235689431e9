"""The splits of a run evaluated with the weights that its method holds, by this process or by several."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from wsolbench import distributed
from wsolbench.conventions import Convention
from wsolbench.data.annotations import AnnotationReader
from wsolbench.evaluation.evaluate import Evaluated, evaluate
from wsolbench.evaluation.frame import Frame
from wsolbench.evaluation.scoring import Scoring
from wsolbench.method.base import Method
from wsolbench.runs.job import Job, Task
from wsolbench.system.progress import Reporter


class Evaluator:
    """Evaluates the weights that the method holds, on the splits that the run looks at."""

    def __init__(self, job: Job, method: Method, reader: AnnotationReader, reporter: Reporter) -> None:
        self.job, self.method, self.reporter = job, method, reporter
        # without ground truth val still has labels and pseudo-boxes to choose by; test has it, or `open_job` had refused
        wanted = job.val_split.annotated or job.shares_training or job.pseudo is not None
        self.splits = ({"val": job.val_split} if wanted else {}) | {"test": job.chosen.test_split}
        self._evaluate = partial(
            evaluate,
            method,
            config=job.config.evaluate,
            seed=job.config.seed,
            device=job.device,
            reader=reader,
            reporter=reporter,
        )

    def frame(self, name: str) -> Frame:
        """What a split looks like where maps and boxes are compared."""
        info, annotated = self.job.dataset.info, self.splits[name].annotated
        return Frame(info.resolution_HW, info.has_masks and annotated, info.has_boxes and annotated, info.geometry)

    def __call__(self, name: str, folder: Path) -> Evaluated:
        """The outcomes on "val" or "test"; parts of them are kept in `folder`. Several processes share the images."""
        with distributed.together(Task(self.job.config, self.job.directory.hash, name)):
            return self._evaluate(name, self.splits[name], self._scoring(name), folder=folder)

    def by_convention(self, test: Evaluated, folder: Path) -> Evaluated:
        """The outcomes on test by the convention; maps of other image content take a pass of their own."""
        convention = self.job.convention
        if convention is None or convention.geometry == self.job.dataset.info.geometry:
            return test
        return self._pass_by_convention(convention, folder)

    def take_part(self, task: Task) -> None:
        """Another process's share of the pass that the leader makes; nothing is written, so any folder will do."""
        folder = self.job.directory.partial
        if task.by_convention:
            assert self.job.convention is not None
            self._pass_by_convention(self.job.convention, folder)
        elif task.split is not None:
            self(task.split, folder)

    def _pass_by_convention(self, convention: Convention, folder: Path) -> Evaluated:
        scoring = self._by_convention(reference=False)
        kept_as = f"{convention.geometry}-test"
        with distributed.together(Task(self.job.config, self.job.directory.hash, "test", by_convention=True)):
            return self._evaluate("test", self.job.convention_split, scoring, folder=folder, kept_as=kept_as)

    def _scoring(self, name: str) -> Scoring:
        convention = self.job.convention
        if name == "val":
            return Scoring(self.frame("val"), pseudo=self.job.pseudo)
        same_content = convention is not None and convention.geometry == self.job.dataset.info.geometry
        return self._by_convention(reference=True) if same_content else Scoring(self.frame("test"))

    def _by_convention(self, reference: bool) -> Scoring:
        return Scoring(self.frame("test"), reference, self.job.convention, self.job.convention_thresholds)
