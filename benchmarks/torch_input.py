"""Yardstick: loaders of PyTorch for the clips of `input_pipeline.py`.

    pip install torch torchaudio torchcodec keras pillow pyyaml  # and FFmpeg
    python benchmarks/input_pipeline.py --keep FOLDER
    KERAS_BACKEND=torch python benchmarks/torch_input.py FOLDER

reads what the first command kept, without TensorFlow, in two ways:

- `torchaudio`: the usual loader of WAV and JPEG files with torchaudio's filter banks,
  as in the papers' code.
- `torchcodec`: the films themselves, whose frames and audio torchcodec decodes when
  they are asked for, and torchaudio's filter banks.

Both give float32 filter banks `(1024, 128)` and frames of 224 pixels, and both are read
by a `torch.utils.data.DataLoader`: without workers for clips per second of processor
time, and with `--workers` for clips per second of wall time.
"""

import argparse
import pathlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torchaudio.compliance.kaldi

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[0]))

from input_pipeline import (
    AUDIO_MEAN,
    AUDIO_STD,
    CROP,
    FORMS,
    PIXEL_MEAN,
    PIXEL_STD,
    RATE,
    SECONDS,
    clips_per_cpu_second,
    form_folder,
    print_rows,
    usual_item,
)

Item = dict[str, torch.Tensor]


def filter_banks(waveform: np.ndarray | torch.Tensor) -> np.ndarray:
    """torchaudio's filter banks `(frames, 128)` of a waveform `(samples,)`."""
    banks = torchaudio.compliance.kaldi.fbank(
        torch.as_tensor(waveform)[None],
        htk_compat=True,
        sample_frequency=RATE,
        use_energy=False,
        window_type="hanning",
        num_mel_bins=128,
        dither=0.0,
        frame_shift=10,
    )
    return banks.numpy()


class LooseFiles(torch.utils.data.Dataset):
    """Clips of a folder of WAV and JPEG files.

    Args:
        folder: with a folder for each clip, see `input_pipeline.store_loose`.
        form: one of `FORMS`.
    """

    def __init__(self, folder: pathlib.Path, form: dict[str, Any]) -> None:
        self.places, self.form = sorted(folder.iterdir()), form

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Item:
        generator = np.random.default_rng(int(torch.randint(2**31, ())))
        audio, video = usual_item(
            self.places[index], self.form, filter_banks, generator
        )
        return {"audio": torch.from_numpy(audio), "video": torch.from_numpy(video)}


class Films(torch.utils.data.Dataset):
    """Clips of a folder of films, decoded by torchcodec.

    Args:
        folder: with `*.mp4`.
        form: one of `FORMS`.
        num_clips: length of the data set, which goes round the films.
    """

    def __init__(
        self, folder: pathlib.Path, form: dict[str, Any], num_clips: int
    ) -> None:
        self.paths, self.form = sorted(folder.glob("*.mp4")), form
        self.num_clips = num_clips

    def __len__(self) -> int:
        return self.num_clips

    def __getitem__(self, index: int) -> Item:
        path = self.paths[index % len(self.paths)]
        return {"audio": self._audio(path), "video": self._video(path)}

    def _audio(self, path: pathlib.Path) -> torch.Tensor:
        from torchcodec.decoders import AudioDecoder

        decoder = AudioDecoder(path, sample_rate=RATE, num_channels=1)
        waveform = decoder.get_all_samples().data[0, : round(SECONDS * RATE)]
        banks = torch.from_numpy(filter_banks(waveform - waveform.mean()))[:1024]
        banks = torch.nn.functional.pad(banks, (0, 0, 0, 1024 - len(banks)))
        return (banks - AUDIO_MEAN) / AUDIO_STD

    def _video(self, path: pathlib.Path) -> torch.Tensor:
        from torchcodec.decoders import VideoDecoder

        decoder = VideoDecoder(path, num_ffmpeg_threads=1)
        rate, count = self.form["stored_rate"], self.form["num_frames"]
        free = int(SECONDS * rate) - count + 1
        first = int(torch.randint(free, ()))
        times = [(first + k) / rate for k in range(count)]
        frames = decoder.get_frames_played_at(times).data
        height, width = frames.shape[-2:]
        scale = 256 / min(height, width)
        size = [round(height * scale), round(width * scale)]
        frames = torch.nn.functional.interpolate(
            frames, size, mode="bilinear", antialias=True
        )
        top, left = (int(torch.randint(side - CROP + 1, ())) for side in size)
        frames = frames[..., top : top + CROP, left : left + CROP]
        frames = frames.permute(0, 2, 3, 1) / 255  # (frames, height, width, 3)
        return (frames - torch.from_numpy(PIXEL_MEAN)) / torch.from_numpy(PIXEL_STD)


def batches(
    dataset: torch.utils.data.Dataset, batch_size: int, workers: int
) -> Iterator[dict[str, np.ndarray]]:
    """Endless shuffled batches of a `DataLoader`, as NumPy arrays."""
    loader = torch.utils.data.DataLoader(
        dataset,
        batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
    )
    while True:
        for batch in loader:
            yield {name: value.numpy() for name, value in batch.items()}


def measure(
    dataset: torch.utils.data.Dataset, num_batches: int, batch_size: int, workers: int
) -> tuple[float, float, float]:
    """Clips per second of processor time, clips per second, and bytes per clip."""
    alone = batches(dataset, batch_size, 0)
    per_core, _, size = clips_per_cpu_second(alone, num_batches, batch_size)
    shared = batches(dataset, batch_size, workers)
    _, per_second, _ = clips_per_cpu_second(shared, num_batches, batch_size)
    return per_core, per_second, size


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("folder", type=pathlib.Path, help="what `input_pipeline.py --keep` wrote")
    add("--only", choices=("torchaudio", "torchcodec"))
    add("--batch", type=int, default=32)
    add("--batches", type=int, default=6)
    add("--workers", type=int, default=2)
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    for name, form in FORMS.items():
        folder = form_folder(args.folder, name)
        loose = LooseFiles(folder / "loose", form)
        sets = {
            "torchaudio": loose,
            "torchcodec": Films(folder / "films", form, len(loose)),
        }
        rows = {
            f"PyTorch {torch.__version__}, {loader}": measure(
                dataset, args.batches, args.batch, args.workers
            )
            for loader, dataset in sets.items()
            if args.only in (None, loader)
        }
        print_rows(name, rows)


if __name__ == "__main__":
    main()
