"""`statistics`: mean and deviation of a data set's spectrograms, for its recipe."""

from tfavmae.commands.arguments import add_command
from tfavmae.errors import UserError


def add_parser(commands):
    parser = add_command(
        commands,
        "statistics",
        show,
        summary="measure the mean and the deviation of a data set's spectrograms",
        example="tfavmae statistics sounding_shapes/demo --data-dir data",
        positional=("NAME", "data set, by name or folder"),
    )
    add = parser.add_argument
    add("--data-dir", metavar="DIR", help="where; default: ~/tensorflow_datasets")
    add("--split", default="train", help="default: train")
    add("--clip-seconds", type=float, default=10.0, metavar="S", help="of each clip")
    add("--clips", type=int, metavar="N", help="measure the first N; default: all")
    add("--mel-bins", type=int, default=128, metavar="N", help="default: 128")
    add("--variant", default="kaldi", help="kaldi (default) or av_mae")


def show(args):
    from tfavmae.data.pipeline import open_split

    split = open_split(args.name, args.split, args.data_dir)
    if args.clips is not None and args.clips < 1:
        raise UserError(f"--clips must be at least 1, not {args.clips}")
    mean, std, num_clips = measure(
        split, args.clip_seconds, args.clips, args.mel_bins, args.variant
    )
    print(f"{num_clips} clips of {split.info.full_name} {args.split}")
    print(f"--set model.audio.mean={mean:.4f} --set model.audio.std={std:.4f}")


def measure(split, clip_seconds, max_clips=None, num_mel_bins=128, variant="kaldi"):
    """Over all values of the clips' own frames; padding does not count.

    Args:
        split: a `ClipSplit`.
        clip_seconds: of the middle of each clip.
        max_clips: how many, the first ones.
        num_mel_bins, variant: of `LogMelSpectrogram`.

    Returns:
        `(mean, std, number of clips)`.
    """
    from tfavmae.data.statistics import spectrogram_statistics
    from tfavmae.layers.spectrogram import LogMelSpectrogram

    num_frames = -(-round(clip_seconds * 16000) // 160)
    layer = LogMelSpectrogram(num_frames, num_mel_bins, 16000, 0.0, 1.0, variant)
    return spectrogram_statistics(split, layer, clip_seconds, max_clips)
