"""Retrieval of clips by their captions, and of captions by clips."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import scipy.special
from rich.table import Table

from tfavmae.data.pipeline import ClipSplit
from tfavmae.data.text import captions_of
from tfavmae.errors import UserError
from tfavmae.tasks import metrics
from tfavmae.tasks.forward import MODALITIES, check_finite
from tfavmae.tasks.metrics import Ranks
from tfavmae.tasks.results import Result
from tfavmae.tasks.retrieval import Direction, search
from tfavmae.tasks.trained import Trained

_BLOCK = 1024
# As of `metrics.paired_ranks`.
_TIE_TOLERANCE = 1e-9


@dataclasses.dataclass
class TextRetrievalResult(Result):
    """Text-audio and text-video retrieval (MAViL, table 15).

    Every caption is a query; a clip is found by any of its captions, as is usual on
    AudioCaps and Clotho, whose clips have five.

    Args:
        num_clips: clips that have a caption.
        num_captions: their captions.
        num_left_out: clips without one.
        captions: the feature of the data set.
        directions: `text_to_audio`, `audio_to_text` and the same of video, of the
            modalities that the model reads.
        num_queries: queries of each direction: captions or clips of those clips that
            have the modality.
    """

    num_clips: int
    num_captions: int
    num_left_out: int
    captions: str
    directions: dict[str, Direction]
    num_queries: dict[str, int]

    def table(self) -> Table:
        ks = list(next(iter(self.directions.values())).recall)
        table = Table(
            "direction",
            "n",
            *[f"R@{k}" for k in ks],
            "median rank",
            title="retrieval by captions",
            caption=f"{self.num_captions} captions ({self.captions}) of "
            f"{self.num_clips} clips, {self.num_left_out} left out (no caption); 95 % "
            "intervals over clips",
        )
        for name, one in self.directions.items():
            cells = [str(one.recall[k]) for k in ks]
            count = str(self.num_queries[name])
            table.add_row(name.replace("_", " "), count, *cells, f"{one.median_rank:g}")
            chance = [f"{100 * one.chance[k]:.1f} %" for k in ks]
            table.add_row("chance", "", *chance, "", style="dim")
        return table


@dataclasses.dataclass(frozen=True)
class Captioned:
    """Embeddings of clips and of their captions.

    Args:
        feature: of the data set that holds the captions.
        rows: of the split, in rising order.
        texts: captions of these clips, one clip's after another's.
        owners: int `(texts,)`, the clip of each caption, a row of the split.
        text_vectors: float32 `(texts, dim)`.
        clips: by modality that the model reads, rows of the clips that have it, and
            their vectors, `(clips,)` and `(clips, dim)`; those without a caption, and
            modalities that no clip has, are left out.
    """

    feature: str
    rows: np.ndarray
    texts: list[str]
    owners: np.ndarray
    text_vectors: np.ndarray
    clips: dict[str, tuple[np.ndarray, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class CaptionSearch:
    """One search, by the caption of a clip or by the clip among all captions.

    Args:
        direction: such as `text_to_audio`.
        query: index of the caption, or row of the clip.
        results: rows of clips, or indices of captions, best first.
        similarities: cosine similarities of the results.
        is_right: of each result, whether clip and caption belong together.
    """

    direction: str
    query: int
    results: list[int]
    similarities: list[float]
    is_right: list[bool]


def embed(run: Trained, split: ClipSplit, rows: np.ndarray | None = None) -> Captioned:
    """Embeds the clips of a split and their captions.

    Args:
        run: fine-tuned on captions; its recipe names those to embed.
        split: clips with captions.
        rows: of the split; all by default.

    Raises:
        UserError: the model has no text encoder, the split has no such captions, or no
            clip has both a caption and a modality that the model reads.
    """
    feature = run.config.data.captions_to_search
    if feature is None:
        run.embed_text([])  # says that the model has no text
        raise UserError("data.captions must name the captions of the clips")
    rows = np.arange(split.num_examples) if rows is None else np.sort(rows)
    captions = captions_of(split, feature, rows)
    texts = [text for own in captions for text in own]
    owners = np.repeat(rows, [len(own) for own in captions])
    vectors = run.embed_split(split, indices=rows)
    index, clips = vectors["example_index"], {}
    for modality in (m for m in MODALITIES if f"{m}_embedding" in vectors):
        has = vectors[f"{modality}_present"] & np.isin(index, owners)
        if has.any():
            clips[modality] = index[has], vectors[f"{modality}_embedding"][has]
    if not clips:
        raise UserError(
            f"{split.info.data_dir}: no clip of {split.name} has {feature} and what the"
            " model reads"
        )
    return Captioned(feature, rows, texts, owners, run.embed_text(texts), clips)


def evaluate(found: Captioned, ks: Sequence[int] = (1, 5, 10)) -> TextRetrievalResult:
    """Recall of clips by captions, and of captions by clips, for each modality.

    Args:
        found: of `embed`.
        ks: lengths of the result lists.

    Raises:
        UserError: the embeddings are not finite.
    """
    directions: dict[str, Direction] = {}
    counts: dict[str, int] = {}
    for modality, (clips, vectors) in found.clips.items():
        usable = np.isin(found.owners, clips)
        own = np.searchsorted(clips, found.owners[usable])
        both = compare(found.text_vectors[usable], vectors, own, ks)
        names = f"text_to_{modality}", f"{modality}_to_text"
        directions |= dict(zip(names, both, strict=True))
        counts |= dict(zip(names, (int(usable.sum()), len(clips)), strict=True))
    num_clips = len(np.unique(found.owners))
    return TextRetrievalResult(
        num_clips=num_clips,
        num_captions=len(found.texts),
        num_left_out=len(found.rows) - num_clips,
        captions=found.feature,
        directions=directions,
        num_queries=counts,
    )


def examples(
    found: Captioned, *, num_queries: int = 3, top: int = 5, seed: int = 0
) -> list[CaptionSearch]:
    """Searches with captions and with clips that are drawn at random.

    Args:
        found: of `embed`.
        num_queries: of each direction.
        top: results of each.
        seed: of the draw.
    """
    rng, searches = np.random.default_rng(seed), []
    for modality, (clips, vectors) in found.clips.items():
        texts = np.flatnonzero(np.isin(found.owners, clips))
        for text in rng.permutation(texts)[:num_queries]:
            order, values = search(found.text_vectors[text], vectors, top)
            rows = clips[order]
            is_right = rows == found.owners[text]
            searches.append(
                CaptionSearch(
                    f"text_to_{modality}",
                    int(text),
                    rows.tolist(),
                    values.tolist(),
                    is_right.tolist(),
                )
            )
        for place in rng.permutation(len(clips))[:num_queries]:
            order, values = search(vectors[place], found.text_vectors[texts], top)
            is_right = found.owners[texts[order]] == clips[place]
            searches.append(
                CaptionSearch(
                    f"{modality}_to_text",
                    int(clips[place]),
                    texts[order].tolist(),
                    values.tolist(),
                    is_right.tolist(),
                )
            )
    return searches


def compare(
    texts: np.ndarray, clips: np.ndarray, owners: np.ndarray, ks: Sequence[int]
) -> tuple[Direction, Direction]:
    """Recall of clips by texts, and of texts by clips.

    Args:
        texts: `(texts, dim)`.
        clips: `(clips, dim)`, each with at least one text.
        owners: int `(texts,)` in rising order, the clip of each text.
        ks: lengths of the result lists.

    Raises:
        UserError: the embeddings are not finite.
    """
    check_finite(texts, "the text embeddings")
    check_finite(clips, "the embeddings of the clips")
    texts, clips = metrics.normalize(texts), metrics.normalize(clips)
    num_texts, num_clips = len(texts), len(clips)
    better, equal = [], []
    for start in range(0, num_texts, _BLOCK):
        similarity = texts[start : start + _BLOCK] @ clips.T  # (texts, clips)
        own = owners[start : start + _BLOCK]
        excess = similarity - similarity[np.arange(len(own)), own][:, None]
        better.append((excess > _TIE_TOLERANCE).sum(1))
        equal.append((np.abs(excess) <= _TIE_TOLERANCE).sum(1))
    by_text = Ranks(np.concatenate(better), np.concatenate(equal))
    better, equal = [], []
    for start in range(0, num_clips, _BLOCK):
        similarity = clips[start : start + _BLOCK] @ texts.T  # (clips, texts)
        is_own = np.arange(start, start + len(similarity))[:, None] == owners
        best = np.where(is_own, similarity, -np.inf).max(1)
        excess = np.where(is_own, -np.inf, similarity - best[:, None])
        better.append((excess > _TIE_TOLERANCE).sum(1))
        # Against the best of its own, which counts once.
        equal.append((np.abs(excess) <= _TIE_TOLERANCE).sum(1) + 1)
    by_clip = Ranks(np.concatenate(better), np.concatenate(equal))
    num_own = np.bincount(owners, minlength=num_clips)
    return (
        _direction(by_text, owners, {k: min(k, num_clips) / num_clips for k in ks}),
        _direction(by_clip, None, {k: _chance(num_texts, num_own, k) for k in ks}),
    )


def _direction(
    ranks: Ranks, groups: np.ndarray | None, chance: dict[int, float]
) -> Direction:
    recall = {k: metrics.bootstrap(ranks.hits(k), groups=groups) for k in chance}
    return Direction(recall, chance, ranks.median())


def _chance(num_texts: int, num_own: np.ndarray, k: int) -> float:
    """Mean probability that one of a clip's texts is among k of all at random."""
    others = num_texts - num_own
    # The share of draws without any of its own: C(others, k) / C(texts, k).
    logs = [
        scipy.special.gammaln(n + 1) - scipy.special.gammaln(np.maximum(n - k, 0) + 1)
        for n in (others, num_texts)
    ]
    missed = np.where(others >= k, np.exp(logs[0] - logs[1]), 0.0)
    return float(np.mean(1 - missed))
