"""`tfavmae predict`: classify media files with a fine-tuned model."""

import argparse
from typing import TYPE_CHECKING, Any

from tfavmae.commands import trained
from tfavmae.commands.arguments import add_command, add_model, add_set
from tfavmae.errors import UserError

if TYPE_CHECKING:
    from tfavmae.tasks.trained import Prediction


def add_parser(commands: Any) -> None:
    """Adds `predict` to the subcommands."""
    parser = add_command(
        commands,
        "predict",
        run,
        summary="classify media files with a fine-tuned model",
        example="tfavmae predict clip.mp4 --workdir runs/finetune",
        figures=True,
    )
    add = parser.add_argument
    add(
        "files",
        metavar="FILE",
        nargs="+",
        help="media files, stills or folders of media files",
    )
    add_model(parser)
    add_set(parser)
    add("--top", type=int, default=5, metavar="N", help="classes to show (default: 5)")
    add("--html", metavar="PAGE", help="also write a page with the files and classes")


def run(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Runs the command; returns what `--json` prints of each file."""
    from tfavmae.report import answers
    from tfavmae.report.stored_clips import media_clip
    from tfavmae.tasks.trained import load

    if args.top < 1:
        raise UserError(f"--top must be at least 1; received {args.top}")
    loaded = load(args.workdir, args.set)
    loaded.check_has_classes()
    with loaded.open_files(args.files) as clips:
        predictions, refused = loaded.classify_clips(clips)
        shown = [
            answers.Classified(
                media_clip(clips, clips.files.index(one.file), _windows(one)),
                _top(one, args.top),
            )
            for one in (predictions if args.html else [])
        ]
    skipped = [*clips.bad_files, *refused]
    trained.print_skipped(skipped)
    if not predictions:
        raise UserError("none of the files can be classified by this model")
    _print_table(predictions, args.top, loaded.config.data.clip_seconds)
    if args.html:
        model = str(loaded.run.workdir)
        path = answers.write_predictions(args.html, shown, skipped, model)
        print(path)
    return [_as_json(one, args.top) for one in predictions]


def _top(one: "Prediction", count: int) -> dict[str, float]:
    return dict(list(one.probabilities.items())[:count])


def _windows(one: "Prediction") -> str:
    """How many windows an answer is the mean of, where that is to be said."""
    return f"mean of {one.num_windows} windows" if one.num_windows > 1 else ""


def _as_json(one: "Prediction", count: int) -> dict[str, Any]:
    return {
        "file": one.file,
        "num_windows": one.num_windows,
        "probabilities": _top(one, count),
    }


def _print_table(predictions: "list[Prediction]", count: int, seconds: float) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("file", "class", "probability")
    table.columns[0].overflow = table.columns[1].overflow = "fold"
    table.columns[2].justify = "right"
    for one in predictions:
        lines = _top(one, count)
        names = "\n".join(lines)
        values = "\n".join(f"{100 * value:.1f} %" for value in lines.values())
        windows = _windows(one)
        file = f"{one.file}\n({windows} of {seconds:g} s)" if windows else one.file
        table.add_row(file, names, values, end_section=True)
    Console(markup=False, highlight=False).print(table)
