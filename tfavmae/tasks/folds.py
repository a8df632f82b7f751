"""Figures of a cross-validation: of each fold, their mean and their deviation."""

import dataclasses
import os

import numpy as np
from rich.table import Table

from tfavmae.config.experiment import ExperimentConfig
from tfavmae.errors import UserError
from tfavmae.tasks import classification, evaluation
from tfavmae.tasks.classification import ClassificationResult
from tfavmae.tasks.metrics import Estimate
from tfavmae.tasks.results import Result
from tfavmae.tasks.trained import Trained
from tfavmae.training import experiment
from tfavmae.training.folds import fold_configs


@dataclasses.dataclass
class FoldScore:
    """Scores of a fold by the run that did not train on it."""

    num_clips: int
    accuracy: Estimate | None
    mean_average_precision: float


@dataclasses.dataclass
class Spread:
    """Mean and sample standard deviation (n - 1) over folds."""

    mean: float
    std: float


@dataclasses.dataclass
class FoldsResult(Result):
    """Scores of all folds; ESC-50 is reported by their mean.

    Args:
        folds: scores by the name of the fold.
        num_clips: clips of all folds.
        accuracy: over the folds; `None` for multi-label sets.
        mean_average_precision: over the folds.
    """

    folds: dict[str, FoldScore]
    num_clips: int
    accuracy: Spread | None
    mean_average_precision: Spread

    def table(self) -> Table:
        table = Table(
            "fold",
            "accuracy",
            "mAP",
            "n",
            title=f"cross-validation over {len(self.folds)} folds",
            caption="each fold by the run that was trained on the others; mean +- "
            "standard deviation over folds",
        )
        for name, one in self.folds.items():
            accuracy = str(one.accuracy) if one.accuracy else "-"
            precision = f"{one.mean_average_precision:.4f}"
            table.add_row(name, accuracy, precision, str(one.num_clips))
        accuracy, precision = self.accuracy, self.mean_average_precision
        table.add_section()
        table.add_row(
            "mean",
            f"{100 * accuracy.mean:.1f} +- {100 * accuracy.std:.1f} %"
            if accuracy
            else "-",
            f"{precision.mean:.4f} +- {precision.std:.4f}",
            str(self.num_clips),
        )
        return table


def cross_validate(config: ExperimentConfig, workdir: str | os.PathLike) -> FoldsResult:
    """Trains one run per fold and evaluates it on that fold; finished ones are kept.

    Each is a run like others, in a folder of the fold's name, with its evaluation.

    Args:
        config: of any of the runs; its splits are replaced.
        workdir: directory of the runs' work directories.

    Raises:
        UserError: the data set has no folds, there are several labels, or see
            `training.experiment.run`.
    """
    if len(config.data.labels) > 1:
        raise UserError("folds are evaluated by one label (key data.label)")
    results = {}
    for path, own in fold_configs(config, workdir).items():
        trained = Trained(experiment.run(own, path), own)
        split = trained.open_split()
        scores = evaluation.scores_of(trained, split)
        results[path.name] = classification.measure(scores, scores.files)
        results[path.name].to_json(path / f"evaluation_{split.name}.json")
    return over_folds(results)


def over_folds(results: dict[str, ClassificationResult]) -> FoldsResult:
    """Summarises the evaluations of two or more folds.

    Args:
        results: dict of a fold's name to the result on its clips.
    """
    folds = {
        name: FoldScore(x.num_clips, x.accuracy, x.mean_average_precision)
        for name, x in results.items()
    }
    accuracies = [x.accuracy.value for x in folds.values() if x.accuracy]
    return FoldsResult(
        folds=folds,
        num_clips=sum(x.num_clips for x in folds.values()),
        accuracy=_spread(accuracies) if accuracies else None,
        mean_average_precision=_spread(
            [x.mean_average_precision for x in folds.values()]
        ),
    )


def _spread(values: list[float]) -> Spread:
    return Spread(float(np.mean(values)), float(np.std(values, ddof=1)))
