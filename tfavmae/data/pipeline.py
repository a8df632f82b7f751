"""Input pipeline: batches of int16 audio and uint8 video from the TFRecords of a split.

The order of the clips and every random choice are functions of (seed, position), so a
run can start at any step, on any number of hosts and with any number of threads, and
reads the same numbers. Only the JPEGs that a clip needs are decoded.
"""

import dataclasses
import warnings
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from tfavmae.data import clip_sampling, sampling, service
from tfavmae.data.clip_spec import ClipSpec
from tfavmae.data.index import RecordReader, naming_damage
from tfavmae.data.splits import Split, open_info
from tfavmae.data.text import check_captions
from tfavmae.errors import InputWarning

_CAPTION = 3  # the stream of the draw of a caption

__all__ = ["ClipSpec", "ClipSplit", "naming_damage", "open_split"]


def open_split(dataset: str, split: str, data_dir: str | None = None) -> "ClipSplit":
    """Opens a split of a TFDS data set in the stored form of tfavmae.

    Args:
        dataset: "name", "name/config", either with ":version", or the path of a built
            data set. The builder's code is not needed.
        split: name of the split, slices as in TFDS ("train[:90%]") included.
        data_dir: folder of the data sets, for a name; default: `TFDS_DATA_DIR` or
            `~/tensorflow_datasets`.

    Raises:
        UserError: the data set or the split does not exist, or a file is damaged.
    """
    return ClipSplit(open_info(dataset, data_dir), split)


class ClipSplit(Split):
    """A split that gives batches of clips; see `open_split`.

    ```python
    split = open_split("sounding_shapes/demo", "train", "data")
    spec = ClipSpec(clip_seconds=2.0, frame_size=(64, 64), labels=("label",))
    for batch in split.training_batches(spec, 32, seed=0, num_steps=100):
        ...
    ```

    A batch is a dict: `audio` int16 `(batch, samples)`, `audio_samples` int32
    `(batch,)`, `video` uint8 `(batch, frames, height, width, 3)`, `audio_present`,
    `video_present` and `sample_weight` float32 `(batch,)`, `example_index` int32
    `(batch,)` (the row in the split; -1 for padding), and the labels: int32
    `(batch,)` for a class, float32 `(batch, classes)` for a set of classes.
    """

    def training_batches(
        self,
        spec: ClipSpec,
        batch_size: int,
        *,
        seed: int,
        start_step: int = 0,
        num_steps: int | None = None,
        indices: Sequence[int] | np.ndarray | None = None,
        keep: Sequence[str] = (),
        sampling_weights: np.ndarray | None = None,
        replacement: bool = True,
        draws_per_epoch: int | None = None,
        shuffle_pairs: bool = False,
        host_index: int = 0,
        host_count: int = 1,
        num_parallel_calls: int = tf.data.AUTOTUNE,
        services: Sequence[str] = (),
    ) -> tf.data.Dataset:
        """Shuffled batches without end, a pure function of `seed` and the step.

        Every clip comes once per epoch; epochs follow each other without a gap, so
        no clip is dropped and a batch may hold the end of one and the start of the
        next.

        Args:
            spec: settings of the clips.
            batch_size: global batch size, over all hosts.
            seed: seed of order, windows and augmentation.
            start_step: first step; starting late costs nothing.
            num_steps: number of steps, `None` for no end.
            indices: rows to use; default: all.
            keep: modalities that a clip must have to be used.
            sampling_weights: `(num_examples,)`; draws clips in proportion to these
                instead of in epochs, see `sampling.balanced_weights`.
            replacement: whether the same clip may be drawn twice in an epoch.
            draws_per_epoch: length of an epoch drawn without replacement; default:
                the number of clips with a weight.
            shuffle_pairs: whether a clip gets the frames of another one, always of the
                same, see `sampling.shuffled_pairs`.
            host_index: this host; it reads `batch_size / host_count` rows of every
                batch, from row `host_index * batch_size / host_count` on.
            host_count: number of hosts.
            num_parallel_calls: clips decoded at a time; affects only the speed.
            services: addresses of `tf.data` services whose workers make the batches,
                see `tfavmae.data.service`; affects only the speed.

        Returns:
            `tf.data.Dataset` of batches of `batch_size / host_count` clips.

        Raises:
            ValueError: an argument is out of its range.
            UserError: no clip is left, a label does not exist, or `shuffle_pairs` has a
                single clip.
        """
        rows = self.rows(indices, keep)
        share = sampling.HostShare(batch_size, host_index, host_count)
        positions = share.positions(start_step)
        if sampling_weights is None:
            order = sampling.shuffled(positions, len(rows), seed)
        elif replacement:
            weights = np.asarray(sampling_weights)[rows]
            order = sampling.drawn(positions, weights, seed)
        else:
            weights = np.asarray(sampling_weights)[rows]
            order = sampling.drawn_without_replacement(
                weights, draws_per_epoch, share, start_step, seed
            )
        local = share.local_batch_size
        filmed = sampling.shuffled_pairs(rows, seed) if shuffle_pairs else rows
        rows, filmed = tf.constant(rows), tf.constant(filmed)
        make_clip = self._clip_maker(spec)

        def clip(position: tf.Tensor, place: tf.Tensor) -> dict[str, tf.Tensor]:
            # Of the position, not of the row: the next epoch cuts the clip differently.
            key = tf.stack([tf.constant(seed, tf.int64), position])
            view = tf.constant(0, tf.int64)
            other = filmed[place] if shuffle_pairs else None
            return make_clip(rows[place], key, view, 1, other)

        def batches(order: tf.data.Dataset, num_steps: int) -> tf.data.Dataset:
            clips = order.map(clip, num_parallel_calls, deterministic=True)
            return _batches(clips, local, num_steps)

        count = tf.data.INFINITE_CARDINALITY if num_steps is None else num_steps
        if services:
            return service.spread(services, order, local, count, batches)
        if num_steps is not None:
            order = order.take(num_steps * local)
        return batches(order, count)

    def evaluation_batches(
        self,
        spec: ClipSpec,
        batch_size: int,
        *,
        indices: Sequence[int] | np.ndarray | None = None,
        keep: Sequence[str] = (),
        num_views: int = 1,
        host_index: int = 0,
        host_count: int = 1,
        num_parallel_calls: int = tf.data.AUTOTUNE,
    ) -> tf.data.Dataset:
        """Batches with every view of every clip exactly once, in the order of the rows.

        The last batch is filled up with repeats of the first clip that have
        `sample_weight` 0 and `example_index` -1.

        Args:
            spec: settings of the clips; used with `train=False`.
            batch_size: global batch size, over all hosts.
            indices: rows to use; default: all.
            keep: modalities that a clip must have to be used.
            num_views: windows (of a longer clip) and frames spread evenly over the
                clip, each a row of the batch with the same `example_index`.
            host_index: as in `training_batches`.
            host_count: number of hosts.
            num_parallel_calls: clips decoded at a time; affects only the speed.

        Returns:
            `tf.data.Dataset` of batches of `batch_size / host_count` rows.

        Raises:
            ValueError: an argument is out of its range.
            UserError: no clip is left, or a label does not exist.
        """
        rows = tf.constant(self.rows(indices, keep))
        share = sampling.HostShare(batch_size, host_index, host_count)
        total = len(rows) * num_views
        num_steps = -(-total // batch_size)  # rounded up
        make_clip = self._clip_maker(dataclasses.replace(spec, train=False))

        def clip(position: tf.Tensor) -> dict[str, tf.Tensor]:
            is_real = position < total
            item = tf.where(is_real, position, 0)
            row, view = rows[item // num_views], item % num_views
            out = make_clip(row, tf.zeros([2], tf.int64), view, num_views)
            index = tf.where(is_real, out["example_index"], -1)
            weight = tf.cast(is_real, tf.float32)
            return {**out, "example_index": index, "sample_weight": weight}

        local = share.local_batch_size
        positions = share.positions(0).take(num_steps * local)
        clips = positions.map(clip, num_parallel_calls, deterministic=True)
        return _batches(clips, local, num_steps)

    def _clip_maker(self, spec: ClipSpec) -> Callable[..., dict[str, tf.Tensor]]:
        """A graph function to one clip of a batch.

        It takes `(row, key, view, num_views, filmed)`: `filmed` is the row whose frames
        the clip gets, `None` for its own.
        """
        labels = {name: self.label_encoder(name) for name in spec.labels}
        if spec.frame_stride_seconds and "video" in spec.modalities:
            self._check_stride(spec.frame_stride_seconds, spec.num_frames)
        captions, features = spec.captions, spec.labels
        if captions is not None:
            check_captions(self, captions.feature)
            features = (*features, captions.feature)
        reader, parse = RecordReader(self.index), self.parser(features)

        def make_clip(
            row: tf.Tensor,
            key: tf.Tensor,
            view: tf.Tensor,
            num_views: int,
            filmed: tf.Tensor | None = None,
        ) -> dict[str, tf.Tensor]:
            example = parse(reader.read(row))
            if filmed is not None:
                other = parse(reader.read(filmed))
                example |= {k: other[k] for k in ("frames", "frame_rate")}
            file, record = reader.place(row if filmed is None else filmed)
            keys = tf.random.split(key, 3)
            window = clip_sampling.choose(spec, example, keys[0], view, num_views)
            clip = {
                "example_index": tf.cast(row, tf.int32),
                "sample_weight": tf.constant(1.0),
            }
            for name, encode in labels.items():
                clip[name] = encode(example[name])
            if captions is not None:
                # Not one of `keys`: clips are cut the same with captions or without.
                drawn = tf.random.experimental.stateless_fold_in(key, _CAPTION)
                clip |= captions.cut(example, drawn, spec.train)
            if "audio" in spec.modalities:
                clip |= clip_sampling.cut_audio(spec, example["audio"], window, keys[1])
            if "video" in spec.modalities:
                frames = example["frames"]
                clip |= clip_sampling.cut_video(
                    spec, frames, window, keys[2], file, record
                )
            return clip

        return make_clip

    def _check_stride(self, stride_seconds: float, num_frames: int) -> None:
        """Warns if the stored frames do not lie where the stride needs them."""
        rates, counts = np.unique(
            self.index.columns["frame_rate"][self.present("video")], return_counts=True
        )
        steps = rates[:, None] * stride_seconds * np.arange(num_frames)
        steps = np.diff(np.round(steps), axis=1)
        is_uneven = ((steps == 0) | (steps != steps[:, :1])).any(axis=1)
        if not is_uneven.any():
            return
        worst = np.argmax(counts * is_uneven)
        rate, apart = rates[worst], ", ".join(f"{n:g}" for n in steps[worst, :5])
        enough = max(np.ceil(rate * stride_seconds - 1e-3), 1) / stride_seconds
        # The same text for all splits: Python shows a warning that it knows only once.
        warnings.warn(
            f"{self.info.full_name}: stores {rate:g} frames per second, which "
            f"data.frame_stride_seconds={stride_seconds:g} does not fit: the frames of "
            f"a clip are {apart}, ... stored frames apart. Build it with "
            f"frame_rate={enough:g} for equal steps.",
            InputWarning,
            stacklevel=2,
        )


def _batches(clips: tf.data.Dataset, batch_size: int, num_steps: int):
    batches = clips.batch(batch_size, drop_remainder=True)
    options = tf.data.Options()
    options.deterministic = True
    # Clips are written to their place in the batch: one copy less.
    options.experimental_optimization.map_and_batch_fusion = True
    # Clips share the cores; dividing one clip's arithmetic as well costs more than it
    # brings.
    options.threading.max_intra_op_parallelism = 1
    # Hosts share by position; tf.distribute must not divide the files once more.
    policy = tf.data.experimental.AutoShardPolicy.OFF
    options.experimental_distribute.auto_shard_policy = policy
    # tf.data cannot count behind a `filter`, as of draws without replacement.
    cardinality = tf.data.experimental.assert_cardinality(num_steps)
    return batches.apply(cardinality).with_options(options).prefetch(2)
