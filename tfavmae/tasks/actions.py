"""Scores of a model with two heads: verbs, nouns and their pairs, the actions."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import keras
import numpy as np
from rich.table import Table

from tfavmae.errors import UserError
from tfavmae.tasks import metrics
from tfavmae.tasks.classification import mean_probabilities
from tfavmae.tasks.forward import MODALITIES, Batch, clips_present, first_views, forward
from tfavmae.tasks.metrics import Estimate
from tfavmae.tasks.results import Result


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
        num_views: views per clip whose probabilities were averaged.
        accuracy: share of clips with the highest probability at their label, by label;
            `action` is the pair, whose probability is the product.
        top5_accuracy: share with their label among the five highest.
        subsets: the same of some clips only: by EPIC-Kitchens' flags, of participants
            that are not in the training split, or with a rare verb or noun.
    """

    modalities: tuple[str, ...]
    num_clips: int
    num_left_out: int
    num_views: float
    accuracy: dict[str, Estimate]
    top5_accuracy: dict[str, Estimate]
    subsets: dict[str, PairScore] = dataclasses.field(default_factory=dict)

    def table(self) -> Table:
        table = Table(
            "label",
            "accuracy",
            "top-5 accuracy",
            title=f"classification from {' and '.join(self.modalities)}",
            caption=f"{self.num_clips} clips evaluated, {self.num_left_out} left out; "
            f"{self.num_views:g} views a clip",
        )
        for name, accuracy in self.accuracy.items():
            table.add_row(name, str(accuracy), str(self.top5_accuracy[name]))
        for subset, own in self.subsets.items():
            table.add_section()
            for name, accuracy in own.accuracy.items():
                title = f"{name}, {subset} ({own.num_clips})"
                table.add_row(title, str(accuracy), str(own.top5_accuracy[name]))
        return table


def evaluate(
    model: keras.Model,
    batches: Iterable[Batch],
    *,
    labels: Sequence[str] = ("verb", "noun"),
    files: np.ndarray | None = None,
    flags: Mapping[str, np.ndarray] | None = None,
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

    Raises:
        UserError: no clip can be evaluated, or the labels are not two.
    """
    if len(labels) != 2:
        raise UserError(f"A pair has two labels; received {', '.join(labels)}.")
    present = [f"{m}_present" for m in MODALITIES]
    rows = forward(model, batches, ["logits"], ["example_index", *labels, *present])
    index = rows["example_index"]
    targets = {name: first_views(rows[name], index) for name in labels}
    usable = np.logical_and(*(x >= 0 for x in targets.values()))
    usable &= np.any([*clips_present(rows, model.modalities).values()], axis=0)
    if not usable.any():
        raise UserError(
            f"None of the {len(usable)} clips has {' or '.join(model.modalities)} and "
            f"{' and '.join(labels)}, so nothing can be evaluated; check the labels of "
            "the split."
        )
    scores = {
        name: mean_probabilities(rows[f"logits_{name}"], index, model.activation)[
            usable
        ]
        for name in labels
    }
    targets = {name: x[usable] for name, x in targets.items()}
    rows_of_split = np.unique(index)[usable]
    groups = None if files is None else files[rows_of_split]
    whole = _score(scores, targets, groups, np.ones(len(rows_of_split), bool))
    members = {name: flag[rows_of_split] for name, flag in (flags or {}).items()}
    return ActionResult(
        modalities=tuple(model.modalities),
        num_clips=int(usable.sum()),
        num_left_out=int((~usable).sum()),
        num_views=len(index) / len(usable),
        accuracy=whole.accuracy,
        top5_accuracy=whole.top5_accuracy,
        subsets={
            name: _score(scores, targets, groups, clips)
            for name, clips in members.items()
            if clips.any()
        },
    )


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
