"""Experiments as data: dataclasses, YAML recipes and the checks on both.

An experiment is an `ExperimentConfig` on Model Garden's config dataclasses,
registered with its experiment factory as ``tfavmae/pretrain`` and
``tfavmae/finetune``. A recipe (``configs/**.yaml``) overrides the defaults, rows of
its matrix override the recipe, and dotted overrides
(``optimizer.learning_rate=1e-4``) override both.
"""

import copy
import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tfavmae.config import checks as checks
from tfavmae.config import matrix, model_options
from tfavmae.config import yaml_text as text
from tfavmae.config.text import TextConfig
from tfavmae.config.transfer import TransferConfig, read_sources
from tfavmae.data.clip_spec import SHORT_AUDIO, SHORT_VIDEO
from tfavmae.errors import UserError, shown
from tfavmae.model_garden import Config, exp_factory
from tfavmae.models import presets
from tfavmae.models.inputs import INPUTS

# Keys that change what a run leaves behind but never a weight: a run may be
# continued with other values.
RESUME_FREE_KEYS = frozenset(
    {
        "data.data_dir",
        "data.services",
        "trainer.checkpoint_every_steps",
        "trainer.checkpoint_every_minutes",
        "trainer.keep_checkpoints",
        "trainer.log_every_steps",
        "trainer.image_every_steps",
        "trainer.profile_steps",
        "trainer.peer_timeout_seconds",
    }
)


@dataclass
class AudioConfig(Config):
    """The audio front end, part of the model; a key that is not given is the paper's.

    Attributes:
        sample_rate_hz: rate of the stored waveform.
        num_frames: spectrogram frames (10 ms each) that the model reads.
        num_mel_bins: mel bins of the log-mel spectrogram.
        mean, std: normalisation of the log-mel values.
        statistics: name of published ones, instead of `mean` and `std`; see
            `tfavmae.layers.spectrogram.STATISTICS`.
        patch_size: `(frames, mel bins)` of a patch.
        variant: of the spectrogram, see `LogMelSpectrogram`.
    """

    sample_rate_hz: int | None = field(default=None, metadata={"minimum": 1000})
    num_frames: int | None = field(default=None, metadata={"minimum": 1})
    num_mel_bins: int | None = field(default=None, metadata={"minimum": 1})
    mean: float | None = None
    std: float | None = field(default=None, metadata={"above": 0.0})
    statistics: str | None = None
    patch_size: list[int] | None = field(
        default=None, metadata={"length": 2, "minimum": 1}
    )
    variant: str | None = field(default=None, metadata={"choices": ("kaldi", "av_mae")})


@dataclass
class VideoConfig(Config):
    """The video front end, part of the model; a key that is not given is the paper's.

    Attributes:
        num_frames: frames of a clip that the model reads.
        height, width: of a frame, in pixels.
        mean, std: normalisation per channel, of pixel values in [0, 1].
        tubelet_size: `(frames, rows, columns)` of a patch.
        time_positions: how patches of different times are told apart, see `VideoInput`.
    """

    num_frames: int | None = field(default=None, metadata={"minimum": 1})
    height: int | None = field(default=None, metadata={"minimum": 1})
    width: int | None = field(default=None, metadata={"minimum": 1})
    mean: list[float] | None = field(default=None, metadata={"length": 3})
    std: list[float] | None = field(default=None, metadata={"length": 3, "above": 0.0})
    tubelet_size: list[int] | None = field(
        default=None, metadata={"length": 3, "minimum": 1}
    )
    time_positions: str | None = field(
        default=None, metadata={"choices": ("sincos", "learned", "none")}
    )


@dataclass
class ModelConfig(Config):
    """The model that `tfavmae.models.presets` builds.

    Attributes:
        name: of a preset, i.e. of a paper.
        size: of that preset.
        modality: `audio_video`, or the one that the model reads.
        audio, video: the front ends.
        text: the text encoder, where `data.captions` is set.
        options: further arguments of the preset's model, which checks their names.
    """

    name: str = "cav_mae"
    size: str = "base"
    modality: str = field(
        default="audio_video", metadata={"choices": ("audio", "video", "audio_video")}
    )
    audio: AudioConfig = field(default_factory=AudioConfig)
    video: VideoConfig = field(default_factory=VideoConfig)
    text: TextConfig = field(default_factory=TextConfig)
    options: Config = field(default_factory=Config)


@dataclass
class DataConfig(Config):
    """Which clips, how they are cut and how many make a batch.

    Attributes:
        batch_size: global batch, over all replicas.
        label: label to train on (fine-tuning), e.g. `label` or `events`; `verb+noun`
            for two, each with a head of its own.
        captions: text to align audio and video with, instead of a `label`: the name of
            a feature such as `captions`; of several a training clip draws one.
        validation_captions: likewise of the validation split, of which the first of a
            clip counts; by default `captions`.
        num_train_examples: use only n clips; with a `label`, as evenly over
            the classes as can be (few-label experiments).
        sampling: `shuffle`, or `balanced`: draws with replacement that favour
            clips of rare classes.
        draws_per_epoch: length of an epoch in clips, where it is not all of them once
            (MAViL: 200,000 balanced draws); validation, warm-up and averages follow.
        repeat_classes_to: repeat the clips of rare classes until each class has this
            share of the clips of the largest (MAViL on Speech Commands: 0.5).
        pairing: `original`, or `shuffled`: a training clip gets the frames of another
            clip, always of the same one (CAV-MAE, table 16); pretraining only.
        frame_stride_seconds: time between frames; by default they are spread
            over the clip.
        clip_seconds: length of a clip; by default 10, or what the spectrogram holds
            where that is less.
        short_audio, short_video: what fills up a clip that is shorter than
            `clip_seconds`: `pad`, `loop` or `wrap`; `hold` or `loop`; see `ClipSpec`;
            by default as in the model's paper.
        interpolation: of frames that are resized.
        shorter_side: of the picture that frames are cropped from; by default the least
            that covers them.
        augment: fields of `tfavmae.data.augment.Augmentation`.
        services: addresses that `tfavmae data serve` prints, of machines that decode
            the training clips; not a number changes by it.
    """

    dataset: str = "sounding_shapes/demo"
    data_dir: str | None = None
    train_split: str = "train"
    validation_split: str | None = "validation"
    batch_size: int = field(default=32, metadata={"minimum": 1})
    clip_seconds: float = field(
        default=10.0, metadata={"minimum": 0.01, "maximum": 3600.0}
    )
    frame_stride_seconds: float | None = field(default=None, metadata={"above": 0.0})
    short_audio: str | None = field(default=None, metadata={"choices": SHORT_AUDIO})
    short_video: str | None = field(default=None, metadata={"choices": SHORT_VIDEO})
    shorter_side: int | None = field(default=None, metadata={"minimum": 1})
    label: str | None = None
    captions: str | None = None
    validation_captions: str | None = None
    num_train_examples: int | None = field(default=None, metadata={"minimum": 1})
    sampling: str = field(
        default="shuffle", metadata={"choices": ("shuffle", "balanced")}
    )
    draws_per_epoch: int | None = field(default=None, metadata={"minimum": 1})
    repeat_classes_to: float | None = field(
        default=None, metadata={"above": 0.0, "maximum": 1.0}
    )
    pairing: str = field(
        default="original", metadata={"choices": ("original", "shuffled")}
    )
    interpolation: str = field(
        default="bilinear", metadata={"choices": ("bilinear", "bicubic")}
    )
    augment: Config = field(default_factory=Config)
    services: list[str] = field(default_factory=list)

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels that `label` names."""
        return tuple(self.label.split("+")) if self.label else ()

    @property
    def captions_to_search(self) -> str | None:
        """The captions of clips that a model is measured on."""
        return self.validation_captions or self.captions


@dataclass
class OptimizerConfig(Config):
    """The update rule and its schedule.

    Attributes:
        name: `adamw` decays weights apart from the gradient; `adam` adds the
            decay to the gradient (L2, as torch's Adam and the CAV-MAE
            authors); `sgd` has momentum and L2.
        learning_rate: peak rate; with `learning_rate_per_256` the rate of a
            global batch of 256, scaled linearly to the batch.
        schedule: `constant`, `cosine` or `multistep` after a linear warm-up.
        minimum_learning_rate: where the cosine ends.
        warmup_steps, warmup_epochs: length of the warm-up; one of the two.
        decay_start_epoch, decay_every_epochs, decay_factor: `multistep`.
        weight_decay_paths: regular expressions of the variables that decay;
            biases, norms, tokens and positions are not kernels.
        clip_norm: global gradient norm, clipped after the all-reduce.
        layer_decay: learning-rate factor per layer below the head.
        layer_decay_form: `depth`, or fusion layers counted as in the authors' code,
            see `weight_groups.layer_factors`.
        head_learning_rate_factor: factor for the classification head, all its layers.
        audio_learning_rate_factor, video_learning_rate_factor: factors for what serves
            one modality alone: tokenizer, encoder, stream of an MBT.
        learning_rate_factors: further factors, by regular expression.
        average_decay: keep a running average of the weights, e.g. 0.9999; in the end
            it is `average.keras`, beside `model.keras` with the weights themselves.
    """

    name: str = field(default="adamw", metadata={"choices": ("adamw", "adam", "sgd")})
    learning_rate: float = field(default=1e-4, metadata={"above": 0.0})
    learning_rate_per_256: bool = False
    schedule: str = field(
        default="cosine", metadata={"choices": ("constant", "cosine", "multistep")}
    )
    minimum_learning_rate: float = field(default=0.0, metadata={"minimum": 0.0})
    warmup_steps: int | None = field(default=None, metadata={"minimum": 0})
    warmup_epochs: float | None = field(default=None, metadata={"minimum": 0.0})
    decay_start_epoch: int | None = field(default=None, metadata={"minimum": 1})
    decay_every_epochs: int = field(default=1, metadata={"minimum": 1})
    decay_factor: float = field(default=0.5, metadata={"above": 0.0, "maximum": 1.0})
    beta_1: float = field(default=0.9, metadata={"minimum": 0.0, "below": 1.0})
    beta_2: float = field(default=0.95, metadata={"minimum": 0.0, "below": 1.0})
    epsilon: float = field(default=1e-8, metadata={"above": 0.0})
    momentum: float = field(default=0.9, metadata={"minimum": 0.0, "below": 1.0})
    weight_decay: float = field(default=0.05, metadata={"minimum": 0.0})
    weight_decay_paths: list[str] = field(default_factory=lambda: ["kernel$"])
    clip_norm: float | None = field(default=None, metadata={"above": 0.0})
    layer_decay: float | None = field(
        default=None, metadata={"above": 0.0, "maximum": 1.0}
    )
    layer_decay_form: str = field(
        default="depth",
        metadata={"choices": ("depth", "av_mae_authors", "mavil_authors")},
    )
    head_learning_rate_factor: float = field(default=1.0, metadata={"above": 0.0})
    audio_learning_rate_factor: float = field(default=1.0, metadata={"above": 0.0})
    video_learning_rate_factor: float = field(default=1.0, metadata={"above": 0.0})
    learning_rate_factors: Config = field(default_factory=Config)
    average_decay: float | None = field(
        default=None, metadata={"minimum": 0.0, "below": 1.0}
    )


@dataclass
class TrainerConfig(Config):
    """How long, on what, and what is written on the way.

    Attributes:
        num_steps: length of the run; overrules `num_epochs` when given.
        steps_per_epoch: steps between validations; by default one pass over
            the training clips, or `data.draws_per_epoch`.
        checkpoint_every_steps, checkpoint_every_minutes: whichever comes first.
        monitor: validation metric by which the best weights are chosen; the
            final `model.keras` then holds these, and the run says so. `val_mAP` of a
            classifier costs a second forward pass over the validation clips.
        average_epochs: numbers, from 1, of the first and the last epoch whose mean
            weights the final `model.keras` holds; `epochs/` keeps those of each.
        peer_timeout_seconds: how long `multi_worker` waits for the other workers.
        contrast_scope: negatives from the whole global batch (`global`), from a
            replica's share of it (`replica`), or from a micro-batch (`micro_batch`).
        gradient_accumulation_steps: micro-batches into which each replica divides its
            share of a batch to fit into memory; the update is that of the whole batch.
            With contrast over more than a micro-batch, encoders run forward twice.
        freeze: regular expressions of the weights that do not learn: no gradients, no
            moments, no weight decay.
        rematerialize: keep only the inputs of transformer blocks, and compute the rest
            again on the way back: less memory, a tenth to a quarter more time.
        nonfinite: `stop` the run at a loss that is not finite, or `skip` such steps.
        image_every_steps: reconstruction images and sound in TensorBoard; 0 for none.
        profile_steps: first and last step of a TensorBoard profile.
    """

    num_steps: int | None = field(default=None, metadata={"minimum": 1})
    num_epochs: float | None = field(default=None, metadata={"above": 0.0})
    steps_per_epoch: int | None = field(default=None, metadata={"minimum": 1})
    seed: int = field(default=0, metadata={"minimum": 0, "maximum": 2**31 - 1})
    precision: str = field(
        default="float32",
        metadata={"choices": ("float32", "mixed_bfloat16", "mixed_float16")},
    )
    jit_compile: str = field(
        default="auto", metadata={"choices": ("auto", "on", "off")}
    )
    strategy: str = field(
        default="auto",
        metadata={
            "choices": (
                *("auto", "none", "mirrored", "multi_worker", "tpu"),
                *("data_parallel", "fsdp"),
            )
        },
    )
    tpu: str | None = None
    peer_timeout_seconds: float = field(default=300.0, metadata={"above": 0.0})
    contrast_scope: str = field(
        default="global", metadata={"choices": ("global", "replica", "micro_batch")}
    )
    gradient_accumulation_steps: int = field(default=1, metadata={"minimum": 1})
    freeze: list[str] = field(default_factory=list)
    rematerialize: bool = False
    nonfinite: str = field(default="stop", metadata={"choices": ("stop", "skip")})
    checkpoint_every_steps: int | None = field(default=500, metadata={"minimum": 1})
    checkpoint_every_minutes: float | None = field(
        default=None, metadata={"above": 0.0}
    )
    keep_checkpoints: int = field(default=2, metadata={"minimum": 1})
    monitor: str | None = None
    monitor_mode: str = field(default="max", metadata={"choices": ("max", "min")})
    average_epochs: list[int] | None = field(
        default=None, metadata={"length": 2, "minimum": 1}
    )
    log_every_steps: int = field(default=10, metadata={"minimum": 1})
    image_every_steps: int = field(default=0, metadata={"minimum": 0})
    profile_steps: list[int] | None = field(
        default=None, metadata={"length": 2, "minimum": 1}
    )


@dataclass
class ExperimentConfig(Config):
    """A whole experiment. See the sections' classes for their keys.

    Attributes:
        stage: `pretrain` (no labels) or `finetune` (a classifier, or with
            `data.captions` a model of text as well).
        initialize_from: what the model's weights start from: a run's work directory, a
            preset, or a file of weights, also somebody else's; or a list of these, of
            which the first that has a weight gives it. `{from: PATH, modality: audio}`
            takes one modality of a source.
        teacher_from: work directories of the runs whose weights the model's teacher
            gets (`model.options.teacher`, MAViL's stage 2).
        teacher_iterations: how many times a student follows, each taught by the one
            before (MAViL: 3). The work directory then holds one run for each stage.
    """

    stage: str = field(
        default="pretrain", metadata={"choices": ("pretrain", "finetune")}
    )
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    initialize_from: Any = field(default=None, metadata={"read": read_sources})
    transfer: TransferConfig = field(default_factory=TransferConfig)
    teacher_from: list[str] | None = None
    teacher_iterations: int = field(default=0, metadata={"minimum": 0})

    @property
    def learns_classes(self) -> bool:
        """Whether the model is a classifier."""
        return self.stage == "finetune" and not self.data.captions


@exp_factory.register_config_factory("tfavmae/pretrain")
def pretrain() -> ExperimentConfig:
    """The defaults of pretraining."""
    return ExperimentConfig()


@exp_factory.register_config_factory("tfavmae/finetune")
def finetune() -> ExperimentConfig:
    """The defaults of fine-tuning a classifier."""
    config = ExperimentConfig(stage="finetune")
    config.data.label = "label"
    return config


def load(
    path, overrides: Sequence[str] = (), rows: Sequence[str] = ()
) -> ExperimentConfig:
    """Reads a recipe, applies rows and dotted overrides, and checks the result.

    Args:
        path: a YAML recipe.
        overrides: strings such as `"optimizer.learning_rate=1e-4"`; the value
            is read as YAML.
        rows: names of rows of the recipe's `matrix`, see `matrix.choose`.

    Returns:
        A complete, checked `ExperimentConfig`.

    Raises:
        UserError: naming the key and what it may be.
    """
    recipe = matrix.choose(text.read_yaml(pathlib.Path(path)), rows, str(path))
    return from_dict(with_overrides(recipe, overrides))


def with_overrides(values: Mapping, overrides: Sequence[str]) -> dict:
    """Nested dicts with dotted overrides, as of `load`, over them."""
    changed = copy.deepcopy(dict(values))
    for override in overrides:
        text.merge(changed, text.parse_override(override))
    return changed


def from_dict(values: Mapping) -> ExperimentConfig:
    """`ExperimentConfig` from nested dicts, with the checks of `load`."""
    given = {"stage": "pretrain", "model": {}, "data": {}}
    given |= checks.checked(ExperimentConfig, values, "")
    config = exp_factory.get_exp_config(f"tfavmae/{given['stage']}")
    config.override(_with_defaults_of_paper(given), is_strict=False)
    checks.check_combinations(config)
    return config


def _with_defaults_of_paper(values: Mapping) -> dict:
    """`values` in which every key has one whose default is the paper's."""
    model = {"name": ModelConfig.name, "size": ModelConfig.size, **values["model"]}
    try:
        paper = presets.paper(model["name"])
    except ValueError as error:
        raise UserError(f"model.name: {error}") from error
    if model["size"] not in paper.SIZES:
        sizes = ", ".join(paper.SIZES)
        raise UserError(
            f"model.size must be one of {sizes} for {model['name']}. "
            f"Received: {shown(model['size'])}."
        )
    _check_model(model, paper, values.get("stage", "pretrain"))
    for modality, kind in INPUTS.items():
        given = {k: x for k, x in model.get(modality, {}).items() if x is not None}
        try:
            read = dataclasses.asdict(kind(**{**paper.INPUTS[modality], **given}))
        except ValueError as error:
            raise UserError(f"model.{modality}: {error}") from error
        # Model Garden's configs hold lists, not tuples.
        lists = {k: list(x) if type(x) is tuple else x for k, x in read.items()}
        model[modality] = lists
    model_options.check_types(paper, model.get("options", {}))
    data = dict(values["data"])
    for modality, default in paper.SHORT_CLIPS.items():
        if data.get(f"short_{modality}") is None:
            data[f"short_{modality}"] = default
    if data.get("captions"):
        data.setdefault("label", None)  # no classes, which fine-tuning has by default
    if "clip_seconds" not in data:
        held = INPUTS["audio"](**model["audio"]).clip_seconds
        data["clip_seconds"] = min(DataConfig.clip_seconds, held)
    return {**values, "model": model, "data": data}


# Arguments of a model that have a key of their own, or follow from the data set.
_KEY_OF_OPTION = {
    "audio": "model.audio",
    "video": "model.video",
    "modality": "model.modality",
    "seed": "trainer.seed",
    "label": "data.label",
    "num_classes": "data.label",
    "multi_label": "data.label",
    "num_segments": "data.label",
}


def _check_model(model: Mapping, paper: type[presets.PaperModel], stage: str) -> None:
    alone = model.get("modality", "audio_video") != "audio_video"
    if stage == "pretrain" and alone and "modality" not in paper.option_names():
        able = [
            n for n, p in presets.papers().items() if "modality" in p.option_names()
        ]
        raise UserError(
            f"model.modality must be audio_video in pretraining {model['name']}; "
            f"{' and '.join(able)} can be pretrained on one modality."
        )
    for option in model.get("options", {}):
        if option in _KEY_OF_OPTION:
            key = _KEY_OF_OPTION[option]
            raise UserError(f"model.options.{option} follows from {key}; set that.")


def to_yaml(config: ExperimentConfig) -> str:
    """The whole configuration, readable by `load`."""
    return text.to_yaml(config.as_dict())


def difference(first: ExperimentConfig, second: ExperimentConfig) -> list[str]:
    """Dotted keys whose values differ, sorted."""
    first, second = flatten(first.as_dict()), flatten(second.as_dict())
    missing = object()
    keys = first.keys() | second.keys()
    return sorted(k for k in keys if first.get(k, missing) != second.get(k, missing))


def flatten(values: Mapping, prefix: str = "") -> dict:
    """Nested dicts to `{dotted key: value}`."""
    flat: dict = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
