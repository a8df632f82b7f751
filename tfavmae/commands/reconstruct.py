"""`tfavmae reconstruct`: hide parts of clips and let a model fill them in."""

import argparse
import itertools
import pathlib
from typing import TYPE_CHECKING, Any

from tfavmae.commands import trained
from tfavmae.commands.arguments import (
    CommandParser,
    add_command,
    add_model,
    add_set,
    add_split,
    count,
    refuse,
)
from tfavmae.errors import UserError, shown

if TYPE_CHECKING:
    from tfavmae.report.reconstructions import Reconstruction
    from tfavmae.tasks.media import MediaClips
    from tfavmae.tasks.reconstruction import Masks, ReconstructionResult
    from tfavmae.tasks.trained import Trained

_NUM_SHOWN = 4  # clips of a split on its page
# Of a split that is measured without --mask and --ratio (CAV-MAE, figure 5).
_STRATEGIES = ("uniform", "time", "frequency", "time_frequency")
_RATIOS = (0.25, 0.5, 0.75, 0.9)


def add_parser(commands: Any) -> None:
    """Adds `reconstruct` to the subcommands."""
    parser = add_command(
        commands,
        "reconstruct",
        run,
        summary="hide parts of a clip and fill them in",
        example="tfavmae reconstruct dog.mp4 --workdir runs/pretrain --mask time "
        "--ratio 0.7",
        figures=True,
    )
    add = parser.add_argument
    add("files", metavar="FILE", nargs="*", help="media files; none: measure a split")
    add_model(parser)
    add_set(parser, "the run's recipe")
    add_split(parser)
    _add_masks(parser)
    add(
        "--clips", type=count, metavar="N", help="first N windows (1), clips of a split"
    )
    add("--html", metavar="PAGE", help="also write a page")
    add("--output", metavar="DIR", help="write pictures (.png) and sounds (.wav) here")


def _add_masks(parser: CommandParser) -> None:
    """Adds the options of `masks_of`."""
    add = parser.add_argument
    add(
        "--mask",
        metavar="A,B",
        help="uniform, time, freq, tf, space, space_time, chunk",
    )
    add("--ratio", metavar="R,R", help="share to hide of each modality, in [0, 1]")
    add("--audio-ratio", type=float, metavar="R", help="of audio; 1: from video alone")
    add("--video-ratio", type=float, metavar="R", help="of video; 1: from audio alone")


def run(args: argparse.Namespace) -> "ReconstructionResult | list[dict[str, Any]]":
    """Runs the command; returns the figures of a split, or of the windows of files."""
    from tfavmae.tasks.trained import load

    if args.files:
        refuse(args, ["split"], "media files")
    else:
        refuse(args, ["output"], "a split; name media files")
    loaded = load(args.workdir, args.set)
    masks = masks_of(args, loaded)
    if not args.files:
        return _measure(args, loaded, masks)
    with loaded.open_files(args.files) as clips:
        found, refused = _reconstruct(loaded, clips, masks, args.clips or 1)
    skipped = [*clips.bad_files, *refused]
    trained.print_skipped(skipped)
    if not found:
        raise UserError("none of the files has what this model reads")
    _print_table(found)
    if args.output:
        _write(pathlib.Path(args.output), found)
        print(args.output)
    if args.html:
        from tfavmae.report import answers

        shown_clips = [one for _, one in found]
        path = answers.write_reconstructions(
            args.html, shown_clips, skipped, *_words(loaded)
        )
        print(path)
    return [_figures(clip) for _, clip in found]


def masks_of(args: argparse.Namespace, loaded: "Trained") -> "list[Masks]":
    """Every strategy of `--mask` with every ratio; by default those of training.

    Raises:
        UserError: there is no such strategy, a ratio is none, or the model does not
            predict patches under such a mask.
    """
    import dataclasses

    from tfavmae.tasks import reconstruction

    model = loaded.run.model
    own = reconstruction.Masks.of_training(model)
    is_sweep = not (args.files or args.mask or args.ratio)
    words = args.mask.split(",") if args.mask else ["uniform"]
    strategies = [reconstruction.strategy_of(word.strip()) for word in words]
    ratios = [_ratio("--ratio", x) for x in args.ratio.split(",")] if args.ratio else []
    if is_sweep:
        strategies, ratios = list(_STRATEGIES), list(_RATIOS)
    single = {"audio": args.audio_ratio, "video": args.video_ratio}
    single = {m: _ratio(f"--{m}-ratio", x) for m, x in single.items() if x is not None}
    if absent := [m for m in single if m not in model.modalities]:
        raise UserError(f"--{absent[0]}-ratio does not apply: the model reads no such")
    found = []
    of_both = [dict.fromkeys(model.modalities, ratio) for ratio in ratios]
    for strategy, chosen in itertools.product(strategies, of_both or [own.ratios]):
        one = dataclasses.replace(own, strategy=strategy, ratios={**chosen, **single})
        one.maskings(model)  # before anything is decoded
        found.append(one)
    return found


def _ratio(option: str, value: Any) -> float:
    try:
        ratio = float(value)
    except ValueError:
        ratio = -1.0
    if not 0 <= ratio <= 1:
        raise UserError(f"{option} must be in [0, 1]; received {shown(value)}")
    return ratio


def _measure(
    args: argparse.Namespace, loaded: "Trained", masks: "list[Masks]"
) -> "ReconstructionResult":
    from tfavmae.building.progress import Progress
    from tfavmae.tasks import reconstruction

    split = loaded.open_split(args.split)
    with Progress() as progress:
        result = reconstruction.measure(
            loaded, split, masks, num_clips=args.clips, progress=progress
        )
    trained.report(loaded, result, "reconstruction", split)
    if args.html:
        from tfavmae.report import answers
        from tfavmae.report.reconstructions import reconstruct

        model = loaded.run.model
        rows = split.rows(keep=model.modalities)[:_NUM_SHOWN]
        batch = next(iter(loaded.batches(split, indices=rows)))
        names = [split.ids()[row] for row in rows]
        examples = [
            clip
            for one in masks
            for clip in reconstruct(
                model, batch, len(rows), [f"{x}: {one.name}" for x in names], one
            )
        ]
        print(
            answers.write_reconstructions(
                args.html, examples, [], *_words(loaded), result
            )
        )
    return result


def _words(loaded: "Trained") -> tuple[str, str]:
    """The run, and what its predictions are."""
    normalized = loaded.run.model.target_normalization is not None
    note = (
        "It predicts the structure of a patch; each is given the mean and the "
        "deviation of the original."
        if normalized
        else "It predicts the values themselves, brightness and loudness included."
    )
    return str(loaded.run.workdir), note


def _reconstruct(
    loaded: "Trained", clips: "MediaClips", masks: "list[Masks]", num_windows: int
) -> "tuple[list[tuple[str, Reconstruction]], list[tuple[str, str]]]":
    """What the model makes of the first windows of each file, under each mask.

    Returns:
        `(found, refused)`: a name of a folder and the reconstruction of each window and
        mask; name and reason of each file that has nothing that the model reads.
    """
    import numpy as np

    from tfavmae.report import reconstructions
    from tfavmae.tasks.media import clock

    model, found, refused = loaded.run.model, [], []
    for index, name in enumerate(clips.files):
        rows = np.flatnonzero(clips.file_of_clip == index)[:num_windows]
        present = [m for m in model.modalities if clips.split.present(m)[rows].any()]
        if len(rows) and not present:
            refused.append((name, f"has no {' or '.join(model.modalities)}"))
            continue
        for row in rows:
            batch = next(iter(loaded.batches(clips.split, indices=[row])))
            given = {k: v[:1].numpy() for k, v in batch.items()}
            for m in ("audio", "video"):
                if given[f"{m}_present"][0] == 0:
                    given[m] = None
            start = clock(float(clips.start_seconds[row]))
            for one in masks:
                title = f"{name} from {start}: {one.name}"
                kept = {k: v for k, v in given.items() if v is not None}
                try:
                    (clip,) = reconstructions.reconstruct(model, kept, 1, [title], one)
                except UserError as error:  # of a file that lacks a modality
                    refused.append((name, str(error)))
                    continue
                if clip.audio is not None:
                    reconstructions.add_sounds(clip, model.audio_front_end)
                found.append((_folder(name, start, one), clip))
    return found, refused


def _folder(name: str, start: str, masks: "Masks") -> str:
    """A folder's name for one window of a file under one mask."""
    ratios = "_".join(f"{m}_{100 * r:g}" for m, r in masks.ratios.items())
    stem = pathlib.PurePath(name).name.replace(".", "_")
    return f"{stem}_{start.replace(':', '_')}_{masks.strategy}_{ratios}"


def _write(folder: pathlib.Path, found: "list[tuple[str, Reconstruction]]") -> None:
    from tfavmae.report import reconstructions

    for name, clip in found:
        reconstructions.write_files(folder / name, clip)


def _figures(clip: "Reconstruction") -> dict[str, Any]:
    """Hidden share and mean squared error of each modality, for `--json`."""
    of_modality = {"audio": clip.audio, "video": clip.video}
    return {"clip": clip.name} | {
        name: {"hidden": one.masked_fraction, "mse": one.error}
        for name, one in of_modality.items()
        if one is not None
    }


def _print_table(found: "list[tuple[str, Reconstruction]]") -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("clip and mask", "audio hidden", "MSE", "video hidden", "MSE")
    table.columns[0].overflow = "fold"
    for _, clip in found:
        cells = []
        for triptych in (clip.audio, clip.video):
            if triptych is None:
                cells += ["", ""]
            else:
                share = f"{100 * triptych.masked_fraction:.0f} %"
                cells += [share, f"{triptych.error:.3f}"]
        table.add_row(clip.name, *cells)
    Console(markup=False, highlight=False).print(table)
