"""TFDS builder of SoundingShapes: generates media files, then stores their clips."""

import dataclasses
import functools
import os
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from tfavmae.building import decoding
from tfavmae.building.decoding_builder import BuildPlan, DecodingBuilder
from tfavmae.building.features import StoredClipsConfig
from tfavmae.building.worker_pool import WorkerPool
from tfavmae.errors import UserError
from tfavmae.media.decode import DecodeOptions
from tfavmae_datasets.sounding_shapes import classes, generator
from tfavmae_datasets.sounding_shapes.config import CONFIGS, SoundingShapesConfig

# Frames are small; at the usual quality their edges would ring.
_JPEG_QUALITY = 95


@dataclasses.dataclass(eq=False, kw_only=True)
class ShapesConfig(StoredClipsConfig):
    """A set to generate.

    Args:
        settings: what it holds.
        seed: another seed gives other clips.
    """

    settings: SoundingShapesConfig
    seed: int = 0
    # The files are our own: not one of them may be bad.
    strict: bool = True

    def decode_options(self) -> DecodeOptions:
        return DecodeOptions(
            sample_rate_hz=self.settings.sample_rate_hz,
            frame_rate=self.settings.frame_rate,
            shorter_side=self.settings.frame_size,
            jpeg_quality=_JPEG_QUALITY,
        )

    def chosen(self) -> dict[str, Any]:
        return {"settings": dataclasses.asdict(self.settings), "seed": self.seed}


def builder_config(settings: SoundingShapesConfig, seed: int = 0) -> ShapesConfig:
    """The TFDS configuration of any settings.

    Prepared data is found by name, so changed settings need a name of their own; the
    seed is part of the name.

    Raises:
        UserError: the settings have the name of a published set but differ from it.

    Example:

    >>> small = builder_config(dataclasses.replace(DEMO, name="small", frame_size=32))
    >>> tfds.builder("sounding_shapes", config=small).download_and_prepare()
    """
    if settings.name in CONFIGS and settings != CONFIGS[settings.name]:
        raise UserError(
            f"sounding_shapes/{settings.name}: the settings are not those of the "
            "published set of that name. Give them another name."
        )
    return ShapesConfig(
        name=settings.name if seed == 0 else f"{settings.name}_seed{seed}",
        description=(
            f"{settings.num_classes} classes, {settings.clip_seconds:g}-s clips, "
            f"{settings.frame_size}-pixel frames."
        ),
        settings=settings,
        seed=seed,
    )


class Builder(DecodingBuilder):
    """Builder of SoundingShapes; see README.md.

    Args:
        media_dir: folder in which the mp4 files are generated and kept; by default
            `downloads/sounding_shapes/<config>` in the data directory. Existing files
            are not generated again.
        num_workers: processes; None for one per available core.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}
    BUILDER_CONFIGS = [builder_config(settings) for settings in CONFIGS.values()]
    builder_config_cls = ShapesConfig

    def __init__(
        self,
        *,
        media_dir: str | os.PathLike | None = None,
        num_workers: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.media_dir, self.num_workers = media_dir, num_workers

    @property
    def frame_size(self) -> int:
        return self.builder_config.settings.frame_size

    def label_features(self) -> dict[str, Any]:
        settings = self.builder_config.settings
        num_events = len(classes.event_names(settings))
        return {
            "label": tfds.features.ClassLabel(names=classes.class_names(settings)),
            "events": tfds.features.Tensor(shape=(num_events,), dtype=np.int8),
            "verb": tfds.features.ClassLabel(names=classes.verbs(settings)),
            "noun": tfds.features.ClassLabel(names=classes.nouns(settings)),
            "event_times": tfds.features.Tensor(shape=(None, 2), dtype=np.float32),
            "event_classes": tfds.features.Tensor(shape=(None,), dtype=np.int32),
            "positions": tfds.features.Tensor(shape=(None, 2), dtype=np.float32),
            "caption": tfds.features.Text(),
        }

    def static_facts(self) -> dict[str, Any]:
        """What can be read from `builder.info.metadata` without this code."""
        settings, seed = self.builder_config.settings, self.builder_config.seed
        return {
            "label_names": {"events": classes.event_names(settings)},
            "classes": [dataclasses.asdict(c) for c in classes.class_table(settings)],
            "ceilings": classes.ceilings(settings),
            "ceilings_over_all_clips": classes.ceilings(settings, over="all"),
            "seed": seed,
            "settings": dataclasses.asdict(settings),
        }

    def names_source(self) -> bool:
        # The name of a set stands for its settings and seed; see `builder_config`.
        return False

    def prepared_clips(self, split: str) -> None:
        # The media files are kept, so an interrupted build only has to decode them
        # again. That is not worth twice the disk space.
        return None

    def plan(
        self, dl_manager: tfds.download.DownloadManager, pool: WorkerPool
    ) -> BuildPlan:
        settings = self.builder_config.settings
        folder = self.media_dir or Path(
            dl_manager.download_dir, "sounding_shapes", self.builder_config.name
        )
        sizes = {
            "train": settings.num_train_clips,
            "validation": settings.num_validation_clips,
            "test": settings.num_test_clips,
        }
        return BuildPlan(
            rows={
                split: self.generate_media(Path(folder), split, size)
                for split, size in sizes.items()
                if size
            },
            num_rows=sum(sizes.values()),
            source_digest=str(generator.CONTENT_VERSION),
        )

    def generate_media(
        self, folder: Path, split: str, num_clips: int
    ) -> list[decoding.Row]:
        """Generates the missing files of a split; returns the rows of all of them."""
        config = self.builder_config
        rows = generator.generate(
            folder,
            config.settings,
            split,
            num_clips=num_clips,
            seed=config.seed,
            num_workers=self.num_workers,
            progress=functools.partial(self.progress, f"generating {split}"),
        )
        return [
            decoding.Row(
                row["id"],
                os.fspath(folder / split / row["file"]),
                labels=self.labels_of(row),
            )
            for row in rows
        ]

    def labels_of(self, row: dict[str, Any]) -> dict[str, Any]:
        """The stored labels of a row of labels.jsonl."""
        num_events = len(classes.event_names(self.builder_config.settings))
        positions = row["positions"] if row["has_video"] else []
        return {
            "label": row["label"],
            "events": np.isin(np.arange(num_events), row["events"]).astype(np.int8),
            "verb": row["verb"],
            "noun": row["noun"],
            "event_times": np.array(row["event_times"], np.float32).reshape(-1, 2),
            "event_classes": np.array(row["event_classes"], np.int32),
            "positions": np.array(positions, np.float32).reshape(-1, 2),
            "caption": row["caption"],
        }
