"""Scores of a classifier: what it says of each clip, beside what is true."""

import dataclasses
import os
import zipfile
from collections.abc import Iterable, Mapping, Sequence

import keras
import numpy as np
import scipy.special

from tfavmae.data.splits import Split, files_of
from tfavmae.errors import UserError
from tfavmae.tasks.forward import (
    MODALITIES,
    Batch,
    clips_present,
    first_views,
    forward,
    mean_over_views,
)

# What is averaged over views of a clip, and over runs.
MEANS = ("logits", "probabilities")


@dataclasses.dataclass(frozen=True)
class Scores:
    """Answers of a classifier to the clips of a split, averaged over their views.

    The clips that cannot be evaluated are there too; see `usable`.

    Attributes:
        rows: int `(clips,)`, rows of the split, in rising order.
        ids: `(clips,)`, names of the clips; without a split their rows.
        logits: dict of label to float64 `(clips, classes)`, or `(clips, segments,
            classes)`: means over the views.
        probabilities: dict of label to the same shape: means of the views'
            probabilities, or the probabilities of `logits`, as `mean` says.
        targets: dict of label to class numbers `(clips,)` or `(clips, segments)`,
            negative for none, or 0/1 `(clips, classes)`.
        present: dict of modality to whether a clip has it, bool `(clips,)`.
        modalities: those that the model reads.
        activation: `softmax` or `sigmoid`.
        mean: what was averaged over views and runs, one of `MEANS`.
        num_views: views per clip.
        num_runs: runs that were averaged.
        complete: whether a clip must have all modalities to be evaluated; else any of
            them is enough.
        class_names: dict of label to the names of its classes, or `None`.
        flags: dict of a subset's name to whether a clip belongs to it, bool `(clips,)`.
    """

    rows: np.ndarray
    ids: np.ndarray
    logits: dict[str, np.ndarray]
    probabilities: dict[str, np.ndarray]
    targets: dict[str, np.ndarray]
    present: dict[str, np.ndarray]
    modalities: tuple[str, ...]
    activation: str
    mean: str = "probabilities"
    num_views: float = 1.0
    num_runs: int = 1
    complete: bool = False
    class_names: dict[str, list[str] | None] = dataclasses.field(default_factory=dict)
    flags: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the labels."""
        return tuple(self.targets)

    @property
    def readable(self) -> np.ndarray:
        """Whether a clip has what the model needs, bool `(clips,)`."""
        has = [self.present[m] for m in self.modalities]
        return np.all(has, axis=0) if self.complete else np.any(has, axis=0)

    @property
    def files(self) -> np.ndarray:
        """Number of each clip's file: see `data.splits.files_of`."""
        return files_of(self.ids.tolist())

    def usable(self) -> np.ndarray:
        """Whether a clip is readable and has its labels, bool `(clips,)`.

        Raises:
            UserError: none is.
        """
        found = self.readable
        for targets in self.targets.values():
            if targets.ndim == 1:
                found = found & (targets >= 0)
        if not found.any():
            has = (" and " if self.complete else " or ").join(self.modalities)
            one = f"a {self.labels[0]!r}"
            labels = one if len(self.labels) == 1 else " and ".join(self.labels)
            raise UserError(
                f"none of the {len(found)} clips has {has} and {labels}, so nothing "
                "can be evaluated; check the labels of the split."
            )
        return found

    def of_split(self, split: Split) -> "Scores":
        """These scores with the ids and the flags of their clips.

        A label `is_...` of a data set is a flag (EPIC-Kitchens).
        """
        flags = [name for name in split.label_features if name.startswith("is_")]
        return dataclasses.replace(
            self,
            ids=np.asarray(split.ids())[self.rows],
            flags={
                name.removeprefix("is_").replace("_", " "): split.labels(name)[
                    self.rows
                ]
                > 0
                for name in flags
            },
        )

    # --- Files ---

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Arrays without Python objects, for `numpy.savez`; see `read`."""
        facts = ("ids", "labels", "modalities", "activation", "mean")
        facts += ("num_views", "num_runs", "complete")
        arrays = {name: np.asarray(getattr(self, name)) for name in facts}
        for group in ("logits", "probabilities", "targets", "present", "flags"):
            for name, values in getattr(self, group).items():
                arrays[f"{group}/{name}"] = values
        for label, names in self.class_names.items():
            if names:
                arrays[f"class_names/{label}"] = np.asarray(names)
        return arrays

    @classmethod
    def read(cls, path: str | os.PathLike) -> "Scores":
        """Reads a file of `evaluate --save-scores`; it cannot hold code.

        Raises:
            UserError: there is no such file, or it holds something else.
        """
        try:
            with np.load(path, allow_pickle=False) as archive:
                return _from_arrays({name: archive[name] for name in archive.files})
        except FileNotFoundError:
            raise UserError(f"{path}: there is no such file") from None
        except (
            AttributeError,
            EOFError,
            KeyError,
            MemoryError,
            OSError,
            TypeError,
            ValueError,
            zipfile.BadZipFile,
        ) as error:
            raise UserError(
                f"{path}: holds no scores ({type(error).__name__}); write it with "
                "`tfavmae evaluate --save-scores`"
            ) from error


def _from_arrays(arrays: Mapping[str, np.ndarray]) -> Scores:
    """The inverse of `Scores.to_arrays`.

    Raises:
        ValueError: the arrays are not of the same clips.
        KeyError: one is missing.
    """
    labels = arrays["labels"].tolist()
    num_clips = len(arrays["ids"])

    def group(name: str, keys: Iterable[str]) -> dict[str, np.ndarray]:
        found = {key: arrays[f"{name}/{key}"] for key in keys}
        if any(len(values) != num_clips for values in found.values()):
            raise ValueError(f"`{name}` must have {num_clips} rows.")
        return found

    for label in labels:
        logits, targets = arrays[f"logits/{label}"], arrays[f"targets/{label}"]
        if logits.shape != arrays[f"probabilities/{label}"].shape:
            raise ValueError("`logits` and `probabilities` must be of one shape.")
        if targets.ndim < logits.ndim and targets.max(initial=0) >= logits.shape[-1]:
            raise ValueError("`targets` must be numbers of classes.")
    names = {x: arrays.get(f"class_names/{x}") for x in labels}
    flags = [x.removeprefix("flags/") for x in arrays if x.startswith("flags/")]
    return Scores(
        rows=np.arange(num_clips),
        ids=arrays["ids"].astype("U"),
        logits=group("logits", labels),
        probabilities=group("probabilities", labels),
        targets=group("targets", labels),
        present=group("present", MODALITIES),
        modalities=tuple(arrays["modalities"].tolist()),
        activation=str(arrays["activation"]),
        mean=str(arrays["mean"]),
        num_views=float(arrays["num_views"]),
        num_runs=int(arrays["num_runs"]),
        complete=bool(arrays["complete"]),
        class_names={x: None if n is None else n.tolist() for x, n in names.items()},
        flags=group("flags", flags),
    )


# --- Of a model ---


def score_clips(
    model: keras.Model,
    batches: Iterable[Batch],
    labels: Sequence[str] = ("label",),
    *,
    mean: str = "probabilities",
    classes: np.ndarray | None = None,
) -> Scores:
    """Asks a classifier about every clip.

    Args:
        model: a classifier with the output `logits`: `(batch, classes)`, `(batch,
            segments, classes)`, or of several labels a dict of these.
        batches: evaluation batches that hold the labels.
        labels: names of the label entries, one for each head.
        mean: `probabilities` averages those of the views, as CAV-MAE averages over ten
            frames; `logits` averages before the softmax or sigmoid, as AV-MAE does over
            four clips.
        classes: class numbers to which the model of one label is restricted, in their
            new order; `targets` stay as they are in the batch.

    Raises:
        UserError: the batches hold no clip.
    """
    keep = ["example_index", *labels, *[f"{m}_present" for m in MODALITIES]]
    rows = forward(model, batches, ["logits"], keep)
    index = rows["example_index"]
    logits, probabilities = {}, {}
    for label in labels:
        of_views = rows["logits" if len(labels) == 1 else f"logits_{label}"]
        if classes is not None:
            of_views = of_views[..., classes]
        logits[label] = mean_over_views(of_views, index)
        probabilities[label] = mean_probabilities(
            of_views, index, model.activation, mean
        )
    clips = np.unique(index)
    return Scores(
        rows=clips,
        ids=clips.astype("U"),
        logits=logits,
        probabilities=probabilities,
        targets={label: first_views(rows[label], index) for label in labels},
        present=clips_present(rows),
        modalities=tuple(model.modalities),
        activation=model.activation,
        mean=mean,
        num_views=len(index) / len(clips),
    )


def mean_probabilities(
    logits: np.ndarray,
    example_index: np.ndarray,
    activation: str,
    mean: str = "probabilities",
) -> np.ndarray:
    """Probabilities of each clip, averaged over its views: float64 `(clips, classes)`.

    Args:
        logits: `(views, ..., classes)`.
        example_index: int `(views,)`, the clip of each row.
        activation: `sigmoid` or `softmax`.
        mean: what is averaged, one of `MEANS`.
    """
    # In float64: confident float32 probabilities round to 1 and tie, and AP and AUC
    # depend on the order alone.
    logits = logits.astype("float64")
    if mean == "logits":
        return probabilities_of(mean_over_views(logits, example_index), activation)
    return mean_over_views(probabilities_of(logits, activation), example_index)


def probabilities_of(logits: np.ndarray, activation: str) -> np.ndarray:
    """Softmax over the last axis, or sigmoid."""
    if activation == "sigmoid":
        return scipy.special.expit(logits)
    return scipy.special.softmax(logits, axis=-1)
