"""`tfavmae localize`: where in the picture the audio comes from."""

import argparse
import pathlib
from typing import TYPE_CHECKING, Any

from tfavmae.commands import trained
from tfavmae.commands.arguments import add_command, add_split, add_trained, refuse
from tfavmae.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from tfavmae.data.pipeline import ClipSplit
    from tfavmae.tasks.heat_maps import WindowMaps
    from tfavmae.tasks.localization import LocalizationResult
    from tfavmae.tasks.media import MediaClips
    from tfavmae.tasks.trained import Trained

_NUM_SHOWN = 20  # windows listed in the terminal
_OUTPUTS = (".png", ".mp4")
# Of a film under maps; the frames that the model read may be few and small.
_FILM = {"frame_rate": 25.0, "shorter_side": 360, "jpeg_quality": 92}


def add_parser(commands: Any) -> None:
    """Adds `localize` to the subcommands."""
    parser = add_command(
        commands,
        "localize",
        run,
        summary="show where in the picture a sound comes from",
        example="tfavmae localize dog.mp4 --workdir runs/pretrain --output dog_map.mp4",
        figures=True,
    )
    add = parser.add_argument
    add(
        "files",
        metavar="FILE",
        nargs="*",
        help="videos; without any, known positions of a split are compared",
    )
    add_trained(parser)
    add_split(parser)
    add(
        "--relative",
        action="store_true",
        help="subtract what the recipe's clips have in common",
    )
    add("--output", metavar="FILE", help="pictures of all (.png) or a film (.mp4)")
    add("--html", metavar="PAGE", help="also write a page")


def run(args: argparse.Namespace) -> "LocalizationResult | list[dict[str, Any]]":
    """Runs the command; returns the figures of a split, or of the windows of files."""
    from tfavmae.tasks import heat_maps, localization

    output = args.output and pathlib.Path(args.output)
    if output and output.suffix.lower() not in _OUTPUTS:
        raise UserError(f"--output must end in .png or .mp4; received {output}")
    if not args.files:
        refuse(args, ["output", "relative"], "a split; name media files")
        loaded = trained.load(args)
        split = loaded.open_split(args.split)
        result = localization.measure(loaded, split)
        trained.report(loaded, result, "localization", split)
        if args.html:
            print(_measured_page(args.html, loaded, split, result))
        return result
    refuse(args, ["split"], "media files")
    loaded = trained.load(args)
    heat_maps.check_localizes(loaded)
    common = None
    if args.relative:
        common = heat_maps.common_audio(loaded, loaded.open_split())
    with loaded.open_files(args.files) as clips:
        maps, refused = find(loaded, clips, common)
        skipped = [*clips.bad_files, *refused]
        trained.print_skipped(skipped)
        if not maps:
            raise UserError("none of the files has both audio and video")
        if output and output.suffix.lower() == ".mp4" and len(maps) > 1:
            raise UserError(
                f"{output}: a film shows one file; received {len(maps)}. Name one, or "
                "write pictures (.png)"
            )
        _print_table(maps, clips)
        if output:
            _write(output, args.files, loaded, clips, maps)
            print(output)
        if args.html:
            print(_page(args.html, loaded, clips, maps, skipped))
        return _figures(maps, clips)


def find(
    loaded: "Trained", clips: "MediaClips", common: "np.ndarray | None" = None
) -> "tuple[dict[int, list[WindowMaps]], list[tuple[str, str]]]":
    """The maps of each file.

    Args:
        loaded: the run.
        clips: of `open_files`.
        common: see `heat_maps.common_audio`.

    Returns:
        `(maps, refused)`: maps of the windows with both modalities by index of the
        file, and name and reason of each file that has none.
    """
    import numpy as np

    from tfavmae.tasks import heat_maps

    present = {m: clips.split.present(m) for m in ("audio", "video")}
    both = present["audio"] & present["video"]
    rows, windows = np.flatnonzero(both), []
    if len(rows):
        windows = heat_maps.window_maps(loaded, clips.split, rows, common)
    maps: dict[int, list[WindowMaps]] = {}
    for window in windows:
        maps.setdefault(int(clips.file_of_clip[window.row]), []).append(window)
    refused = []
    for index, name in enumerate(clips.files):
        own = clips.file_of_clip == index
        if own.any() and index not in maps:
            absent = [m for m in present if not present[m][own].any()]
            lacks = " and ".join(absent) or "at no time both audio and video"
            refused.append((name, f"has no {lacks}"))
    return maps, refused


def _figures(
    maps: "dict[int, list[WindowMaps]]", clips: "MediaClips"
) -> list[dict[str, Any]]:
    """File, time, fit and peak `(x, y)` in [0, 1] of each window, for `--json`."""
    return [
        {
            "file": clips.files[index],
            "start_seconds": float(clips.start_seconds[window.row]),
            "fit": float(window.score),
            "peak": [float(x) for x in window.peak],
        }
        for index, own in maps.items()
        for window in own
    ]


def _print_table(maps: "dict[int, list[WindowMaps]]", clips: "MediaClips") -> None:
    from rich.console import Console
    from rich.table import Table

    from tfavmae.tasks.media import clock

    table = Table("file", "from", "fit", "peak", title="where the sound comes from")
    table.caption = "fit: cosine of audio and video; peak: from the upper left corner"
    table.columns[0].overflow = "fold"
    pairs = [(index, window) for index, own in maps.items() for window in own]
    for index, window in pairs[:_NUM_SHOWN]:
        x, y = window.peak
        table.add_row(
            clips.files[index],
            clock(float(clips.start_seconds[window.row])),
            f"{window.score:.3f}",
            f"{100 * x:.0f} % right, {100 * y:.0f} % down",
        )
    if len(pairs) > _NUM_SHOWN:
        table.add_row(f"... and {len(pairs) - _NUM_SHOWN} more")
    Console(markup=False, highlight=False).print(table)


def _write(
    output: pathlib.Path,
    paths: list[str],
    loaded: "Trained",
    clips: "MediaClips",
    maps: "dict[int, list[WindowMaps]]",
) -> None:
    """Writes the pictures of all files, or the film of the only one."""
    from tfavmae.report import overlays

    if output.suffix.lower() == ".png":
        pairs = [overlays.best_frame(clips.split, x) for x in maps.values()]
        overlays.write_pictures(output, pairs)
        return
    ((index, windows),) = maps.items()
    # Of the files that were given, others may have been refused.
    with loaded.open_files(paths, stored=_FILM) as shown:
        overlays.write_overlay_film(
            output,
            shown,
            index,
            [float(clips.start_seconds[w.row]) for w in windows],
            windows,
            frame_rate=_FILM["frame_rate"],
            sample_rate_hz=loaded.stored_as.sample_rate_hz,
        )


def _page(
    path: str,
    loaded: "Trained",
    clips: "MediaClips",
    maps: "dict[int, list[WindowMaps]]",
    skipped: list[tuple[str, str]],
) -> pathlib.Path:
    from tfavmae.report import answers, overlays
    from tfavmae.report.stored_clips import media_clip

    located = [
        answers.Located(
            media_clip(clips, index),
            overlays.overlay_clip(clips, index, windows),
            sum(w.score for w in windows) / len(windows),
        )
        for index, windows in maps.items()
    ]
    return answers.write_localization(path, located, skipped, str(loaded.run.workdir))


def _measured_page(
    path: str, loaded: "Trained", split: "ClipSplit", result: "LocalizationResult"
) -> pathlib.Path:
    from tfavmae.report import answers, overlays

    located = overlays.measured_examples(loaded, split)
    model = f"{loaded.run.workdir} on {split.name} of {split.info.full_name}"
    return answers.write_localization(path, located, [], model, result)
