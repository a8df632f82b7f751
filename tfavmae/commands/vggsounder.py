"""`tfavmae vggsounder`: measure scores of VGGSound against VGGSounder's labels."""

import argparse
from typing import TYPE_CHECKING, Any

from tfavmae.commands.arguments import add_command

if TYPE_CHECKING:
    from tfavmae.tasks.vggsounder import VGGSounderResult


def add_parser(commands: Any) -> None:
    """Adds `vggsounder` to the subcommands."""
    parser = add_command(
        commands,
        "vggsounder",
        run,
        summary="measure scores of VGGSound by VGGSounder's labels",
        example="tfavmae vggsounder both.npz --audio audio.npz --video video.npz",
        figures=True,
    )
    add = parser.add_argument
    add("scores", metavar="FILE", help="of `tfavmae evaluate --save-scores`")
    add("--audio", metavar="FILE", help="the same of `evaluate --only audio`")
    add("--video", metavar="FILE", help="the same of `evaluate --only video`")
    add("--labels", metavar="CSV", help="default: of the package vggsounder")
    add("--output", metavar="FILE", help="also write the figures as JSON")


def run(args: argparse.Namespace) -> "VGGSounderResult":
    """Runs the command."""
    from tfavmae.tasks import vggsounder
    from tfavmae.tasks.scores import Scores

    files = {"audio_video": args.scores, "audio": args.audio, "video": args.video}
    labels = vggsounder.read_labels(vggsounder.labels_file(args.labels))
    scores = {m: Scores.read(path) for m, path in files.items() if path}
    result = vggsounder.measure(scores, labels)
    if args.output:
        result.to_json(args.output)
    result.print()
    return result
