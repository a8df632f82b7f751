"""Classes of a clip from those of the training clips nearest to it (k-NN).

Nothing is trained: the figures say what the embeddings of a frozen model know.
"""

import dataclasses

import numpy as np

from tfavmae.data.pipeline import ClipSplit, naming_damage
from tfavmae.errors import UserError
from tfavmae.tasks import embedding
from tfavmae.tasks.scores import Scores
from tfavmae.tasks.trained import Trained

# A neighbour's vote is `exp(cosine / TEMPERATURE)`, as in DINO (Caron et al., 2021).
TEMPERATURE = 0.07
_BLOCK = 1024  # clips compared at once


@dataclasses.dataclass(frozen=True)
class Vectors:
    """Clips of a split as vectors whose products are sums of cosines.

    Attributes:
        rows: int `(clips,)`, of the split.
        ids: `(clips,)`.
        values: float32 `(clips, dim)`: the unit embeddings of all modalities, zeros for
            one that a clip lacks.
        present: dict of modality to bool `(clips,)`.
        targets: class numbers `(clips,)`, negative for none, or 0/1 `(clips, classes)`.
    """

    rows: np.ndarray
    ids: np.ndarray
    values: np.ndarray
    present: dict[str, np.ndarray]
    targets: np.ndarray

    @property
    def can_vote(self) -> np.ndarray:
        """Whether a clip has an embedding and a class, bool `(clips,)`."""
        found = np.asarray(self.values.any(axis=1))
        return found & (self.targets >= 0) if self.targets.ndim == 1 else found


def scores_of(
    run: Trained,
    split: ClipSplit,
    num_neighbours: int,
    *,
    num_views: int = 1,
    only: str | None = None,
) -> Scores:
    """Classifies the clips of a split by the votes of their nearest training clips.

    Similarity is the sum of the cosines of the modalities' embeddings; one that a clip
    lacks adds nothing. A clip is no neighbour of itself.

    Args:
        run: any model with embeddings; `data.label` of its config names the label, and
            `data.train_split` the clips that vote.
        split: clips to classify.
        num_neighbours: that vote.
        num_views: frames and windows of a clip whose embeddings are averaged.
        only: the one modality to compare.

    Raises:
        UserError: there is not one label of the whole clip, or fewer training clips
            with it than neighbours.
    """
    labels = run.config.data.labels
    if len(labels) != 1 or split.num_segments(labels[0]):
        raise UserError("--knn needs one label of a clip: --set data.label=NAME.")
    voters = run.open_split(run.config.data.train_split)
    modalities = (only,) if only else tuple(run.run.model.modalities)
    bank = _vectors(run, voters, modalities, num_views)
    asked = _vectors(run, split, modalities, num_views)
    chosen = bank.can_vote
    if chosen.sum() <= num_neighbours:
        raise UserError(
            f"{voters!r} has {chosen.sum()} clips that can vote; --knn must be less "
            f"than that, and is {num_neighbours}."
        )
    votes, values = bank.targets[chosen], bank.values[chosen]
    is_one = votes.ndim == 1
    if is_one:
        votes = np.eye(split.num_classes(labels[0]), dtype="float32")[votes]
    blocks = []
    for i in range(0, len(asked.rows), _BLOCK):
        similarity = asked.values[i : i + _BLOCK] @ values.T
        itself = asked.ids[i : i + _BLOCK, None] == bank.ids[chosen]
        blocks.append(
            _voted(np.where(itself, -np.inf, similarity), votes, num_neighbours)
        )
    probabilities = np.concatenate(blocks)
    names = split.label_names(labels[0])
    scores = Scores(
        rows=asked.rows,
        ids=asked.ids,
        # Of the votes; a class without one has none.
        logits={labels[0]: np.log(probabilities + 1e-12)},
        probabilities={labels[0]: probabilities},
        targets={labels[0]: asked.targets},
        present=asked.present,
        modalities=modalities,
        activation="softmax" if is_one else "sigmoid",
        num_views=num_views,
        class_names={labels[0]: list(names) if names else None},
    )
    return scores.of_split(split)


def _vectors(
    run: Trained, split: ClipSplit, modalities: tuple[str, ...], num_views: int
) -> Vectors:
    batches = run.batches(split, num_views=num_views)
    with naming_damage():
        found = embedding.embed(run.run.model, batches)
    parts = []
    for m in modalities:
        values = np.nan_to_num(found[f"{m}_embedding"])
        norms = np.linalg.norm(values, axis=1, keepdims=True)
        parts.append(values / np.maximum(norms, 1e-12))
    rows, (label,) = found["example_index"], run.config.data.labels
    return Vectors(
        rows=rows,
        ids=np.asarray(split.ids())[rows],
        values=np.concatenate(parts, axis=1),
        present={m: found[f"{m}_present"] for m in modalities},
        targets=split.labels(label)[rows],
    )


def _voted(
    similarity: np.ndarray, votes: np.ndarray, num_neighbours: int
) -> np.ndarray:
    """Weighted means of the votes of the nearest.

    Args:
        similarity: `(clips, voters)`.
        votes: 0/1 `(voters, classes)`.
        num_neighbours: fewer than voters.

    Returns:
        float64 `(clips, classes)`, in [0, 1].
    """
    nearest = np.argpartition(-similarity, num_neighbours, axis=1)[:, :num_neighbours]
    cosines = np.take_along_axis(similarity, nearest, axis=1).astype("float64")
    weights = np.exp((cosines - cosines.max(axis=1, keepdims=True)) / TEMPERATURE)
    weights /= weights.sum(axis=1, keepdims=True)
    return np.einsum("ij,ijk->ik", weights, votes[nearest])
