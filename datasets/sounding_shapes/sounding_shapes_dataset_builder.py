"""TFDS builder of SoundingShapes: generates the media files, then decodes and packs."""

import dataclasses
import functools
import pathlib

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core.utils import tqdm_utils

from tfavmae.building import decoding, features
from tfavmae.errors import UserError
from tfavmae.media import decode
from tfavmae_datasets.sounding_shapes import classes, generator
from tfavmae_datasets.sounding_shapes.config import CONFIGS, SoundingShapesConfig

# Frames are small; at the usual quality their edges would ring.
_JPEG_QUALITY = 95


@dataclasses.dataclass(kw_only=True)
class ShapesConfig(tfds.core.BuilderConfig):
    """A set to generate: `settings` and `seed`."""

    settings: SoundingShapesConfig
    seed: int = 0


def builder_config(settings: SoundingShapesConfig, seed: int = 0) -> ShapesConfig:
    """The TFDS configuration of any settings.

    Prepared data is found by name, so changed settings need a name of their own; the
    seed is part of the name.

    >>> small = builder_config(dataclasses.replace(DEMO, name="small", frame_size=32))
    >>> tfds.builder("sounding_shapes", config=small).download_and_prepare()
    """
    if settings.name in CONFIGS and settings != CONFIGS[settings.name]:
        raise UserError(
            f"sounding_shapes/{settings.name}: the settings are not those of the "
            "published set of that name. Give them another name."
        )
    return _builder_config(settings, seed)


# TFDS accepts a published configuration only as the very object it was published as.
@functools.cache
def _builder_config(settings, seed):
    return ShapesConfig(
        name=settings.name if seed == 0 else f"{settings.name}_seed{seed}",
        description=(
            f"{settings.num_classes} classes, {settings.clip_seconds:g}-s clips, "
            f"{settings.frame_size}-pixel frames."
        ),
        settings=settings,
        seed=seed,
    )


class Builder(tfds.core.GeneratorBasedBuilder):
    """DatasetBuilder of sounding_shapes.

    Args:
        media_dir: where the mp4 files are generated and kept; default
            `downloads/sounding_shapes/<config>` in the data directory. Files that are
            there already are not generated again.
        num_workers: processes; None for one per available core.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}
    BUILDER_CONFIGS = [builder_config(settings) for settings in CONFIGS.values()]

    def __init__(self, *, media_dir=None, num_workers=None, **kwargs):
        self.media_dir, self.num_workers = media_dir, num_workers
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        settings = self.builder_config.settings
        num_events = len(classes.event_names(settings))
        labels = {
            "label": tfds.features.ClassLabel(names=classes.class_names(settings)),
            "events": tfds.features.Tensor(shape=(num_events,), dtype=np.int8),
            "verb": tfds.features.ClassLabel(names=classes.verbs(settings)),
            "noun": tfds.features.ClassLabel(names=classes.nouns(settings)),
            "event_times": tfds.features.Tensor(shape=(None, 2), dtype=np.float32),
            "event_classes": tfds.features.Tensor(shape=(None,), dtype=np.int32),
            "positions": tfds.features.Tensor(shape=(None, 2), dtype=np.float32),
            "caption": tfds.features.Text(),
        }
        return self.dataset_info_from_configs(
            features=features.features(labels, settings.frame_size),
            metadata=tfds.core.MetadataDict(self._facts()),
        )

    def _facts(self) -> dict:
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

    def _split_generators(self, dl_manager):
        settings = self.builder_config.settings
        folder = self.media_dir or pathlib.Path(
            dl_manager.download_dir, "sounding_shapes", self.builder_config.name
        )
        sizes = {
            "train": settings.num_train_clips,
            "validation": settings.num_validation_clips,
            "test": settings.num_test_clips,
        }
        rows = {
            split: self._generate_media(folder, split, size)
            for split, size in sizes.items()
            if size
        }
        return {split: self._generate_examples(row) for split, row in rows.items()}

    def _generate_media(self, folder, split, num_clips):
        config = self.builder_config
        with tqdm_utils.tqdm(
            total=num_clips, desc=f"Generating {split} clips", unit="clip", leave=False
        ) as bar:
            rows = generator.generate(
                folder,
                config.settings,
                split,
                num_clips=num_clips,
                seed=config.seed,
                num_workers=self.num_workers,
                progress=_advance(bar),
            )
        return [self._decode_row(pathlib.Path(folder, split), row) for row in rows]

    def _decode_row(self, folder, row) -> decoding.Row:
        num_events = len(classes.event_names(self.builder_config.settings))
        positions = row["positions"] if row["has_video"] else []
        labels = {
            "label": row["label"],
            "events": np.isin(np.arange(num_events), row["events"]).astype(np.int8),
            "verb": row["verb"],
            "noun": row["noun"],
            "event_times": np.array(row["event_times"], np.float32).reshape(-1, 2),
            "event_classes": np.array(row["event_classes"], np.int32),
            "positions": np.array(positions, np.float32).reshape(-1, 2),
            "caption": row["caption"],
        }
        return decoding.Row(row["id"], str(folder / row["file"]), labels=labels)

    def _generate_examples(self, rows):
        settings = self.builder_config.settings
        options = decode.DecodeOptions(
            sample_rate_hz=settings.sample_rate_hz,
            frame_rate=settings.frame_rate,
            shorter_side=settings.frame_size,
            jpeg_quality=_JPEG_QUALITY,
        )
        # Strict: we wrote these files, none of them may be bad.
        with decoding.decode_rows(
            rows, options, num_workers=self.num_workers, strict=True
        ) as decoded:
            yield from decoded


def _advance(bar):
    """`progress(done, total)` of a bar that may be TFDS's stand-in without a count."""
    shown = 0

    def progress(done, total):
        nonlocal shown
        bar.update(done - shown)
        shown = done

    return progress
