"""`tfavmae evaluate`: measure a fine-tuned model."""

import argparse
import csv
import pathlib
from typing import TYPE_CHECKING, Any

from tfavmae.commands import tables, trained
from tfavmae.commands.arguments import (
    CommandParser,
    add_command,
    add_split,
    add_trained,
    count,
    refuse,
)
from tfavmae.errors import UserError

if TYPE_CHECKING:
    from tfavmae.data.pipeline import ClipSplit
    from tfavmae.tasks.actions import ActionResult
    from tfavmae.tasks.classification import ClassificationResult
    from tfavmae.tasks.scores import Scores
    from tfavmae.tasks.trained import Trained


def add_parser(commands: Any) -> None:
    """Adds `evaluate` to the subcommands."""
    parser = add_command(
        commands,
        "evaluate",
        run,
        summary="measure a fine-tuned model on a split",
        example="tfavmae evaluate --workdir runs/finetune --views 10",
        figures=True,
    )
    add_trained(parser)
    add_split(parser)
    add = parser.add_argument
    add(
        "--views",
        type=count,
        default=1,
        metavar="N",
        help="frames and windows of a clip to average (1)",
    )
    add_mean(parser, "the model's paper's")
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--complete",
        action="store_true",
        help="only clips that have all that the model reads",
    )
    which.add_argument(
        "--only",
        choices=("audio", "video"),
        help="hide the other modality from a model that reads both",
    )
    add(
        "--classes",
        metavar="NAMES",
        help="only these: A,B,C, a file of names or a data set",
    )
    add(
        "--knn",
        type=count,
        metavar="K",
        help="classify by the K nearest training clips",
    )
    add("--save-scores", metavar="FILE", help=".npz for `tfavmae ensemble`")
    add("--html", metavar="PAGE", help="also write a page: classes, worst clips")
    add_form(parser)


def add_mean(parser: CommandParser, default: str) -> None:
    """Adds `--mean`, what is averaged."""
    parser.add_argument(
        "--mean",
        choices=("logits", "probabilities"),
        metavar="OF",
        help=f"logits or probabilities; default: {default}",
    )


def add_form(parser: CommandParser) -> None:
    """Adds the options of `print_figures`."""
    parser.add_argument(
        "--per-class", action="store_true", help="also a table of all classes"
    )


def run(args: argparse.Namespace) -> "ClassificationResult | ActionResult":
    """Runs the command."""
    from tfavmae.tasks import evaluation, neighbours

    if args.save_scores and not args.save_scores.endswith(".npz"):
        raise UserError(f"--save-scores must end in .npz; received {args.save_scores}")
    loaded = trained.load(args)
    split = loaded.open_split(args.split)
    if args.knn:
        refuse(args, ["classes", "mean", "complete"], "--knn")
        options = {"num_views": args.views, "only": args.only}
        scores = neighbours.scores_of(loaded, split, args.knn, **options)
        return _report(args, loaded, split, scores, "neighbours")
    loaded.check_has_classes()
    if len(loaded.config.data.labels) > 1:
        refuse(args, ["classes", "per_class", "html"], "a model of several labels")
    classes = _class_names(args.classes, loaded) if args.classes else None
    scores = evaluation.scores_of(
        loaded,
        split,
        num_views=args.views,
        mean=args.mean,
        only=args.only,
        complete=args.complete,
        classes=classes,
    )
    name = f"evaluation_{len(classes)}_classes" if classes else "evaluation"
    return _report(args, loaded, split, scores, name)


def _report(
    args: argparse.Namespace,
    loaded: "Trained",
    split: "ClipSplit",
    scores: "Scores",
    what: str,
) -> "ClassificationResult | ActionResult":
    """Prints the figures of scores and writes them; returns them."""
    from tfavmae.report import evaluation_page
    from tfavmae.tasks import classification, contamination, evaluation

    result = evaluation.figures(scores)
    seen = scores.rows[scores.usable()]
    result.contamination = contamination.check(loaded.run, split, seen)
    if args.only:
        what += f"_{args.only}_only"
    path = trained.path_of(loaded, what, split, ".json")
    result.to_json(path)
    print_figures(args, result)
    written = [path]
    if args.save_scores:
        arrays = {**scores.to_arrays(), "metrics": result.to_json()}
        tables.write_npz(args.save_scores, arrays)
        written.append(pathlib.Path(args.save_scores))
    if args.html and isinstance(result, classification.ClassificationResult):
        model = str(loaded.run.workdir)
        written.append(evaluation_page.write(args.html, result, scores, split, model))
    print(*written, sep="\n")
    return result


def print_figures(
    args: argparse.Namespace, result: "ClassificationResult | ActionResult"
) -> None:
    """Prints a result as a table, with `--per-class` one of the classes too.

    Raises:
        UserError: `--per-class` of a model of several labels.
    """
    from rich.console import Console

    from tfavmae.tasks.classification import ClassificationResult

    is_one = isinstance(result, ClassificationResult)
    if args.per_class and not is_one:
        raise UserError("--per-class does not apply to a model of several labels")
    result.print()
    if args.per_class and is_one:
        Console(markup=False).print(result.class_table())


def _class_names(text: str, loaded: "Trained") -> list[str]:
    """Names from `--classes`: separated by commas, of a file or of a data set.

    A name with a comma is quoted, as in a CSV file.

    Raises:
        UserError: there is no such file or data set, or it has no names of classes.
    """
    from tfavmae.commands.data import published_data
    from tfavmae.data.splits import Split, open_info

    path, data = pathlib.Path(text), loaded.config.data
    if path.is_file():
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{path}: cannot be read as a list of names") from error
        return [line.strip() for line in lines if line.strip()]
    if "," in text:
        names = next(csv.reader([text], skipinitialspace=True))
        return [name.strip() for name in names]
    label = data.labels[0]
    if text in published_data.NAMES:
        known = published_data.source_of(text).CLASSES
        if label in known:
            return list(known[label])
    info = open_info(text, data.data_dir)
    found = Split(info, next(iter(info.splits))).label_names(label)
    if not found:
        raise UserError(f"{text}: has no names of the classes of {label!r}")
    return list(found)
