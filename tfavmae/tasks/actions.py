"""Scores of a model with two heads: verbs, nouns and their pairs, the actions."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import keras
import numpy as np
from rich.table import Table

from tfavmae.errors import UserError
from tfavmae.tasks import metrics
from tfavmae.tasks.forward import Batch
from tfavmae.tasks.metrics import Estimate
from tfavmae.tasks.results import Result, averaged
from tfavmae.tasks.scores import Scores, score_clips


@dataclasses.dataclass
class PairScore:
    """Accuracies of `ActionResult` on some of its clips."""

    num_clips: int
    accuracy: dict[str, Estimate]
    top5_accuracy: dict[str, Estimate]


@dataclasses.dataclass
class ActionResult(Result):
    """Accuracy of two labels and of their pair on `num_clips` clips (EPIC-Kitchens).

    Args:
        modalities: modalities that each clip had, all or one of them.
        num_clips: clips evaluated.
        num_left_out: clips not evaluated because they lack what the model reads, or a
            label.
        num_views: views per clip that were averaged.
        accuracy: share of clips with the highest probability at their label, by label;
            `action` is the pair, whose probability is the product.
        top5_accuracy: share with their label among the five highest.
        subsets: the same of some clips only: by EPIC-Kitchens' flags, of participants
            that are not in the training split, or with a rare verb or noun.
        num_runs: runs that were averaged (`tfavmae ensemble`).
        mean: what was averaged, `logits` or `probabilities`.
    """

    modalities: tuple[str, ...]
    num_clips: int
    num_left_out: int
    num_views: float
    accuracy: dict[str, Estimate]
    top5_accuracy: dict[str, Estimate]
    subsets: dict[str, PairScore] = dataclasses.field(default_factory=dict)
    num_runs: int = 1
    mean: str = "probabilities"

    def table(self) -> Table:
        table = Table(
            "label",
            "accuracy",
            "top-5 accuracy",
            "n",
            title=f"classification from {' and '.join(self.modalities)}",
            caption=f"{self.num_clips} clips evaluated, {self.num_left_out} left out; "
            f"{averaged(self.num_views, self.num_runs, self.mean)}",
        )
        whole = PairScore(self.num_clips, self.accuracy, self.top5_accuracy)
        for subset, own in {"": whole, **self.subsets}.items():
            table.add_section()
            for name, accuracy in own.accuracy.items():
                title = f"{name}, {subset}" if subset else name
                top5 = str(own.top5_accuracy[name])
                table.add_row(title, str(accuracy), top5, str(own.num_clips))
        return table


def evaluate(
    model: keras.Model,
    batches: Iterable[Batch],
    *,
    labels: Sequence[str] = ("verb", "noun"),
    files: np.ndarray | None = None,
    flags: Mapping[str, np.ndarray] | None = None,
    mean: str = "probabilities",
) -> ActionResult:
    """Scores a classifier with two heads on every clip that has what it takes.

    Args:
        model: a classifier whose `logits` are a dict with `labels` as keys.
        batches: evaluation batches, with class numbers `(batch,)` of either label,
            negative for none.
        labels: names of the two labels.
        files: int, the file of each clip of the split, by `example_index`; see
            `classification.evaluate`.
        flags: dict of a subset's name to whether a clip of the split belongs to it,
            bool by `example_index`; a subset without clips is left out.
        mean: what is averaged over the views of a clip, see `scores.score_clips`.

    Raises:
        UserError: no clip can be evaluated, or the labels are not two.
    """
    _check_pair(labels)
    scores = score_clips(model, batches, labels, mean=mean)
    rows = scores.rows
    members = {name: flag[rows] for name, flag in (flags or {}).items()}
    scores = dataclasses.replace(scores, flags=members)
    return measure(scores, None if files is None else files[rows])


def measure(scores: Scores, files: np.ndarray | None = None) -> ActionResult:
    """Figures of the scores of two labels.

    Args:
        scores: of the clips; their flags name the subsets that are scored apart.
        files: int `(clips,)`, the file of each clip; see `classification.measure`.

    Raises:
        UserError: no clip can be evaluated, or the labels are not two.
    """
    _check_pair(scores.labels)
    usable = scores.usable()
    probabilities = {name: x[usable] for name, x in scores.probabilities.items()}
    targets = {name: x[usable] for name, x in scores.targets.items()}
    groups = None if files is None else files[usable]
    whole = _score(probabilities, targets, groups, np.ones(usable.sum(), bool))
    members = {name: flag[usable] for name, flag in scores.flags.items()}
    return ActionResult(
        modalities=scores.modalities,
        num_clips=int(usable.sum()),
        num_left_out=int((~usable).sum()),
        num_views=scores.num_views,
        accuracy=whole.accuracy,
        top5_accuracy=whole.top5_accuracy,
        subsets={
            name: _score(probabilities, targets, groups, clips)
            for name, clips in members.items()
            if clips.any()
        },
        num_runs=scores.num_runs,
        mean=scores.mean,
    )


def _check_pair(labels: Sequence[str]) -> None:
    if len(labels) != 2:
        raise UserError(f"a pair has two labels; received {', '.join(labels)}.")


def _score(
    scores: Mapping[str, np.ndarray],
    targets: Mapping[str, np.ndarray],
    groups: np.ndarray | None,
    clips: np.ndarray,
) -> PairScore:
    """Accuracies on some clips.

    Args:
        scores: dict of label to probabilities `(clips, classes)`.
        targets: dict of label to class numbers `(clips,)`.
        groups: int `(clips,)`, files of the clips; `None` to take each for its own.
        clips: bool `(clips,)`, those to score.
    """
    scores = {name: x[clips] for name, x in scores.items()}
    targets = {name: x[clips] for name, x in targets.items()}
    groups = None if groups is None else groups[clips]
    by_guesses: list[dict[str, Estimate]] = []
    for k in (1, 5):
        hits = {n: metrics.top_k_hits(x, targets[n], k) for n, x in scores.items()}
        pairs = [*scores.values()], [*targets.values()]
        hits["action"] = metrics.joint_top_k_hits(*pairs, k)
        by_guesses.append(
            {name: metrics.bootstrap(x, groups=groups) for name, x in hits.items()}
        )
    return PairScore(int(clips.sum()), *by_guesses)
