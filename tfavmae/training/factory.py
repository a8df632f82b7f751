"""The parts of an experiment, made from its config: data and model."""

import dataclasses

import keras
import numpy as np

from tfavmae.config.experiment import ExperimentConfig
from tfavmae.data import augment, sampling, service
from tfavmae.data.pipeline import ClipSpec, ClipSplit, open_split
from tfavmae.errors import UserError
from tfavmae.models import presets
from tfavmae.training import cluster

_SERVICE_TIMEOUT_SECONDS = 10.0


def clip_spec(config: ExperimentConfig, train: bool) -> ClipSpec:
    """What to cut out of a clip, as the config's model and data sections say."""
    data, model = config.data, config.model
    try:
        return ClipSpec(
            clip_seconds=data.clip_seconds,
            num_frames=model.video.num_frames,
            frame_size=(model.video.height, model.video.width),
            shorter_side=data.shorter_side,
            frame_stride_seconds=data.frame_stride_seconds,
            labels=(data.label,) if data.label else (),
            modalities=tuple(model.modality.split("_")),
            train=train,
            augmentation=augment.Augmentation(**data.augment.as_dict()),
            interpolation=data.interpolation,
            sample_rate_hz=model.audio.sample_rate_hz,
        )
    except (TypeError, ValueError) as error:
        raise UserError(f"Config section data: {error}") from error


@dataclasses.dataclass(frozen=True)
class Labels:
    """The label that a classifier learns.

    Attributes:
        num_classes: width of the logits.
        multi_label: whether a clip may have several.
        names: of the classes, or `None` where the dataset has none.
    """

    num_classes: int
    multi_label: bool
    names: list[str] | None


class TrainingData:
    """The splits of an experiment and the batches it makes of them.

    Args:
        config: the experiment.
        host_index: this host; with several, each makes its share of a batch.
        host_count: number of hosts.
    """

    def __init__(self, config: ExperimentConfig, host_index=0, host_count=1):
        self.config = config
        self.hosts = {"host_index": host_index, "host_count": host_count}
        self.train_split = self._open(config.data.train_split)
        self.validation_split = None
        if config.data.validation_split:
            self.validation_split = self._open(config.data.validation_split)
        self.indices = self._subset()
        for address in config.data.services:
            cluster.check_answers(
                service.host_and_port(address),
                _SERVICE_TIMEOUT_SECONDS,
                "data.services: `tfavmae data serve`",
            )

    @property
    def num_examples(self) -> int:
        """Training clips in use."""
        used = self.indices
        return self.train_split.num_examples if used is None else len(used)

    def training_batches(self, start_step: int, num_steps: int | None = None):
        """Batches from `start_step` on, a function of seed and step alone."""
        weights = None
        if self.config.data.sampling == "balanced":
            weights = sampling.balanced_weights(self._labels())
        return self.train_split.training_batches(
            clip_spec(self.config, train=True),
            self.config.data.batch_size,
            seed=self.config.trainer.seed,
            start_step=start_step,
            num_steps=num_steps,
            indices=self.indices,
            sampling_weights=weights,
            services=self.config.data.services,
            **self.hosts,
        )

    def validation_batches(self):
        """Every validation clip once, or `None` without a validation split."""
        if self.validation_split is None:
            return None
        return self.validation_split.evaluation_batches(
            clip_spec(self.config, train=False),
            self.config.data.batch_size,
            **self.hosts,
        )

    def labels(self) -> Labels | None:
        """What is to be classified, or `None` in pretraining."""
        label = self.config.data.label
        if self.config.stage != "finetune":
            return None
        names = self.train_split.label_names(label)
        return Labels(
            num_classes=self.train_split.num_classes(label),
            multi_label=np.ndim(self._labels()) == 2,
            names=list(names) if names else None,
        )

    def facts(self) -> dict:
        """What `run.json` says of the data."""
        splits = {"train": self.train_split, "validation": self.validation_split}
        return {
            name: {
                "dataset": split.info.full_name,
                "split": split.name,
                "num_examples": split.num_examples,
                "fingerprint": split.fingerprint,
            }
            for name, split in splits.items()
            if split is not None
        }

    def _open(self, split) -> ClipSplit:
        return open_split(self.config.data.dataset, split, self.config.data.data_dir)

    def _labels(self):
        return self.train_split.labels(self.config.data.label)

    def _subset(self):
        wanted, data = self.config.data.num_train_examples, self.config.data
        if wanted is None:
            return None
        if wanted > self.train_split.num_examples:
            raise UserError(
                f"data.num_train_examples={wanted} is more than the"
                f" {self.train_split.num_examples} clips of {data.train_split};"
                " lower it."
            )
        if data.label is None:
            return np.arange(wanted)
        seed = self.config.trainer.seed
        return sampling.balanced_subset(self._labels(), wanted, seed)


def build_model(config: ExperimentConfig, labels: Labels | None = None) -> keras.Model:
    """The untrained model of a config, in the config's precision.

    Args:
        config: the experiment.
        labels: of the dataset; needed for fine-tuning.
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
            return presets.build_pretraining(section.name, section.size, **options)
        return presets.build_classifier(
            section.name,
            section.size,
            section.modality,
            num_classes=labels.num_classes,
            multi_label=labels.multi_label,
            label=config.data.label,
            **options,
        )
    except ValueError as error:
        raise UserError(f"Config section model: {error}") from error
    finally:
        keras.config.set_dtype_policy(precision)
