"""Clips per second and core of the training pipeline, beside a usual loader.

    python benchmarks/input_pipeline.py

stores the same clips of 10 s twice, as a data set and as loose WAV and JPEG files (256
pixels on the shorter side), and reads them in two forms: CAV-MAE's (one frame of ten)
and AV-MAE's (16 frames). The usual loader does for each clip, in one Python process
without workers, what the papers' loaders do: it reads the WAV file, computes the Kaldi
filter banks, decodes the frames with Pillow, crops 224 pixels, normalises and collates
float32. The pipeline ships samples and pixels, because filter banks and normalisation
are part of the model. Both are counted per second of CPU time, on as many threads as
they please.
"""

import argparse
import pathlib
import sys
import tempfile
import time
import wave

import numpy as np
import PIL.Image

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parents[i]) for i in (0, 1)]

FORMS = {
    "CAV-MAE, 1 frame": {"num_frames": 1, "stored_rate": 1.0},
    "AV-MAE, 16 frames": {"num_frames": 16, "stored_rate": 6.25},
}
CROP, SECONDS, RATE = 224, 10.0, 16000
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)


# --- the clips, stored twice ----------------------------------------------------------


def decode_films(folder, num_distinct, stored_rate):
    import films

    from tfavmae.media import decode

    films.write_folder(folder, num_distinct, num_distinct, SECONDS)
    return [
        decode.decode(path, frame_rate=stored_rate, shorter_side=256)
        for path in sorted(folder.glob("*.mp4"))
    ]


def store_loose(folder, clips, num_clips):
    """`clip/audio.wav` and `clip/frame_k.jpg`, as peers' preparation leaves them."""
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


def store_dataset(folder, clips, num_clips):
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

        def _split_generators(self, _):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for index in range(num_clips):
                row = Row(f"{index:05d}", "", labels={"label": index % 10})
                yield row.key, to_example(row, clips[index % len(clips)])

    tfds.disable_progress_bar()
    Clips(data_dir=folder).download_and_prepare()
    return folder / "clips" / "1.0.0"


# --- the usual loader -----------------------------------------------------------------


def read_wav(path):
    with wave.open(str(path), "rb") as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), np.int16)
    return samples.astype(np.float32) / 32768


def kaldi_filter_banks(waveform, num_bins=80):
    """kaldi-native-fbank; it refuses the papers' 128 bins: 80, which is less work."""
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
    """What torchaudio does, in numpy: 128 bins, one FFT for all frames."""

    def __init__(self, num_bins=128):
        from tfavmae.layers.spectrogram import mel_banks

        n = np.arange(400)
        window = 0.5 - 0.5 * np.cos(2 * np.pi * n / 399)
        self.window = window.astype(np.float32)
        self.banks = mel_banks(num_bins, RATE, 512).astype(np.float32)

    def __call__(self, waveform):
        frames = np.lib.stride_tricks.sliding_window_view(waveform, 400)[::160]
        frames = frames - frames.mean(axis=1, keepdims=True)
        previous = np.concatenate([frames[:, :1], frames[:, :-1]], axis=1)
        frames = (frames - 0.97 * previous) * self.window
        power = np.abs(np.fft.rfft(frames, 512)).astype(np.float32) ** 2
        return np.log(np.maximum(power @ self.banks, 1.1920929e-07))


def usual_item(place, form, filter_banks, generator):
    waveform = read_wav(place / "audio.wav")
    banks = filter_banks(waveform - waveform.mean())
    spectrogram = np.zeros((1024, banks.shape[1]), np.float32)
    spectrogram[: len(banks)] = banks[:1024]
    spectrogram = (spectrogram + 5.081) / 4.4849
    paths = sorted(place.glob("frame_*.jpg"))
    free = len(paths) - form["num_frames"] + 1
    first = generator.integers(free)
    frames, corner = [], None
    for path in paths[first : first + form["num_frames"]]:
        with PIL.Image.open(path) as image:
            width, height = image.size
            if corner is None:
                corner = generator.integers([width - CROP + 1, height - CROP + 1])
            left, top = map(int, corner)
            box = (left, top, left + CROP, top + CROP)
            pixels = np.asarray(image.crop(box), np.float32)
        frames.append((pixels / 255 - MEAN) / STD)
    return spectrogram, np.stack(frames)


def usual_batches(folder, form, filter_banks, batch_size):
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


def our_batches(dataset, form, batch_size):
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


def clips_per_cpu_second(batches, num_batches, batch_size):
    """Clips per second of CPU and of the clock, and bytes per clip.

    The first batches pay for starting. More are made than counted, so that as many lie
    ready at the end as at the start.
    """
    batches = iter(batches)
    for _ in range(4):
        batch = next(batches)
    cpu, clock = time.process_time(), time.perf_counter()
    for _ in range(num_batches):
        batch = next(batches)
    cpu, clock = time.process_time() - cpu, time.perf_counter() - clock
    size = sum(np.asarray(value).nbytes for value in batch.values())
    clips = num_batches * batch_size
    return clips / cpu, clips / clock, size / batch_size


def measure(args, form, folder):
    clips = decode_films(folder / "films", args.distinct, form["stored_rate"])
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


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--clips", type=int, default=128)
    add("--distinct", type=int, default=4, help="how many are really different")
    add("--batch", type=int, default=32)
    add("--batches", type=int, default=40, help="counted, of the pipeline")
    add("--usual-batches", type=int, default=6, help="counted, of the usual loader")
    args = parser.parse_args(arguments)
    for name, form in FORMS.items():
        with tempfile.TemporaryDirectory() as folder:
            results = measure(args, form, pathlib.Path(folder))
        ours = results["tfavmae"][0]
        print(f"{name}\n{'':36}{'clips/s/core':>14}{'kB/clip':>10}{'clips/s':>10}")
        for loader, (per_core, per_second, size) in results.items():
            print(f"  {loader:34}{per_core:14.1f}{size / 1000:10.0f}{per_second:10.1f}")
        for loader, (per_core, _, _) in results.items():
            if loader != "tfavmae":
                print(f"  {'over ' + loader:40}{ours / per_core:8.1f}x")


if __name__ == "__main__":
    main()
