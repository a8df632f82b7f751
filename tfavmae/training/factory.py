"""The parts of an experiment, made from sections of its config: data and model."""

import dataclasses
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfavmae.config.experiment import DataConfig, ExperimentConfig, ModelConfig
from tfavmae.data import augment, sampling, service
from tfavmae.data.pipeline import ClipSpec, open_split
from tfavmae.data.text import CaptionSpec, check_captions
from tfavmae.errors import UserError
from tfavmae.models import presets
from tfavmae.training import cluster, text_start
from tfavmae.training.text_start import tokenizer_of

# A service that is up answers at once; this is for one that is still starting.
_SERVICE_TIMEOUT_SECONDS = 10.0


def clip_spec(data: DataConfig, model: ModelConfig, train: bool) -> ClipSpec:
    """What to cut out of a stored clip: what the model reads, as `data` says.

    Args:
        data: the config's `data` section.
        model: the config's `model` section.
        train: whether windows are random and clips are augmented.

    Raises:
        UserError: the sections ask for what is impossible.
    """
    try:
        return ClipSpec(
            clip_seconds=data.clip_seconds,
            num_frames=model.video.num_frames,
            frame_size=(model.video.height, model.video.width),
            shorter_side=data.shorter_side,
            frame_stride_seconds=data.frame_stride_seconds,
            short_audio=data.short_audio,
            short_video=data.short_video,
            labels=data.labels,
            modalities=tuple(model.modality.split("_")),
            train=train,
            augmentation=augment.Augmentation(**data.augment.as_dict()),
            interpolation=data.interpolation,
            sample_rate_hz=model.audio.sample_rate_hz,
        )
    except (TypeError, ValueError) as error:
        raise UserError(f"config section data: {error}") from error


@dataclasses.dataclass(frozen=True)
class Labels:
    """The label that a classifier learns, or several of them.

    Attributes:
        num_classes: width of the logits; of several labels a dict by their names.
        multi_label: whether a clip may have several classes.
        names: of the classes, or `None` where the data set has none; of several labels
            a dict by their names.
        num_segments: segments of a clip that have a class each; 0 for the whole clip.
    """

    num_classes: int | dict[str, int]
    multi_label: bool
    names: list[str] | dict[str, list[str] | None] | None
    num_segments: int = 0


class TrainingData:
    """The splits of an experiment and the batches made of them.

    Args:
        data: the config's `data` section.
        model: the config's `model` section: what a clip is cut to.
        seed: of order, windows and augmentation.
        host_index: this host; with several, each makes its share of a batch.
        host_count: number of hosts.

    Raises:
        UserError: there are fewer clips than `data.num_train_examples`, or a service
            does not answer.
    """

    def __init__(
        self,
        data: DataConfig,
        model: ModelConfig,
        *,
        seed: int,
        host_index: int = 0,
        host_count: int = 1,
    ) -> None:
        self.data = data
        self.model = model
        self.seed = seed
        self.hosts = {"host_index": host_index, "host_count": host_count}
        self.train_split = open_split(data.dataset, data.train_split, data.data_dir)
        self.validation_split = None
        if data.validation_split:
            self.validation_split = open_split(
                data.dataset, data.validation_split, data.data_dir
            )
        self.indices = self._subset()
        self._tokenizer = None
        if data.captions:
            check_captions(self.train_split, data.captions)
            if self.validation_split is not None:
                check_captions(self.validation_split, data.captions_to_search or "")
            # Once for both splits: its tables take a while to fill.
            self._tokenizer = tokenizer_of(model.text)
        for address in data.services:
            cluster.check_answers(
                service.host_and_port(address),
                _SERVICE_TIMEOUT_SECONDS,
                "data.services: `tfavmae data serve`",
            )

    @property
    def num_examples(self) -> int:
        """Training clips in use, repeated ones counted as often as they come."""
        used = self.indices
        return self.train_split.num_examples if used is None else len(used)

    def training_batches(
        self, start_step: int, num_steps: int | None = None
    ) -> tf.data.Dataset:
        """Batches from `start_step` on, a function of seed and step alone.

        See `tfavmae.data.pipeline.ClipSplit` for what a batch holds.
        """
        # From the labels of the whole split, not of this host's share.
        weights = None
        if self.data.sampling == "balanced":
            weights = sampling.balanced_weights(self._train_labels())
        return self.train_split.training_batches(
            self._spec(self.data.captions, train=True),
            self.data.batch_size,
            seed=self.seed,
            start_step=start_step,
            num_steps=num_steps,
            indices=self.indices,
            sampling_weights=weights,
            shuffle_pairs=self.data.pairing == "shuffled",
            services=self.data.services,
            **self.hosts,
        )

    def validation_batches(self, whole: bool = False) -> tf.data.Dataset | None:
        """Every validation clip once, or `None` without a validation split.

        Args:
            whole: all clips, not this host's share of each batch.
        """
        if self.validation_split is None:
            return None
        return self.validation_split.evaluation_batches(
            self._spec(self.data.captions_to_search, train=False),
            self.data.batch_size,
            **({} if whole else self.hosts),
        )

    def labels(self) -> Labels:
        """What a classifier learns from the label `data.label`, or several."""
        split, found = self.train_split, {}
        for label in self.data.labels:
            names, segments = split.label_names(label), split.num_segments(label)
            found[label] = Labels(
                num_classes=split.num_classes(label),
                multi_label=not segments and np.ndim(split.labels(label)) == 2,
                names=list(names) if names else None,
                num_segments=segments,
            )
        if len(found) == 1:
            return found[self.data.label]
        for label, own in found.items():
            if own.multi_label or own.num_segments:
                raise UserError(
                    f"data.label={self.data.label}: {label} has several classes a clip;"
                    " of several labels each must have one."
                )
        return Labels(
            num_classes={k: x.num_classes for k, x in found.items()},
            multi_label=False,
            names={k: x.names for k, x in found.items()},
        )

    def facts(self) -> dict[str, dict[str, Any]]:
        """Where each split comes from and how its clips are stored, for `run.json`."""
        splits = {"train": self.train_split, "validation": self.validation_split}
        return {
            name: {
                "dataset": split.info.full_name,
                "split": split.name,
                "num_examples": split.num_examples,
                "fingerprint": split.fingerprint,
                "stored_as": split.metadata.get("stored_as", {}),
            }
            for name, split in splits.items()
            if split is not None
        }

    def _spec(self, captions: str | None, train: bool) -> ClipSpec:
        spec = clip_spec(self.data, self.model, train)
        if captions is None or self._tokenizer is None:
            return spec
        return dataclasses.replace(
            spec, captions=CaptionSpec(captions, self._tokenizer)
        )

    def _train_labels(self) -> np.ndarray:
        return self.train_split.labels(self.data.label)

    def _subset(self) -> np.ndarray | None:
        """Rows in use, some of them several times; `None` for all once.

        See `data.num_train_examples` and `data.repeat_classes_to`.
        """
        rows, share = self._few(), self.data.repeat_classes_to
        if share is None:
            return rows
        labels = self._train_labels()
        if labels.ndim > 1:
            raise UserError(
                f"data.repeat_classes_to goes by one class a clip; data.label="
                f"{self.data.label} has several. Use data.sampling=balanced."
            )
        rows = np.arange(len(labels)) if rows is None else rows
        return rows[sampling.repeated_rows(labels[rows], share, self.seed)]

    def _few(self) -> np.ndarray | None:
        """Rows of the `data.num_train_examples` clips in use; `None` for all."""
        wanted, available = self.data.num_train_examples, self.train_split.num_examples
        if wanted is None:
            return None
        if wanted > available:
            raise UserError(
                f"data.num_train_examples={wanted} is more than the {available} clips"
                f" of {self.data.train_split}; lower it."
            )
        if self.data.label is None:
            return np.arange(wanted)
        return sampling.balanced_subset(self._train_labels(), wanted, self.seed)


def build_model(config: ExperimentConfig, labels: Labels | None = None) -> keras.Model:
    """The untrained model of a config, in the config's precision.

    Args:
        config: the experiment.
        labels: of the dataset; needed for a classifier.
    """
    section = config.model
    options = {
        "audio": section.audio.as_dict(),
        "video": section.video.as_dict(),
        "seed": config.trainer.seed,
        **section.options.as_dict(),
    }
    precision = keras.config.dtype_policy()
    keras.config.set_dtype_policy(config.trainer.precision)
    try:
        if config.stage == "pretrain":
            if section.modality != "audio_video":
                options["modality"] = section.modality
            return presets.build_pretraining(section.name, section.size, **options)
        if config.data.captions:
            return text_start.build(section, **options)
        return presets.build_classifier(
            section.name,
            section.size,
            section.modality,
            num_classes=labels.num_classes,
            multi_label=labels.multi_label,
            num_segments=labels.num_segments,
            label=config.data.label,
            **options,
        )
    except ValueError as error:
        raise UserError(f"config section model: {error}") from error
    finally:
        keras.config.set_dtype_policy(precision)
