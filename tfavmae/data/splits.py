"""Splits of a built data set: their files, clips, labels and fingerprint."""

import functools
import hashlib
import os
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from tfavmae.data import description as description_lib
from tfavmae.data import index as index_lib
from tfavmae.data import remote
from tfavmae.errors import UserError, shown

MODALITIES = ("audio", "video")
STORED_SAMPLE_RATE_HZ = 16_000
# The features of every stored example. `building.features` writes them; the two rooms
# share no import, so that reading needs none of the decoding.
_STORED_FORM = ("id", "audio", "frames", "frame_rate", "has_audio", "has_video")
# Ids of clips that begin later in their file, as `clip_folder` writes them.
_PLACE = re.compile(r"(?P<file>.+)@(?P<start>\d+(\.\d+)?)", re.DOTALL)
_NAME = re.compile(r"\w+(/[\w.-]+)?(:[\d.]+)?")  # name[/config][:version]
_VERSION = re.compile(r"\d+\.\d+\.\d+")


def open_info(dataset: str, data_dir: str | None = None) -> tfds.core.DatasetInfo:
    """Opens TFDS's description of a built data set.

    Args:
        dataset, data_dir: see `pipeline.open_split`.

    Raises:
        UserError: there is no such data set, or it is not in the stored form of
            tfavmae.
    """
    directory = find_dataset(dataset, data_dir)
    try:
        description_lib.check_features(directory)
        description = remote.local_description(directory)
        info = tfds.builder_from_directory(description).info
        names, _ = set(info.features), info.metadata  # TFDS reads each when asked
    except UserError:
        raise
    # JSON's, protobuf's and TFDS's own errors, and whatever TFDS makes of a feature
    # that the file describes wrongly.
    except Exception as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise UserError(
            f"{directory}: dataset_info.json, features.json or metadata.json is "
            f"missing or damaged ({reason}); restore them or build the data set again."
        ) from error
    if description != directory:
        # TFDS would look for the records beside the copied description.
        info.records_directory = directory
    missing = [name for name in _STORED_FORM if name not in names]
    if missing:
        raise UserError(
            f"{directory}: must have the features of tfavmae's stored form; received "
            f"none named {', '.join(missing)}. Build it with `tfavmae data build`."
        )
    if info.features["audio"].np_dtype != np.int16:
        raise UserError(
            f"{directory}: must store audio as int16; received "
            f"{info.features['audio'].np_dtype}. Build it with `tfavmae data build`."
        )
    return info


def find_dataset(dataset: str, data_dir: str | None = None) -> str:
    """Finds the folder with dataset_info.json of a data set, by name or path.

    Args:
        dataset, data_dir: see `pipeline.open_split`.

    Raises:
        UserError: it is not built, or it has several configs of which none is named.
    """
    default = os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")
    root = os.path.expanduser(data_dir or default)
    remote.enable(root)
    remote.enable(dataset)
    # Only in a name is the colon before the version; in a path it is a character.
    name = dataset.replace(":", "/") if _NAME.fullmatch(dataset) else dataset
    candidates = [os.path.join(root, name), os.path.expanduser(dataset)]
    for path in candidates:
        found = _newest_version(path)
        if found:
            return found
    raise UserError(
        f"data set {dataset!r} was not found (looked in {' and '.join(candidates)}); "
        f"make it with `tfavmae data build {dataset}`, or name its folder with "
        "data_dir."
    )


def _newest_version(path: str, has_configs: bool = True) -> str | None:
    """`path`, its newest version, or that of its only config; None if not built.

    Looks no deeper than that: a folder that is no data set may be the whole disk.
    """
    if tf.io.gfile.exists(os.path.join(path, "dataset_info.json")):
        return path
    if not tf.io.gfile.isdir(path):
        return None
    folders = sorted(f.rstrip("/") for f in tf.io.gfile.listdir(path))
    versions = [f for f in folders if _VERSION.fullmatch(f)]
    if versions:
        newest = max(versions, key=lambda v: [int(n) for n in v.split(".")])
        found = os.path.join(path, newest)
        is_built = tf.io.gfile.exists(os.path.join(found, "dataset_info.json"))
        return found if is_built else None
    if not has_configs:
        return None
    configs = [f for f in folders if _newest_version(os.path.join(path, f), False)]
    if len(configs) > 1:
        raise UserError(
            f"{path}: has several configs; name one of them: {', '.join(configs)}."
        )
    return _newest_version(os.path.join(path, configs[0]), False) if configs else None


def place_of(clip: str) -> tuple[str, float]:
    """File and start in seconds of a clip, from its id: `file`, or `file@seconds`."""
    if match := _PLACE.fullmatch(clip):
        return match["file"], float(match["start"])
    return clip, 0.0


def files_of(ids: Sequence[str]) -> np.ndarray:
    """The file that each clip was cut from, as a number: int `(clips,)`.

    Clips of one file are alike and no independent samples: intervals are to be drawn
    over files.

    Args:
        ids: of the clips; see `place_of`.
    """
    names = [place_of(clip)[0] for clip in ids]
    return np.unique(names, return_inverse=True)[1]


class Split:
    """A split of a data set: ids, labels and modalities of its clips, kept in memory.

    Args:
        info: from `open_info`.
        split: name of the split, slices as in TFDS ("train[:90%]") included.

    Attributes:
        info: TFDS's `DatasetInfo`.
        name: the split as it was asked for.
        num_examples: number of clips.
        index: `RecordIndex` of the clips.
        fingerprint: SHA-256 of the data set's name and version, the split, the manifest
            that it was built from, if there is one, and the names, sizes and record
            counts of its files.

    Raises:
        UserError: there is no such split, it has no clips, or a file is damaged.
    """

    def __init__(self, info: tfds.core.DatasetInfo, split: str) -> None:
        self.info, self.name = info, split
        try:
            instructions = info.splits[split].file_instructions
        except (KeyError, ValueError):
            raise UserError(
                f"{info.data_dir}: there is no split {shown(split)}; there are: "
                f"{', '.join(sorted(info.splits))}."
            ) from None
        if not sum(instruction.take for instruction in instructions):
            raise UserError(f"{info.data_dir}: the split {split!r} has no clips.")
        paths = [instruction.filename for instruction in instructions]
        elsewhere = getattr(info, "records_directory", None)
        if elsewhere is not None:  # the description is a copy, see `open_info`
            root = elsewhere.rstrip("/")
            paths = [f"{root}/{os.path.basename(path)}" for path in paths]
        else:
            description_lib.check_shards(info.data_dir, paths)
        counts = [instruction.examples_in_shard for instruction in instructions]
        shards = [index_lib.Shard(*pair) for pair in zip(paths, counts, strict=True)]
        self.fingerprint = _fingerprint(info, split, shards)
        index = index_lib.load_or_build(shards, self._column_specs(), info.data_dir)
        # The index is of whole files; a slice such as "train[10%:]" takes some of each.
        first = np.cumsum([0, *counts])
        taken = [
            np.arange(start + i.skip, start + i.skip + i.take)
            for start, i in zip(first, instructions, strict=False)
        ]
        rows = np.concatenate(taken)
        self.index = index if len(rows) == len(index) else index.take(rows)
        self.num_examples = len(self.index)

    def __repr__(self) -> str:
        return f"<{self.info.full_name} {self.name}: {self.num_examples} clips>"

    @property
    def metadata(self) -> dict[str, Any]:
        """The metadata that the builder wrote."""
        return dict(self.info.metadata or {})

    def ids(self) -> list[str]:
        """Ids of the clips, by row."""
        return [i.decode() for i in self.index.columns["id"].tolist()]

    def files(self) -> np.ndarray:
        """Number of each clip's file, by row: see `files_of`."""
        return files_of(self.ids())

    def present(self, modality: str) -> np.ndarray:
        """Whether a clip has "audio" or "video": bool `(num_examples,)`."""
        return self.index.columns[f"has_{modality}"].astype(bool)

    def rows(
        self,
        indices: Sequence[int] | np.ndarray | None = None,
        keep: Sequence[str] = (),
    ) -> np.ndarray:
        """Rows that have some modalities, int64.

        Args:
            indices: rows to choose from; default: all.
            keep: modalities that a clip must have.

        Raises:
            ValueError: an index is not one of the split.
            UserError: no clip is left.
        """
        rows = np.arange(self.num_examples)
        if indices is not None:
            rows = np.asarray(indices, np.int64).reshape(-1)
        if len(rows) and not 0 <= rows.min() <= rows.max() < self.num_examples:
            raise ValueError(
                f"`indices` must be in [0, {self.num_examples}); received "
                f"{rows.min()} to {rows.max()}."
            )
        for modality in keep:
            rows = rows[self.present(modality)[rows]]
        if not len(rows):
            condition = f" that has {' and '.join(keep)}" if keep else ""
            raise UserError(
                f"{self.info.data_dir}: no clip of the split {self.name!r} is left"
                f"{condition}; choose others, or another split."
            )
        return rows

    def example(self, row: int) -> dict[str, Any]:
        """One stored example, decoded: a dict of NumPy arrays."""
        serialized = index_lib.RecordReader(self.index).read(row).numpy()
        example = self.info.features.deserialize_example_np(serialized)
        # Without a frame there is no height or width to take from TFDS.
        frames = list(example["frames"]) or np.zeros((0, 0, 0, 3), np.uint8)
        return {**example, "frames": np.asarray(frames)}

    # --- Labels ---

    @functools.cached_property
    def label_features(self) -> tuple[str, ...]:
        """The features that can be batched as labels."""
        return tuple(sorted(set(self._column_specs()) - set(_STORED_FORM)))

    def label_names(self, name: str) -> tuple[str, ...] | None:
        """Class names of a label feature; `None` if it has none."""
        feature = self._label_feature(name)
        feature = getattr(feature, "feature", feature)  # unwraps a sequence
        if isinstance(feature, tfds.features.ClassLabel):
            return tuple(feature.names)
        names = self.metadata.get("label_names", {}).get(name)
        return names and tuple(names)

    def num_classes(self, name: str) -> int:
        """Number of classes of a label feature.

        Raises:
            UserError: it is no label feature, or the data set does not say.
        """
        feature = self._label_feature(name)
        feature = getattr(feature, "feature", feature)
        if isinstance(feature, tfds.features.ClassLabel):
            return feature.num_classes
        spec, names = self._column_specs()[name], self.label_names(name)
        if names:
            return len(names)
        if spec.shape and isinstance(spec, tf.io.FixedLenFeature):
            return spec.shape[0]
        raise UserError(
            f"{self.info.data_dir}: does not say how many classes {name!r} has; make "
            "it a ClassLabel, or list them in the metadata as label_names."
        )

    def num_segments(self, name: str) -> int:
        """Number of segments of a clip of which each has a class; 0 for clips' labels.

        A label feature says so by being a sequence of classes of a fixed length.
        """
        feature = self._label_feature(name)
        spec = self._column_specs()[name]
        each = getattr(feature, "feature", None)
        is_fixed = isinstance(spec, tf.io.FixedLenFeature) and spec.shape
        is_class = isinstance(each, tfds.features.ClassLabel)
        return spec.shape[0] if is_fixed and is_class else 0

    def labels(self, name: str) -> np.ndarray:
        """All labels: `(num_examples,)`, or multi-hot `(num_examples, classes)`.

        Of segments, `(num_examples, segments)`.
        """
        self._label_feature(name)
        column = self.index.columns[name]
        if not isinstance(column, tf.RaggedTensor):
            return column
        hot = np.zeros((self.num_examples, self.num_classes(name)), np.uint8)
        # A negative class number says "none", as it does for a single label.
        rows, classes = column.value_rowids().numpy(), column.values.numpy()
        hot[rows[classes >= 0], classes[classes >= 0]] = 1
        return hot

    def class_of_clips(self, name: str = "label") -> list[str] | None:
        """The class of each clip in words, empty for none; None without such labels."""
        names = self.label_names(name) if name in self.label_features else None
        if not names or (classes := self.labels(name)).ndim > 1:
            return None
        return [names[i] if i >= 0 else "" for i in classes]

    def label_encoder(self, name: str) -> Callable[[tf.Tensor], tf.Tensor]:
        """Graph function from a parsed label feature to its form in a batch.

        That form is int32 for a class, float32 `(classes,)` for a set of classes.
        """
        self._label_feature(name)
        spec = self._column_specs()[name]
        if isinstance(spec, tf.io.FixedLenFeature):
            is_class = spec.dtype == tf.int64 and not spec.shape
            dtype = tf.int32 if is_class else tf.float32
            return lambda value: tf.cast(value, dtype)
        num_classes = self.num_classes(name)

        def multi_hot(classes: tf.Tensor) -> tf.Tensor:
            hot = tf.reduce_sum(tf.one_hot(classes, num_classes), axis=0)
            return tf.minimum(hot, 1.0)  # a class may be listed twice

        return multi_hot

    def _label_feature(self, name):
        if name not in self.label_features:
            raise UserError(
                f"{self.info.data_dir}: has no label {name!r} that can be batched; it "
                f"has: {', '.join(self.label_features) or 'none'}."
            )
        return self.info.features[name]

    # --- Records ---

    def parser(
        self, labels: Sequence[str] = ()
    ) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
        """Graph function from a serialized example to the features that a clip needs.

        Args:
            labels: label features to parse as well.

        Returns:
            A function to a dict of `audio` int16 `(samples,)`, `frames` string
            `(frames,)`, both empty where the modality is missing, `frame_rate`,
            `has_audio`, `has_video` and the labels.
        """
        features = self.info.features
        names = {"audio", "frames", "frame_rate", "has_audio", "has_video", *labels}
        specs = {k: features.tf_example_spec[k] for k in names}
        # Not TFDS's own decoding, which logs a deprecation warning for each graph
        # (4.9.10).
        raw = functools.partial(tf.io.decode_raw, out_type=tf.int16)
        decoders: dict[str, Callable[[tf.Tensor], tf.Tensor]] = {
            "bytes": raw,
            "zlib": lambda value: raw(tf.io.decode_compressed(value, "ZLIB")),
            "none": lambda value: tf.cast(value, tf.int16),
        }
        decode_audio = decoders[features["audio"].to_json_content().encoding]

        def parse(serialized: tf.Tensor) -> dict[str, tf.Tensor]:
            example = tf.io.parse_single_example(serialized, specs)
            example["audio"] = decode_audio(example["audio"])
            # The builder's flag decides, whatever it stored beside it.
            for name, flag in (("audio", "has_audio"), ("frames", "has_video")):
                count = tf.where(example[flag] != 0, tf.size(example[name]), 0)
                example[name] = example[name][:count]
            return example

        return parse

    def _column_specs(self):
        """The features small enough to keep in the index, and their `tf.io` specs."""
        columns = {}
        for name, spec in self.info.features.tf_example_spec.items():
            if name not in self.info.features:
                # A part of a nested feature: it has no name of its own to ask for.
                continue
            if isinstance(spec, tf.io.FixedLenFeature):
                is_small = spec.dtype in (tf.int64, tf.float32) and len(spec.shape) <= 1
            else:
                is_small = spec.dtype == tf.int64 and len(spec.shape) == 0
            if is_small or name == "id":
                columns[name] = spec
        return columns


def _fingerprint(info, split, shards):
    digest = hashlib.sha256(f"{info.full_name} {split}\n".encode())
    manifest = (info.metadata or {}).get("manifest_fingerprint", "")
    digest.update(manifest.encode())
    for shard in shards:
        # Without the modification time: a copy of the data set is the same data set.
        size, _ = index_lib.file_state(shard.path)
        name = os.path.basename(shard.path)
        digest.update(f"{name} {size} {shard.num_records}\n".encode())
    return digest.hexdigest()
