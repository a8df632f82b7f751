"""`tfavmae statistics`: mean and deviation of a data set's spectrograms."""

import argparse
import math
from typing import Any

from tfavmae.commands.arguments import add_command, count, seconds


def add_parser(commands: Any) -> None:
    """Adds `statistics` to the subcommands."""
    parser = add_command(
        commands,
        "statistics",
        run,
        summary="measure the mean and the deviation of a data set's spectrograms",
        example="tfavmae statistics sounding_shapes/demo --data-dir data",
        figures=True,
    )
    add = parser.add_argument
    add("name", metavar="NAME", help="data set, by name or folder")
    add("--data-dir", metavar="DIR", help="its folder; default: ~/tensorflow_datasets")
    add("--split", metavar="NAME", default="train", help="default: train")
    add(
        "--clip-seconds",
        type=seconds,
        default=10.0,
        metavar="S",
        help="middle part of each clip (default: 10)",
    )
    add("--clips", type=count, metavar="N", help="measure the first N; default: all")
    add("--mel-bins", type=count, default=128, metavar="N", help="default: 128")
    add(
        "--variant",
        metavar="NAME",
        choices=("kaldi", "av_mae"),
        default="kaldi",
        help="kaldi (default) or av_mae",
    )


def run(args: argparse.Namespace) -> dict[str, float]:
    """Runs the command; returns the figures."""
    from tfavmae.data.pipeline import open_split
    from tfavmae.data.statistics import spectrogram_statistics
    from tfavmae.layers.spectrogram import LogMelSpectrogram

    split = open_split(args.name, args.split, args.data_dir)
    num_frames = math.ceil(round(100 * args.clip_seconds, 3))  # 10 ms apart
    front_end = LogMelSpectrogram(num_frames, args.mel_bins, variant=args.variant)
    mean, std, num_clips = spectrogram_statistics(
        split, front_end, args.clip_seconds, args.clips
    )
    print(f"{num_clips} clips of {split.info.full_name} {args.split}")
    print(f"--set model.audio.mean={mean:.4f} --set model.audio.std={std:.4f}")
    return {"mean": mean, "std": std, "num_clips": num_clips}
