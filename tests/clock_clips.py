"""A small data set whose samples and frames tell their own time."""

import io

import numpy as np
import PIL.Image
import tensorflow_datasets as tfds

from tfavmae.building.features import example_features
from tfavmae.data.pipeline import ClipSpec

RATE = 16_000
FRAME_RATE = 8.0
NUM_TRAIN = 23
SECONDS = 3.0
SPEC = ClipSpec(clip_seconds=1.0, frame_size=(24, 32), labels=("label", "tags"))


def jpeg(picture):
    content = io.BytesIO()
    PIL.Image.fromarray(picture).save(content, "JPEG", quality=90, subsampling=2)
    return content.getvalue()


def grey(value, height=24, width=32):
    return jpeg(np.full((height, width, 3), value, np.uint8))


def clock_example(number, has_audio=True, has_video=True):
    """Samples and frames that tell their own time: 2 samples or 1/8 s a step."""
    num_frames = int(SECONDS * FRAME_RATE)
    samples = (np.arange(int(SECONDS * RATE)) // 2).astype(np.int16)
    return {
        "id": f"clip-{number:03d}",
        "audio": samples if has_audio else samples[:0],
        "frames": [grey(8 * k) for k in range(num_frames)] if has_video else [],
        "frame_rate": FRAME_RATE,
        "has_audio": has_audio,
        "has_video": has_video,
        "label": number % 4,
        "events": np.eye(3, dtype=np.int8)[number % 3],
        "tags": [0, 2] if number % 2 else [],
        "moments": np.zeros((2, 2), np.float32),
        "caption": "a clip",
    }


def examples(split):
    if split == "train":
        # The last two lack a modality.
        return [
            clock_example(i, has_audio=i != 21, has_video=i != 22)
            for i in range(NUM_TRAIN)
        ]
    noise = np.random.default_rng(0).integers(0, 255, (3, 4, 3), dtype=np.uint8)
    picture = PIL.Image.fromarray(noise).resize((50, 40), PIL.Image.BICUBIC)
    frames = [jpeg(np.roll(np.asarray(picture), k, 1)) for k in range(9)]
    return [{**clock_example(i), "frames": frames} for i in range(2)]


class Clips(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")
    name = "clips"

    def _info(self):
        labels = {
            "label": tfds.features.ClassLabel(names=["a", "b", "c", "d"]),
            "events": tfds.features.Tensor(shape=(3,), dtype=np.int8),
            "tags": tfds.features.Sequence(tfds.features.ClassLabel(names=list("xyz"))),
            "moments": tfds.features.Tensor(shape=(None, 2), dtype=np.float32),
            "caption": tfds.features.Text(),
        }
        return tfds.core.DatasetInfo(builder=self, features=example_features(labels))

    def _split_generators(self, dl_manager):
        return {name: self._generate_examples(name) for name in ("train", "other")}

    def _generate_examples(self, split):
        for example in examples(split):
            yield example["id"], example


def build(directory):
    tfds.disable_progress_bar()
    config = tfds.download.DownloadConfig(num_shards=2)
    Clips(data_dir=directory).download_and_prepare(download_config=config)
    return directory / "clips" / "1.0.0"


def batches(dataset):
    return list(dataset.as_numpy_iterator())


def column(found, name):
    return np.concatenate([batch[name] for batch in found])


def assert_same(found, expected):
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            np.testing.assert_array_equal(a[key], b[key], err_msg=key)


def start_and_frame(batch):
    """First sample and number of the first frame, read off the clip itself."""
    frame = np.rint(batch["video"][:, 0].mean(axis=(1, 2, 3)) / 8)
    return batch["audio"][:, 0].astype(int) * 2, frame.astype(int)
