"""Retrieval across modalities: video by audio and audio by video."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from rich.table import Table

from tfavmae.errors import UserError
from tfavmae.tasks import metrics
from tfavmae.tasks.forward import MODALITIES, check_finite
from tfavmae.tasks.metrics import Estimate
from tfavmae.tasks.results import Result, clips_of_files

DIRECTIONS = {
    "audio_to_video": ("audio", "video"),
    "video_to_audio": ("video", "audio"),
}

# Name of a label: the clip is not in the gallery and counts as a query that failed, as
# test clips without audio do in the audio protocol of MSR-VTT.
COUNTS_AS_MISS = "counts_as_miss"


@dataclasses.dataclass
class Direction:
    """Scores of one direction: recall at each k, chance level of each, median rank."""

    recall: dict[int, Estimate]
    chance: dict[int, float]
    median_rank: float


@dataclasses.dataclass
class RetrievalResult(Result):
    """Retrieval in both directions in a gallery of `num_clips` pairs.

    Args:
        num_clips: size of the gallery and number of queries.
        num_left_out: clips that lack a modality and are not used.
        ties: convention for ties, see `metrics.recall_at_k`.
        directions: `audio_to_video` and `video_to_audio`.
        num_misses: further queries that count as failed, see `COUNTS_AS_MISS`.
        num_files: files that the queries were cut from, over which the intervals are
            drawn; `None` if that was not asked for.
    """

    num_clips: int
    num_left_out: int
    ties: str
    directions: dict[str, Direction]
    num_misses: int = 0
    num_files: int | None = None

    def table(self) -> Table:
        ks = list(next(iter(self.directions.values())).recall)
        clips = clips_of_files(self.num_clips, self.num_files)
        caption = f"{clips} evaluated, {self.num_left_out} left out"
        if self.num_misses:
            caption = f"{self.num_misses} counted as misses, {caption}"
        table = Table(
            "direction",
            *[f"R@{k}" for k in ks],
            "median rank",
            title="retrieval",
            caption=f"{caption} (a modality is missing); 95 % intervals over "
            f"{'queries' if clips == f'{self.num_clips} clips' else 'files'}",
        )
        for name, one in self.directions.items():
            cells = [str(one.recall[k]) for k in ks]
            table.add_row(name.replace("_", " "), *cells, f"{one.median_rank:g}")
        chance = [f"{100 * one.chance[k]:.1f} %" for k in ks]
        # Chance is the same in both directions: the last one's stands for both.
        table.add_row("chance", *chance, f"{(self.num_clips + 1) / 2:g}")
        return table


@dataclasses.dataclass
class RetrievalExample:
    """One query and its first results.

    Args:
        direction: `"audio_to_video"` or `"video_to_audio"`.
        query: `example_index` of the query clip.
        results: `example_index` of the results, best first.
        similarities: cosine similarities of the results.
        rank: rank of the paired clip, 1 being the best.
    """

    direction: str
    query: int
    results: list[int]
    similarities: list[float]
    rank: int


def evaluate(
    embeddings: dict[str, np.ndarray],
    ks: Sequence[int] = (1, 5, 10),
    *,
    ties: str = "expected",
    num_resamples: int = 1000,
    files: np.ndarray | None = None,
    progress: metrics.Progress | None = None,
) -> RetrievalResult:
    """Recall and median rank in both directions over the clips with both modalities.

    Args:
        embeddings: from `embedding.embed`; with the label `counts_as_miss` if the data
            set has it.
        ks: lengths of the result lists.
        ties: see `metrics.recall_at_k`.
        num_resamples: bootstrap resamples of the queries (the gallery stays).
        files: int, the file of each clip of the split, by `example_index`
            (`Split.files`); whole files are resampled then.
        progress: see `metrics.ranks_both_ways`.

    Raises:
        UserError: see `paired`.
    """
    pairs, misses = paired(embeddings), _misses(embeddings)
    num_clips, num_misses = len(pairs["example_index"]), int(misses.sum())
    groups = None
    if files is not None:
        missed = embeddings["example_index"][misses]
        groups = files[np.concatenate([pairs["example_index"], missed])]
    directions = {}
    both = metrics.ranks_both_ways(pairs["audio"], pairs["video"], progress=progress)
    for name, ranks in zip(DIRECTIONS, both, strict=True):
        ranks = ranks.with_misses(num_misses)
        of_hits = groups
        if groups is not None and ties == "repeated":  # a hit for each tie
            of_hits = np.repeat(groups, ranks.num_equal)
        recall = {
            k: metrics.bootstrap(
                ranks.hits(k, ties), groups=of_hits, num_resamples=num_resamples
            )
            for k in ks
        }
        chance = {k: min(k, num_clips) / (num_clips + num_misses) for k in ks}
        directions[name] = Direction(recall, chance, ranks.median(ties))
    left_out = len(embeddings["example_index"]) - num_clips - num_misses
    num_files = None if groups is None else len(np.unique(groups))
    return RetrievalResult(num_clips, left_out, ties, directions, num_misses, num_files)


def _misses(embeddings):
    index = embeddings["example_index"]
    return embeddings.get(COUNTS_AS_MISS, np.zeros(len(index), bool)).astype(bool)


def examples(
    embeddings: dict[str, np.ndarray],
    *,
    num_queries: int = 4,
    top: int = 5,
    seed: int = 0,
) -> list[RetrievalExample]:
    """Example queries in both directions: half of them succeed, half of them fail.

    Within each half they are drawn at random; where there are too few of one kind, the
    other fills up. How often each kind occurs is `evaluate`'s to say.

    Args:
        embeddings: from `embedding.embed`.
        num_queries: queries per direction.
        top: results per query; a query succeeds if its own clip is among them.
        seed: seed of the draw.

    Raises:
        UserError: see `paired`.
    """
    pairs = paired(embeddings)
    index = pairs["example_index"]
    rng = np.random.default_rng(seed)
    drawn = rng.permutation(len(index))
    found = []
    both = metrics.ranks_both_ways(pairs["audio"], pairs["video"])
    for (direction, (query, target)), way in zip(DIRECTIONS.items(), both, strict=True):
        ranks = way.num_better + 1
        hits, misses = drawn[ranks[drawn] <= top], drawn[ranks[drawn] > top]
        num_misses = min(num_queries // 2, len(misses))
        hits = hits[: num_queries - num_misses]
        for row in (*hits, *misses[: num_queries - len(hits)]):
            order, similarity = search(pairs[query][row], pairs[target], top)
            rank = int(ranks[row])
            results = [int(i) for i in index[order]]
            found.append(
                RetrievalExample(
                    direction, int(index[row]), results, similarity.tolist(), rank
                )
            )
    return found


def search(
    query: np.ndarray, gallery: np.ndarray, top: int = 5
) -> tuple[np.ndarray, np.ndarray]:
    """Finds the rows of a gallery that are most similar to a query.

    Args:
        query: `(hidden_dim,)`.
        gallery: `(clips, hidden_dim)`.
        top: number of rows.

    Returns:
        Row numbers and cosine similarities, best first.
    """
    similarity = metrics.normalize(gallery) @ metrics.normalize(query)
    order = np.argsort(-similarity, kind="stable")[:top]
    return order, similarity[order]


def paired(embeddings: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Embeddings of the clips that have both modalities and do not count as misses.

    Args:
        embeddings: from `embedding.embed`.

    Returns:
        `audio` and `video` `(pairs, hidden_dim)`, and `example_index` `(pairs,)`.

    Raises:
        UserError: there is no such clip, a modality has no embeddings, or they are not
            finite.
    """
    _check_has_both(embeddings)
    both = embeddings["audio_present"] & embeddings["video_present"]
    both &= ~_misses(embeddings)
    if not both.any():
        raise UserError(
            f"none of the {len(both)} clips has both audio and video, which retrieval "
            "compares; use another split."
        )
    # In the order of the split, whatever that of the rows: no figure depends on it.
    rows = np.flatnonzero(both)
    rows = rows[np.argsort(embeddings["example_index"][rows], kind="stable")]
    chosen = {m: _embeddings_of(embeddings, m, rows) for m in MODALITIES}
    return chosen | {"example_index": embeddings["example_index"][rows]}


def gallery(
    embeddings: dict[str, np.ndarray], modality: str
) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings of all clips that have a modality, whether or not they have the other.

    Args:
        embeddings: from `embedding.embed`.
        modality: to search in.

    Returns:
        `(clips, hidden_dim)`, and the `example_index` `(clips,)`.

    Raises:
        UserError: there is no such clip, there are no embeddings of the modality, or
            they are not finite.
    """
    _check_has_both(embeddings)
    present = embeddings[f"{modality}_present"]
    if not present.any():
        raise UserError(
            f"none of the {len(present)} clips to search has {modality}; use another "
            "split, or search --by it."
        )
    values = _embeddings_of(embeddings, modality, present)
    return values, embeddings["example_index"][present]


def _check_has_both(embeddings: dict[str, np.ndarray]) -> None:
    missing = [m for m in MODALITIES if f"{m}_embedding" not in embeddings]
    if missing:
        raise UserError(
            f"retrieval needs embeddings of both modalities, {missing[0]} is absent; "
            "use a model that was pretrained on both."
        )


def _embeddings_of(
    embeddings: dict[str, np.ndarray], modality: str, rows: np.ndarray
) -> np.ndarray:
    """The embeddings of a modality at some rows, which must be finite."""
    values = embeddings[f"{modality}_embedding"][rows]
    check_finite(values, f"the {modality} embeddings")
    return values
