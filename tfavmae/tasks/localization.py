"""Sound-source localization, measured: heat maps against known positions.

By the consensus intersection over union of Senocak et al., "Learning to Localize Sound
Source in Visual Scenes", CVPR 2018.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from rich.table import Table

from tfavmae.data.pipeline import ClipSplit
from tfavmae.errors import UserError
from tfavmae.tasks import metrics
from tfavmae.tasks.heat_maps import (
    check_localizes,
    common_audio,
    heat_maps,
    shown,
    upsampled,
)
from tfavmae.tasks.metrics import Estimate
from tfavmae.tasks.results import Result
from tfavmae.tasks.trained import Trained
from tfavmae.training import factory
from tfavmae_datasets.sounding_shapes import regions

# Which part of a map counts as the source. Senocak et al. threshold at a half of the
# range; Chen et al., "Localizing Visual Sounds the Hard Way", CVPR 2021, whose code
# later work shares, at the median.
RULES = ("range", "median")
SUCCESS = 0.5
# Overlaps at which the rate of success is taken for the area under its curve.
_OVERLAPS = np.linspace(0, 1, 21)
_WORDS = {
    "map": "map",
    "relative": "relative map",
    "range": "above half of its range",
    "median": "its upper half",
}


def is_source(heat: np.ndarray, rule: str) -> np.ndarray:
    """Pixels that a map calls the source.

    Args:
        heat: float `(..., height, width)`.
        rule: `range`, above the middle between the map's smallest and largest value;
            `median`, its upper half.

    Returns:
        bool, of the same shape.
    """
    axes = (-2, -1)
    if rule == "median":
        return heat > np.median(heat, axis=axes, keepdims=True)
    low, high = (f(heat, axis=axes, keepdims=True) for f in (np.min, np.max))
    return heat > (low + high) / 2


def consensus_iou(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Consensus intersection over union, Senocak et al.'s measure.

    Args:
        predicted: bool `(clips, height, width)`.
        truth: float in [0, 1] of the same shape: the share of the annotations (here,
            of the frames of a time step) that call a pixel the source.

    Returns:
        `(clips,)`: the sum of `truth` over predicted pixels, over that of all pixels
        and the number of predicted pixels that no annotation has.
    """
    hit = (truth * predicted).sum((1, 2))
    wrong = (predicted & (truth == 0)).sum((1, 2))
    return hit / np.maximum(truth.sum((1, 2)) + wrong, 1e-12)


def centre_box(height: int, width: int, side: float) -> np.ndarray:
    """bool `(height, width)`, True in a box of `side` of the frame in its middle."""
    y, x = (np.abs((np.arange(n) + 0.5) / n - 0.5) <= side / 2 for n in (height, width))
    return y[:, None] & x


@dataclasses.dataclass
class Localization:
    """Scores of one way to predict the source.

    Attributes:
        success: share of the clips with a consensus IoU of 0.5 or more (cIoU@0.5).
        auc: area under the share of clips with an overlap of at least t, over t from 0
            to 1 in steps of 0.05.
    """

    success: Estimate
    auc: Estimate


@dataclasses.dataclass
class LocalizationResult(Result):
    """Localization against known positions, of one frame of each clip.

    Attributes:
        num_clips: clips with both modalities, each counted once.
        num_left_out: clips that lack a modality.
        predictions: scores by prediction: of the map (CAV-MAE, appendix I) and of the
            relative map (`heat_maps`) by each of `RULES`, such as `map_range`; of
            `centre_box`, which sees nothing.
        centre_side: side of that box, as a share of the frame: of all sides the one
            with the highest cIoU@0.5 on these very clips.
        area: mean share of the frame that the sources take.
    """

    num_clips: int
    num_left_out: int
    predictions: dict[str, Localization]
    centre_side: float
    area: float

    def table(self) -> Table:
        table = Table(
            "prediction",
            "cIoU@0.5",
            "AUC",
            title="localization of the sound source",
            caption=f"{self.num_clips} clips evaluated, {self.num_left_out} left out "
            "(a modality is missing); sources take "
            f"{100 * self.area:.0f} % of the frame; 95 % intervals over clips",
        )
        for name, one in self.predictions.items():
            if name == "centre_box":
                words = f"box in the centre, {100 * self.centre_side:.0f} % wide"
            else:
                words = ", ".join(_WORDS[part] for part in name.split("_"))
            table.add_row(words, str(one.success), str(one.auc))
        return table


def score(
    maps: Mapping[str, np.ndarray], truth: np.ndarray, num_left_out: int = 0
) -> LocalizationResult:
    """Figures of maps, and of the best box in the middle of the frame.

    Args:
        maps: dict of kind to float `(clips, height, width)`.
        truth: as of `consensus_iou`.
        num_left_out: clips that could not be asked about.
    """
    overlaps = {
        f"{kind}_{rule}": consensus_iou(is_source(heat, rule), truth)
        for kind, heat in maps.items()
        for rule in RULES
    }
    sides = np.linspace(0.05, 1.0, 20)
    height, width = truth.shape[1:]
    centred = [centre_box(height, width, float(side)) for side in sides]
    boxes = [consensus_iou(np.broadcast_to(x, truth.shape), truth) for x in centred]
    best = max(
        range(len(sides)), key=lambda i: ((boxes[i] >= SUCCESS).mean(), boxes[i].mean())
    )
    overlaps["centre_box"] = boxes[best]
    return LocalizationResult(
        num_clips=len(truth),
        num_left_out=num_left_out,
        predictions={name: _scores(x) for name, x in overlaps.items()},
        centre_side=float(sides[best]),
        area=float(truth.mean()),
    )


def _scores(overlaps: np.ndarray) -> Localization:
    curve = overlaps[:, None] >= _OVERLAPS  # (clips, thresholds)
    return Localization(
        metrics.bootstrap((overlaps >= SUCCESS).astype("float64")),
        metrics.bootstrap(np.trapezoid(curve.astype("float64"), _OVERLAPS, axis=1)),
    )


def measure(run: Trained, split: ClipSplit) -> LocalizationResult:
    """Compares maps with the known positions of a split of SoundingShapes.

    Each clip counts once, at the time step of the map in the middle of its window.

    Args:
        run: see `check_localizes`.
        split: clips whose sources are known.

    Raises:
        UserError: the model has no maps, or the positions are not known.
    """
    check_localizes(run)
    found = measured_maps(run, split)
    left_out = split.num_examples - len(found["example_index"])
    maps = {kind: found[kind] for kind in ("map", "relative")}
    return score(maps, found["truth"], left_out)


def measured_maps(
    run: Trained, split: ClipSplit, indices: Sequence[int] | np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """What `measure` compares.

    Args:
        run, split: see `measure`.
        indices: rows of the split; all by default.

    Returns:
        `example_index` int32 and `score` float32 `(clips,)`; `shown_frame` int
        `(clips,)`, the first of the batch's frames that the map is of; `map`,
        `relative` and `truth`, float32 `(clips, height, width)`.
    """
    boxes_of = _known_boxes(split)
    maps = heat_maps(run, split, indices=indices, common=common_audio(run, split))
    video = run.run.model.inputs_by_modality["video"]
    step = maps["video_map"].shape[1] // 2
    spec = factory.clip_spec(run.config.data, run.config.model, train=False)
    truths = []
    for row in maps["example_index"]:
        seen = shown(split, int(row), spec)
        numbers = seen.steps(video.tubelet_size[0])[0, step]
        boxes = boxes_of(int(row))[numbers]
        covered = [_covered(b, seen.part, spec.frame_size) for b in boxes]
        truths.append(np.mean(covered, axis=0))
    first = step * video.tubelet_size[0]
    return {
        "example_index": maps["example_index"],
        "score": maps["score"],
        "shown_frame": np.full(len(truths), first),
        "map": upsampled(maps["video_map"][:, step], video),
        "relative": upsampled(maps["relative_map"][:, step], video),
        "truth": np.array(truths, "float32"),
    }


def _known_boxes(split: ClipSplit) -> Callable[[int], np.ndarray]:
    """A function from a row to the boxes of its sources in each stored frame."""
    metadata, ids = split.metadata, split.ids()
    if split.info.name != "sounding_shapes" or "settings" not in metadata:
        raise UserError(
            f"{split.info.full_name}: does not say where its sound sources are; "
            "measure on sounding_shapes, or name media files to draw maps of."
        )
    return lambda row: regions.boxes(metadata["settings"], metadata["seed"], ids[row])


def _covered(
    boxes: np.ndarray, part: Sequence[float], frame_size: Sequence[int]
) -> np.ndarray:
    """bool `(height, width)`: pixels of the shown part that lie in one of the boxes.

    Args:
        boxes: `(sources, 4)`, left, top, right and bottom as shares of the frame.
        part: see `Shown`.
        frame_size: height and width in pixels.
    """
    top, left, height, width = part
    y = top + height * (np.arange(frame_size[0]) + 0.5) / frame_size[0]
    x = left + width * (np.arange(frame_size[1]) + 0.5) / frame_size[1]
    inside = [
        ((b[1] <= y) & (y <= b[3]))[:, None] & (b[0] <= x) & (x <= b[2]) for b in boxes
    ]
    return np.any(inside, axis=0)
