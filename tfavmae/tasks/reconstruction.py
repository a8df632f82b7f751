"""Reconstruction under any mask, and its error by strategy and ratio.

Figures 5 and 9 to 13 of CAV-MAE: what a trained model makes of masks that it was not
trained with. Masks here are independent of those of training.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from rich.table import Table

from tfavmae.data.pipeline import ClipSplit, naming_damage
from tfavmae.errors import UserError, did_you_mean, shown
from tfavmae.layers.masking import TokenMasking
from tfavmae.models.composition import check_reconstructs
from tfavmae.tasks import metrics
from tfavmae.tasks.forward import MODALITIES, Batch, forward
from tfavmae.tasks.metrics import Estimate
from tfavmae.tasks.results import Result
from tfavmae.tasks.trained import Trained

# Of each strategy, how audio is masked, video of several time steps, and a single
# frame. CAV-MAE's structured masks are those of the spectrogram (figure 3): a picture
# beside it stays at random. `chunk` is ours: one gap.
STRATEGIES = {
    "uniform": ("random", "random", "random"),
    "time": ("time", "time", "random"),
    "frequency": ("frequency", "random", "random"),
    "time_frequency": ("time_frequency", "random", "random"),
    "space": ("random", "space", "random"),
    "space_time": ("random", "space_time", "random"),
    "chunk": ("chunk", "chunk", "chunk"),
}
ALIASES = {"random": "uniform", "freq": "frequency", "tf": "time_frequency"}

Progress = Callable[[str, int, int], None]


def strategy_of(name: str) -> str:
    """The strategy of a name or of a short form of it.

    Raises:
        UserError: there is none.
    """
    found = ALIASES.get(name, name)
    if found not in STRATEGIES:
        known = [*STRATEGIES, *ALIASES]
        raise UserError(f"no mask {shown(name)}; {did_you_mean(name, known)}")
    return found


@dataclasses.dataclass(frozen=True)
class Masks:
    """What is hidden of a clip.

    Args:
        strategy: one of `STRATEGIES`.
        ratios: dict of modality to the share of its tokens that is removed, in [0, 1].
            1 removes all: the modality is predicted from the other one alone.
        seed: of the masks; the same clip has the same one.
    """

    strategy: str
    ratios: Mapping[str, float]
    seed: int = 0

    @classmethod
    def of_training(cls, model: keras.Model, strategy: str = "uniform") -> "Masks":
        """Masks with the ratios of a model's training."""
        ratios = {m: model.masking(m).ratio for m in model.modalities}
        if model.joint_ratio is not None:
            ratios = dict.fromkeys(model.modalities, model.joint_ratio)
        return cls(strategy, ratios)

    @property
    def name(self) -> str:
        """In words: `time, audio 0.7, video 0.7`."""
        parts = [f"{m} {ratio:g}" for m, ratio in self.ratios.items()]
        return ", ".join([self.strategy.replace("_", "-"), *parts])

    def maskings(
        self, model: keras.Model, modalities: Sequence[str] | None = None
    ) -> dict[str, TokenMasking | None]:
        """Dict of modality to its masking, `None` where all is removed.

        Args:
            model: a pretrained model.
            modalities: those of the clips; by default all that the model reads.

        Raises:
            UserError: the model does not predict patches, or not under such a mask.
        """
        if not hasattr(model, "reconstruct"):
            raise UserError(
                "reconstruction needs a model from `tfavmae pretrain`; this one was "
                "fine-tuned and has no decoder"
            )
        try:
            found = {m: self._masking(model, m) for m in modalities or model.modalities}
            kept = {m: 0 if x is None else x.num_kept for m, x in found.items()}
            check_reconstructs(model, kept)
        except ValueError as error:
            raise UserError(f"{self.name}: {error}") from error
        return found

    def _masking(self, model: keras.Model, modality: str) -> TokenMasking | None:
        if self.ratios[modality] >= 1:
            return None
        strategy = self._strategy(model, modality)
        return TokenMasking(
            model.inputs_by_modality[modality].grid,
            self.ratios[modality],
            # The noise of a chunk puts its tokens last by itself.
            "random" if strategy == "chunk" else strategy,
            count_rule=model.masking(modality).count_rule,
        )

    def _strategy(self, model: keras.Model, modality: str) -> str:
        audio, film, picture = STRATEGIES[self.strategy]
        if modality == "audio":
            return audio
        return film if model.inputs_by_modality["video"].grid[0] > 1 else picture

    def noise(self, model: keras.Model, example_index: Any) -> dict[str, np.ndarray]:
        """Noise that decides what is removed, `{modality}_noise` `(clips, tokens)`.

        Args:
            model: whose tokens are masked.
            example_index: int `(clips,)`; each clip has a mask of its own.
        """
        found = {}
        for number, m in enumerate(model.modalities):
            grid = model.inputs_by_modality[m].grid
            draws = [
                np.random.default_rng([self.seed, number, max(int(index), 0)])
                for index in np.asarray(example_index)
            ]
            if self._strategy(model, m) == "chunk":
                noise = [_chunk_noise(rng, grid, self.ratios[m]) for rng in draws]
            else:
                noise = [rng.random(int(np.prod(grid)), "float32") for rng in draws]
            found[f"{m}_noise"] = np.stack(noise)
        return found

    def reconstruct(self, model: keras.Model, batch: Batch) -> dict[str, Any]:
        """Outputs of `MaskedAutoencoder.reconstruct` for clips under these masks.

        Args:
            model: a pretrained model.
            batch: of the pipeline.

        Raises:
            UserError: the model does not predict patches, or not under such a mask.
        """
        given = [m for m in model.modalities if batch.get(m) is not None]
        noise = self.noise(model, batch["example_index"])
        return model.reconstruct({**batch, **noise}, self.maskings(model, given))


def _chunk_noise(
    rng: np.random.Generator, grid: Sequence[int], ratio: float
) -> np.ndarray:
    """Noise `(tokens,)` whose largest values lie side by side.

    Of several time steps the chunk is a stretch of time from a random step on; of a
    single frame it is the surroundings of a random place.
    """
    axes = np.meshgrid(*[np.arange(n) for n in grid], indexing="ij")
    if grid[0] > 1:
        length = min(int(np.ceil(ratio * grid[0])), grid[0])
        start = rng.integers(grid[0] - length + 1)
        distance = (axes[0] - start) % grid[0] / grid[0]
    else:
        places = [
            (x - rng.integers(n)) / max(grid) for x, n in zip(axes, grid, strict=True)
        ]
        distance = np.max(np.abs(places), axis=0)
    # Ties, as of all bands of a time, are broken by the index.
    return (1 - distance.ravel() / (distance.max() + 1)).astype("float32")


# --- Errors ---


def clip_errors(model: keras.Model, outputs: Mapping[str, Any]) -> dict[str, Any]:
    """Mean squared error of each clip's masked patches (CAV-MAE, equation 9).

    Args:
        model: that made the outputs.
        outputs: of `MaskedAutoencoder.reconstruct`.

    Returns:
        Dict of modality to float32 `(clips,)`, in the units of the target: normalised
        patches where the model predicts such, else the normalised spectrogram and
        pixels. NaN where nothing is masked.
    """
    found, pairs = {}, getattr(model, "num_pairs", 1)
    for m in model.modalities:
        if f"{m}_prediction" not in outputs:
            continue
        difference = outputs[f"{m}_prediction"] - outputs[f"{m}_target"]
        errors = tf.reduce_mean(tf.square(difference), -1)  # (clips, tokens)
        masked = tf.cast(outputs[f"{m}_is_masked"], "float32")
        each = tf.reduce_sum(errors * masked, 1) / tf.reduce_sum(masked, 1)
        found[m] = tf.reduce_mean(tf.reshape(each, [-1, pairs]), 1)
    return found


@dataclasses.dataclass
class MaskError:
    """The error under one kind of mask.

    Attributes:
        strategy: one of `STRATEGIES`.
        ratios: dict of modality to the share that is removed.
        errors: dict of modality to the mean over clips, with its 95 % interval.
    """

    strategy: str
    ratios: dict[str, float]
    errors: dict[str, Estimate]


@dataclasses.dataclass
class ReconstructionResult(Result):
    """Errors by strategy and ratio.

    Attributes:
        num_clips: clips with all that the model reads.
        num_left_out: clips that lack a modality.
        is_normalized: whether the model predicts patches of mean 0 and variance 1.
        masks: one for each strategy and ratio.
    """

    num_clips: int
    num_left_out: int
    is_normalized: bool
    masks: list[MaskError]

    @property
    def modalities(self) -> list[str]:
        """Those that are predicted."""
        found = {m for one in self.masks for m in one.errors}
        return [m for m in MODALITIES if m in found]

    def table(self) -> Table:
        table = Table(
            "mask",
            *[f"{m} removed" for m in MODALITIES if m in self.masks[0].ratios],
            *[f"{m} MSE" for m in self.modalities],
            title="reconstruction",
            caption=f"{self.num_clips} clips evaluated, {self.num_left_out} left out "
            "(a modality is missing); MSE of masked patches, "
            f"{units(self.is_normalized)}; 95 % intervals over clips",
        )
        for one in self.masks:
            ratios = [f"{100 * r:g} %" for r in one.ratios.values()]
            cells = [_cell(one.errors.get(m)) for m in self.modalities]
            table.add_row(one.strategy.replace("_", "-"), *ratios, *cells)
        return table


def units(is_normalized: bool) -> str:
    """The units of errors, in words."""
    if is_normalized:
        return "each patch of mean 0 and variance 1"
    return "in units of the model's input"


def _cell(one: Estimate | None) -> str:
    if one is None or np.isnan(one.value):
        return ""
    return f"{one.value:.3f} [{one.low:.3f}, {one.high:.3f}]"


def measure(
    run: Trained,
    split: ClipSplit,
    masks: Sequence[Masks],
    *,
    num_clips: int | None = None,
    progress: Progress | None = None,
) -> ReconstructionResult:
    """Errors of a model on the clips of a split, under each of several masks.

    Args:
        run: a pretrained run.
        split: clips.
        masks: kinds of masks.
        num_clips: use the first so many complete clips; all by default.
        progress: called with a step, the number of masks done and of all.

    Raises:
        UserError: the model does not predict patches, or no clip is complete.
    """
    model = run.run.model
    for one in masks:  # before an hour is spent on the first of them
        one.maskings(model)
    rows = split.rows(keep=model.modalities)[:num_clips]
    found = []
    for number, one in enumerate(masks):
        if progress:
            progress("measuring", number, len(masks))
        errors = _errors(run, split, rows, one)
        estimates = {
            m: metrics.bootstrap(x) if np.isfinite(x).all() else _NOTHING
            for m, x in errors.items()
        }
        found.append(MaskError(one.strategy, dict(one.ratios), estimates))
    if progress:
        progress("measuring", len(masks), len(masks))
    return ReconstructionResult(
        num_clips=len(rows),
        num_left_out=split.num_examples - len(split.rows(keep=model.modalities)),
        is_normalized=model.target_normalization is not None,
        masks=found,
    )


_NOTHING = Estimate(np.nan, np.nan, np.nan)


def _errors(
    run: Trained, split: ClipSplit, rows: np.ndarray, masks: Masks
) -> dict[str, np.ndarray]:
    """Dict of modality to each clip's error, `(clips,)`."""
    model = run.run.model
    maskings = masks.maskings(model)

    def with_errors(batch: Batch, training: bool) -> dict[str, Any]:
        outputs = model.reconstruct(batch, maskings)
        return {f"{m}_mse": x for m, x in clip_errors(model, outputs).items()}

    def masked(batches: Any) -> Any:
        for batch in batches:
            yield {**batch, **masks.noise(model, batch["example_index"])}

    names = [f"{m}_mse" for m in model.modalities]
    with naming_damage():
        values = forward(with_errors, masked(run.batches(split, indices=rows)), names)
    return {m: values[f"{m}_mse"] for m in model.modalities if f"{m}_mse" in values}
