"""Clips per second and core of the training pipeline, compared with a usual loader.

    python benchmarks/input_pipeline.py

stores the same clips of 10 s twice, as a data set and as loose WAV and JPEG files (256
pixels on the shorter side), and reads them in two forms: CAV-MAE's (one frame of ten)
and AV-MAE's (16 frames). The usual loader does for each clip what the papers' loaders
do, in one Python process without workers: it reads the WAV file, computes Kaldi filter
banks, decodes the frames with Pillow, crops 224 pixels, normalises and collates
float32. Our pipeline ships samples and pixels, because filter banks and normalisation
are part of the model. Clips are counted per second of processor time, whatever the
number of threads.
"""

import argparse
import contextlib
import pathlib
import sys
import tempfile
import time
import wave
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import PIL.Image

# For `films` beside this file, and for a package that is not installed.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[0]))

from tfavmae.layers.pixels import IMAGENET_MEAN, IMAGENET_STD
from tfavmae.layers.spectrogram import FLOOR, STATISTICS, mel_banks, window

# 6.25 frames per second are every fourth of 25 (AV-MAE).
FORMS = {
    "CAV-MAE, 1 frame": {"num_frames": 1, "stored_rate": 1.0},
    "AV-MAE, 16 frames": {"num_frames": 16, "stored_rate": 6.25},
}
CROP, SECONDS, RATE = 224, 10.0, 16000
PIXEL_MEAN = np.array(IMAGENET_MEAN, np.float32)
PIXEL_STD = np.array(IMAGENET_STD, np.float32)
AUDIO_MEAN, AUDIO_STD = STATISTICS["cav_mae_audioset"]


# --- the clips, stored twice ----------------------------------------------------------


def decode_films(
    folder: pathlib.Path, num_distinct: int, stored_rate: float
) -> list[Any]:
    """Decoded clips, with `stored_rate` frames per second."""
    import films

    from tfavmae.media import decode

    films.write_folder(folder, num_distinct, num_distinct, SECONDS)
    return [
        decode.decode(path, frame_rate=stored_rate, shorter_side=256)
        for path in sorted(folder.glob("*.mp4"))
    ]


def store_loose(folder: pathlib.Path, clips: list[Any], num_clips: int) -> None:
    """Writes `clip/audio.wav` and `clip/frame_k.jpg`, as the authors' scripts do."""
    for index in range(num_clips):
        clip, place = clips[index % len(clips)], folder / f"{index:05d}"
        place.mkdir(parents=True)
        with wave.open(str(place / "audio.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(RATE)
            file.writeframes(clip.audio.tobytes())
        for k, jpeg in enumerate(clip.frames):
            (place / f"frame_{k:03d}.jpg").write_bytes(jpeg)


def store_dataset(
    folder: pathlib.Path, clips: list[Any], num_clips: int
) -> pathlib.Path:
    """Builds a TFDS data set of the clips and returns its folder."""
    import tensorflow_datasets as tfds

    from tfavmae.building.decoding import Row, to_example
    from tfavmae.building.features import example_features

    labels = {"label": tfds.features.ClassLabel(num_classes=10)}

    class Clips(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")
        name = "clips"

        def _info(self):
            features = example_features(labels)
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, _: Any) -> dict[str, Iterator]:
            return {"train": self._generate_examples()}

        def _generate_examples(self) -> Iterator[tuple[str, dict[str, Any]]]:
            for index in range(num_clips):
                row = Row(f"{index:05d}", "", labels={"label": index % 10})
                yield row.key, to_example(row, clips[index % len(clips)])

    tfds.disable_progress_bar()
    Clips(data_dir=folder).download_and_prepare()
    return folder / "clips" / "1.0.0"


# --- the usual loader -----------------------------------------------------------------


def read_wav(path: pathlib.Path) -> np.ndarray:
    """float32 samples in [-1, 1]."""
    with wave.open(str(path), "rb") as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), np.int16)
    return samples.astype(np.float32) / 32768


def kaldi_filter_banks(waveform: np.ndarray, num_bins: int = 80) -> np.ndarray:
    """Log-mel filter banks `(frames, num_bins)` by kaldi-native-fbank."""
    # It refuses the papers' 128 bins, one of which stays empty; 80 are less work, which
    # favours the usual loader.
    import kaldi_native_fbank

    options = kaldi_native_fbank.FbankOptions()
    options.frame_opts.dither = 0
    options.frame_opts.samp_freq = RATE
    options.frame_opts.window_type = "hanning"
    options.mel_opts.num_bins = num_bins
    options.use_energy = False
    computer = kaldi_native_fbank.OnlineFbank(options)
    computer.accept_waveform(RATE, waveform.tolist())
    computer.input_finished()
    frames = range(computer.num_frames_ready)
    return np.stack([computer.get_frame(i) for i in frames])


class NumpyFilterBanks:
    """torchaudio's filter banks in NumPy: 128 bins, one FFT call for all frames."""

    def __init__(self, num_bins: int = 128) -> None:
        self.window = window("hann", 400).astype(np.float32)
        self.banks = mel_banks(num_bins, RATE, 512).astype(np.float32)

    def __call__(self, waveform: np.ndarray) -> np.ndarray:
        # torchaudio itself is faster, but would bring PyTorch along: torch_input.py.
        frames = np.lib.stride_tricks.sliding_window_view(waveform, 400)[::160]
        frames = frames - frames.mean(axis=1, keepdims=True)
        previous = np.concatenate([frames[:, :1], frames[:, :-1]], axis=1)
        frames = (frames - 0.97 * previous) * self.window
        power = np.abs(np.fft.rfft(frames, 512)).astype(np.float32) ** 2
        return np.log(np.maximum(power @ self.banks, FLOOR))


def usual_item(
    place: pathlib.Path,
    form: dict[str, Any],
    filter_banks: Callable[[np.ndarray], np.ndarray],
    generator: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """A clip's spectrogram `(1024, bins)` and frames `(frames, 224, 224, 3)`."""
    waveform = read_wav(place / "audio.wav")
    banks = filter_banks(waveform - waveform.mean())
    spectrogram = np.zeros((1024, banks.shape[1]), np.float32)
    spectrogram[: len(banks)] = banks[:1024]
    spectrogram = (spectrogram - AUDIO_MEAN) / AUDIO_STD
    paths = sorted(place.glob("frame_*.jpg"))
    free = len(paths) - form["num_frames"] + 1
    first = generator.integers(free)
    frames, corner = [], None
    for path in paths[first : first + form["num_frames"]]:
        with PIL.Image.open(path) as image:
            width, height = image.size
            if corner is None:  # one crop for all frames of a clip
                corner = generator.integers([width - CROP + 1, height - CROP + 1])
            left, top = map(int, corner)
            box = (left, top, left + CROP, top + CROP)
            pixels = np.asarray(image.crop(box), np.float32)
        frames.append((pixels / 255 - PIXEL_MEAN) / PIXEL_STD)
    return spectrogram, np.stack(frames)


def usual_batches(
    folder: pathlib.Path,
    form: dict[str, Any],
    filter_banks: Callable[[np.ndarray], np.ndarray],
    batch_size: int,
) -> Iterator[dict[str, np.ndarray]]:
    """Endless batches of float32 spectrograms and frames."""
    generator = np.random.default_rng(0)
    places = sorted(folder.iterdir())
    while True:
        chosen = generator.choice(len(places), batch_size)
        items = [usual_item(places[i], form, filter_banks, generator) for i in chosen]
        yield {
            "audio": np.stack([item[0] for item in items]),
            "video": np.stack([item[1] for item in items]),
        }


# --- ours -----------------------------------------------------------------------------


def our_batches(
    dataset: pathlib.Path, form: dict[str, Any], batch_size: int
) -> Iterator[dict[str, np.ndarray]]:
    """Endless batches of our training pipeline, as NumPy arrays."""
    from tfavmae.data.augment import Augmentation
    from tfavmae.data.pipeline import ClipSpec, open_split

    is_single = form["num_frames"] == 1
    spec = ClipSpec(
        clip_seconds=SECONDS,
        num_frames=form["num_frames"],
        frame_size=(CROP, CROP),
        shorter_side=256,
        frame_stride_seconds=None if is_single else 1 / form["stored_rate"],
        labels=("label",),
        augmentation=Augmentation(random_crop=True),
    )
    split = open_split(str(dataset), "train")
    return split.training_batches(spec, batch_size, seed=0).as_numpy_iterator()


def reading_times(dataset: pathlib.Path, num_records: int) -> dict[str, float]:
    """Milliseconds of processor time for a record, in the file's order and by index."""
    import tensorflow as tf

    from tfavmae.data.index import RecordReader
    from tfavmae.data.pipeline import open_split

    index = open_split(str(dataset), "train").index
    rows = np.random.default_rng(0).integers(len(index), size=num_records)
    by_index = tf.data.Dataset.from_tensor_slices(rows).map(RecordReader(index).read)
    in_order = tf.data.TFRecordDataset(list(index.files)).repeat().take(num_records)
    times = {}
    for name, records in (("in order", in_order), ("by index", by_index)):
        begin = time.process_time()
        # A sum, so that neither pays for handing records to Python.
        int(records.reduce(0, lambda total, x: total + tf.strings.length(x)))
        times[name] = 1000 * (time.process_time() - begin) / num_records
    return times


def clips_per_cpu_second(
    batches: Iterable[dict[str, np.ndarray]], num_batches: int, batch_size: int
) -> tuple[float, float, float]:
    """Clips per second of processor time and of wall time, and bytes per clip."""
    batches = iter(batches)
    # The first batches pay for starting up. The source goes on after the last one, so
    # that as many prefetched batches wait at the end as did at the start.
    for _ in range(4):
        batch = next(batches)
    cpu, clock = time.process_time(), time.perf_counter()
    for _ in range(num_batches):
        batch = next(batches)
    cpu, clock = time.process_time() - cpu, time.perf_counter() - clock
    size = sum(np.asarray(value).nbytes for value in batch.values())
    clips = num_batches * batch_size
    return clips / cpu, clips / clock, size / batch_size


def form_folder(folder: pathlib.Path, name: str) -> pathlib.Path:
    """The folder of one of `FORMS` below that of `--keep`."""
    return folder / name.partition(",")[0].lower()


def measure(
    args: argparse.Namespace, form: dict[str, Any], folder: pathlib.Path
) -> dict[str, tuple[float, float, float]]:
    """Figures of `clips_per_cpu_second` by loader, ours last."""
    clips = decode_films(folder / "films", args.distinct, form["stored_rate"])
    if not (folder / "loose").exists():
        store_loose(folder / "loose", clips, args.clips)
    dataset = store_dataset(folder / "dataset", clips, args.clips)
    results = {}
    for name, banks in (
        ("usual, kaldi-native-fbank, 80 bins", kaldi_filter_banks),
        ("usual, numpy, 128 bins", NumpyFilterBanks()),
    ):
        batches = usual_batches(folder / "loose", form, banks, args.batch)
        results[name] = clips_per_cpu_second(batches, args.usual_batches, args.batch)
    batches = our_batches(dataset, form, args.batch)
    results["tfavmae"] = clips_per_cpu_second(batches, args.batches, args.batch)
    return results


def print_rows(name: str, results: dict[str, tuple[float, float, float]]) -> None:
    """Prints the figures of `clips_per_cpu_second` by loader."""
    print(f"{name}\n{'':36}{'clips/s/core':>14}{'kB/clip':>10}{'clips/s':>10}")
    for loader, (per_core, per_second, size) in results.items():
        print(f"  {loader:34}{per_core:14.1f}{size / 1000:10.0f}{per_second:10.1f}")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--clips", type=int, default=128)
    add("--distinct", type=int, default=4, help="number of films that are not copies")
    add("--batch", type=int, default=32)
    add("--batches", type=int, default=40, help="of ours to count")
    add("--usual-batches", type=int, default=6, help="of the usual loader")
    add("--records", type=int, default=2000, help="to read without decoding")
    add("--keep", type=pathlib.Path, help="folder to keep the clips in")
    args = parser.parse_args(arguments)
    with contextlib.ExitStack() as stack:
        folder = args.keep
        if folder is None:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
        for name, form in FORMS.items():
            results = measure(args, form, form_folder(pathlib.Path(folder), name))
            print_rows(name, results)
            dataset = form_folder(pathlib.Path(folder), name) / "dataset/clips/1.0.0"
            for order, milliseconds in reading_times(dataset, args.records).items():
                print(f"  {f'a record, {order}':40}{milliseconds:8.2f} ms")
            ours = results["tfavmae"][0]
            for loader, (per_core, _, _) in results.items():
                if loader != "tfavmae":
                    print(f"  {'over ' + loader:40}{ours / per_core:8.1f}x")


if __name__ == "__main__":
    main()
