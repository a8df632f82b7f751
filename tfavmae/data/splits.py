"""A split of a built dataset: where it is, what it holds, how its labels read."""

import functools
import hashlib
import os
import re

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from tfavmae.data import index as index_lib
from tfavmae.data import remote
from tfavmae.errors import UserError

MODALITIES = ("audio", "video")
STORED_SAMPLE_RATE_HZ = 16_000
_STORED_FORM = ("id", "audio", "frames", "frame_rate", "has_audio", "has_video")
_VERSION = re.compile(r"\d+\.\d+\.\d+")


def open_info(dataset, data_dir=None):
    """TFDS's `DatasetInfo` of a built dataset, checked to be in our stored form."""
    directory = find_dataset(dataset, data_dir)
    description = remote.local_description(directory)
    info = tfds.builder_from_directory(description).info
    if description != directory:
        info.records_directory = directory
    missing = [name for name in _STORED_FORM if name not in info.features]
    if missing:
        raise UserError(
            f"{directory}: has no feature {', '.join(missing)}, so it is not in the "
            "form tfavmae stores clips in; build it with `tfavmae data build`"
        )
    if info.features["audio"].np_dtype != np.int16:
        raise UserError(
            f"{directory}: stores audio as {info.features['audio'].np_dtype}, not as "
            "int16; build it with `tfavmae data build`"
        )
    return info


def find_dataset(dataset, data_dir=None):
    """The directory with dataset_info.json of a dataset given by name or path."""
    default = os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")
    root = os.path.expanduser(data_dir or default)
    remote.enable(root)
    remote.enable(dataset)
    name = dataset.replace(":", "/") if _is_name(dataset) else dataset
    looked_at = [os.path.join(root, name), os.path.expanduser(dataset)]
    for path in looked_at:
        found = _newest_version(path)
        if found:
            return found
    raise UserError(
        f"dataset {dataset!r} was not found (looked in {' and '.join(looked_at)}); "
        f"make it with `tfavmae data build {dataset}`, or say where it is with data_dir"
    )


def _is_name(dataset):
    return re.fullmatch(r"\w+(/[\w.-]+)?(:[\d.]+)?", dataset) is not None


def _newest_version(path):
    """`path`, its newest version, or that of its only config; None if not built."""
    if tf.io.gfile.exists(os.path.join(path, "dataset_info.json")):
        return path
    if not tf.io.gfile.isdir(path):
        return None
    folders = sorted(f.rstrip("/") for f in tf.io.gfile.listdir(path))
    versions = [f for f in folders if _VERSION.fullmatch(f)]
    if versions:
        newest = max(versions, key=lambda v: [int(n) for n in v.split(".")])
        return _newest_version(os.path.join(path, newest))
    configs = [f for f in folders if _newest_version(os.path.join(path, f))]
    if len(configs) > 1:
        raise UserError(
            f"{path}: has several configs, name one of them: {', '.join(configs)}"
        )
    return _newest_version(os.path.join(path, configs[0])) if configs else None


def _located(info, filename):
    """Where a file of records is: beside its description, unless that was copied."""
    directory = getattr(info, "records_directory", None)
    if directory is None:
        return filename
    return f"{directory.rstrip('/')}/{os.path.basename(filename)}"


class Split:
    """What is known of the clips of one split without reading them again.

    Attributes:
        info: TFDS's `DatasetInfo`.
        name: of the split, as it was asked for.
        num_examples: number of clips.
        index: `RecordIndex` of the clips.
        fingerprint: sha256 over the dataset's name and version, the split, the manifest
            it was built from if there is one, and names, sizes and record counts of
            its files.
    """

    def __init__(self, info, split):
        self.info, self.name = info, split
        try:
            instructions = info.splits[split].file_instructions
        except (KeyError, ValueError):
            raise UserError(
                f"{info.data_dir}: there is no split {split!r}; there are: "
                f"{', '.join(sorted(info.splits))}"
            ) from None
        shards = [
            index_lib.Shard(_located(info, i.filename), i.examples_in_shard)
            for i in instructions
        ]
        self.fingerprint = _fingerprint(info, split, shards)
        index = index_lib.load_or_build(shards, self._column_specs(), info.data_dir)
        self.index = _sliced(index, instructions)
        self.num_examples = len(self.index)
        if not self.num_examples:
            raise UserError(f"{info.data_dir}: the split {split!r} has no clips")

    def __repr__(self):
        return f"<{self.info.full_name} {self.name}: {self.num_examples} clips>"

    @property
    def metadata(self):
        """What the builder wrote into the dataset's metadata."""
        return dict(self.info.metadata or {})

    def ids(self):
        """The clips' ids, by row."""
        return [i.decode() for i in self.index.columns["id"].tolist()]

    def present(self, modality):
        """bool `(num_examples,)`: which clips have "audio" or "video"."""
        return self.index.columns[f"has_{modality}"].astype(bool)

    def rows(self, indices=None, keep=()):
        """int64 rows among `indices` (default all) that have the modalities `keep`."""
        rows = np.arange(self.num_examples)
        if indices is not None:
            rows = np.asarray(indices, np.int64).reshape(-1)
        if len(rows) and not 0 <= rows.min() <= rows.max() < self.num_examples:
            raise ValueError(
                f"`indices` must be in [0, {self.num_examples}). Received: "
                f"{rows.min()} to {rows.max()}."
            )
        for modality in keep:
            rows = rows[self.present(modality)[rows]]
        if not len(rows):
            raise UserError(
                f"{self.info.data_dir}: no clip of the split {self.name!r} is left"
                + (f" that has {' and '.join(keep)}" if keep else "")
            )
        return rows

    def example(self, row):
        """One stored example, decoded: a dict of numpy arrays."""
        serialized = index_lib.RecordReader(self.index).read(row).numpy()
        example = self.info.features.deserialize_example_np(serialized)
        frames = list(example["frames"]) or np.zeros((0, 0, 0, 3), np.uint8)
        return {**example, "frames": np.asarray(frames)}

    # --- Labels ---

    @functools.cached_property
    def label_features(self):
        """The features that can be batched as labels."""
        specs = self._column_specs()
        return tuple(sorted(set(specs) - set(_STORED_FORM)))

    def label_names(self, name):
        """The names of the classes of a label feature, None if it has none."""
        feature = self._label_feature(name)
        feature = getattr(feature, "feature", feature)  # that of a sequence
        if isinstance(feature, tfds.features.ClassLabel):
            return tuple(feature.names)
        names = self.metadata.get("label_names", {}).get(name)
        return names and tuple(names)

    def num_classes(self, name):
        """How many classes a label feature has."""
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
            "it a ClassLabel, or list them in the metadata as label_names"
        )

    def labels(self, name):
        """All labels: `(num_examples,)`, or multi-hot `(num_examples, classes)`."""
        self._label_feature(name)
        column = self.index.columns[name]
        if not isinstance(column, tf.RaggedTensor):
            return column
        hot = np.zeros((self.num_examples, self.num_classes(name)), np.uint8)
        rows, classes = column.value_rowids().numpy(), column.values.numpy()
        hot[rows[classes >= 0], classes[classes >= 0]] = 1
        return hot

    def label_encoder(self, name):
        """Graph function from a parsed label feature to what a batch holds of it."""
        self._label_feature(name)
        spec = self._column_specs()[name]
        if isinstance(spec, tf.io.FixedLenFeature):
            is_class = spec.dtype == tf.int64 and not spec.shape
            dtype = tf.int32 if is_class else tf.float32
            return lambda value: tf.cast(value, dtype)
        num_classes = self.num_classes(name)

        def multi_hot(classes):
            hot = tf.reduce_sum(tf.one_hot(classes, num_classes), axis=0)
            return tf.minimum(hot, 1.0)

        return multi_hot

    def _label_feature(self, name):
        if name not in self.label_features:
            raise UserError(
                f"{self.info.data_dir}: has no label {name!r} that can be batched; it "
                f"has: {', '.join(self.label_features) or 'none'}"
            )
        return self.info.features[name]

    # --- Records ---

    def parser(self, labels=()):
        """Graph function from a serialized example to what a clip needs of it."""
        features = self.info.features
        decode_audio = _audio_decoder(features["audio"])
        names = {"audio", "frames", "frame_rate", "has_audio", "has_video", *labels}
        specs = {k: features.tf_example_spec[k] for k in names}

        def parse(serialized):
            example = tf.io.parse_single_example(serialized, specs)
            audio = decode_audio(example["audio"])
            # What a builder says is missing is missing, whatever it stored there.
            example["audio"] = audio[: _count(example["has_audio"], audio)]
            frames = example["frames"]
            example["frames"] = frames[: _count(example["has_video"], frames)]
            return example

        return parse

    def _column_specs(self):
        """The features small enough to keep in the index."""
        specs = self.info.features.tf_example_spec.items()
        return {k: s for k, s in specs if k == "id" or _is_small(s, self.info, k)}


def _audio_decoder(feature):
    # TFDS's own decoding logs a deprecation warning of its own for each graph.
    raw = functools.partial(tf.io.decode_raw, out_type=tf.int16)
    return {
        "bytes": raw,
        "zlib": lambda value: raw(tf.io.decode_compressed(value, "ZLIB")),
        "none": lambda value: tf.cast(value, tf.int16),
    }[feature.to_json_content().encoding]


def _count(is_there, values):
    return tf.where(is_there != 0, tf.size(values), 0)


def _is_small(spec, info, name):
    if name not in info.features or spec.dtype not in (tf.int64, tf.float32):
        return False
    if isinstance(spec, tf.io.FixedLenFeature):
        return len(spec.shape) <= 1
    return spec.dtype == tf.int64 and len(spec.shape) == 0


def _sliced(index, instructions):
    """The rows of `index` that a split such as "train[10%:]" takes."""
    starts = np.cumsum([0, *(i.examples_in_shard for i in instructions)])
    parts = [
        np.arange(start + i.skip, start + i.skip + i.take)
        for start, i in zip(starts, instructions, strict=False)
    ]
    rows = np.concatenate(parts)
    return index if len(rows) == len(index) else index.take(rows)


def _fingerprint(info, split, shards):
    digest = hashlib.sha256(f"{info.full_name} {split}\n".encode())
    manifest = (info.metadata or {}).get("manifest_fingerprint", "")
    digest.update(manifest.encode())
    for shard in shards:
        size, _ = index_lib.file_state(shard.path)
        name = os.path.basename(shard.path)
        digest.update(f"{name} {size} {shard.num_records}\n".encode())
    return digest.hexdigest()
