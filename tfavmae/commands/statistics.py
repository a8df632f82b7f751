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
    import numpy as np

    from tfavmae.data.pipeline import ClipSpec
    from tfavmae.layers.spectrogram import LogMelSpectrogram

    rows = split.rows(keep=("audio",))[:max_clips]
    spec = ClipSpec(clip_seconds, modalities=("audio",), train=False)
    num_frames = -(-spec.num_samples // 160)
    layer = LogMelSpectrogram(num_frames, num_mel_bins, 16000, 0.0, 1.0, variant)
    total = squares = count = 0.0
    for batch in split.evaluation_batches(spec, 16, indices=rows):
        samples = batch["audio_samples"].numpy() * (batch["sample_weight"].numpy() > 0)
        own = layer.count_frames(samples).clip(0, num_frames)
        values = np.asarray(layer(batch["audio"], batch["audio_samples"]), np.float64)
        values = values[np.arange(num_frames) < own[:, None]]
        total, squares = total + values.sum(), squares + (values**2).sum()
        count += values.size
    if not count:
        raise UserError(f"{split.info.data_dir}: no clip is as long as one window")
    mean = total / count
    return mean, max(squares / count - mean**2, 0.0) ** 0.5, len(rows)
