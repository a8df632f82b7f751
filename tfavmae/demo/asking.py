"""The last step of the demo: a held-out file, answered over HTTP by the export."""

import dataclasses
import pathlib
import time
from typing import Any

from tfavmae.data.pipeline import ClipSplit
from tfavmae.data.splits import place_of
from tfavmae.errors import UserError
from tfavmae.serving import missing_packages
from tfavmae.serving.client import BadRequest, RestClient
from tfavmae.serving.local import local_server

_TOP = 3  # classes of an answer
_VERBS = ("classify", "events", "similarity", "embed_audio", "embed_video")


@dataclasses.dataclass(frozen=True)
class Asked:
    """A file, and what the served model said about it.

    Attributes:
        file: path of the file.
        label: its class, if it has one.
        verb: what was asked.
        answer: the server's answer.
        seconds: from sending the file to the answer.
        reason: why nothing was asked; empty otherwise.
    """

    file: str = ""
    label: str = ""
    verb: str = ""
    answer: dict[str, Any] = dataclasses.field(default_factory=dict)
    seconds: float = 0.0
    reason: str = ""

    def to_dict(self) -> dict[str, Any]:
        """What `summary.json` keeps; heat maps are left out."""
        kept = {k: x for k, x in self.answer.items() if k != "windows"}
        return dataclasses.asdict(self) | {"answer": kept}

    def __str__(self) -> str:
        if self.reason:
            return f"The demo did not ask the server: {self.reason}."
        name = pathlib.Path(self.file).name
        known = f", which is {self.label}" if self.label else ""
        return (
            f"Asked by the demo to {self.verb} {name}{known}: {self._found()} "
            f"({self.seconds:.2f} s)."
        )

    def _found(self) -> str:
        ranked = [x for k, x in self.answer.items() if k.endswith("probabilities")]
        if ranked:
            each = [
                f"{x['label']} {x['probability']:.0%}" for one in ranked for x in one
            ]
            return ", ".join(each)
        if (score := self.answer.get("score")) is not None:
            return f"sound and picture have a cosine of {score:.3f}"
        vectors = [k for k in self.answer if k.endswith("_embedding")]
        sizes = [f"{k} of {len(self.answer[k])} numbers" for k in vectors]
        return ", ".join(sizes) or f"{self.answer.get('num_windows')} windows"


def held_out_file(split: ClipSplit, folder: pathlib.Path) -> tuple[pathlib.Path, str]:
    """The media file of the split's first clip of audio and video, and its class.

    Args:
        split: held-out clips, if there are any.
        folder: of the media files of which the split was built.

    Raises:
        UserError: the file is gone.
    """
    rows = split.rows(keep=("audio", "video"))
    row = int(rows[0]) if len(rows) else 0
    name, _ = place_of(split.ids()[row])
    path = folder / name
    if not path.suffix:
        path = path.with_name(f"{path.name}.mp4")  # SoundingShapes names its clips
    if not path.is_file():
        raise UserError(
            f"{path}: is not there any more; the demo ends by asking about it. Remove "
            "the demo's folder and start again."
        )
    classes = split.class_of_clips()
    return path, (classes[row] or "") if classes else ""


def command_of(export: pathlib.Path) -> list[str]:
    """Arguments of the command that starts the server."""
    return ["serve", str(export), "--port", "0"]


def ask(export: pathlib.Path, file: pathlib.Path, label: str) -> Asked:
    """Starts the server on an export, asks it about a file, and stops it.

    What is asked is the first that the model has of: its class, its segments, how well
    sound and picture fit, its embedding.

    Args:
        export: folder of the model's versions.
        file: a media file.
        label: what is known about it.

    Raises:
        UserError: the server does not start, or refuses the file.
    """
    if missing := missing_packages():
        needed = ", ".join(missing)
        return Asked(reason=f"{needed} missing; pip install 'tfavmae[serve]'")
    with local_server(export) as server:
        client = RestClient(server.models[0], server.url)
        # `embed` chooses by the file between the signatures of its name.
        found = next(v for v in _VERBS if v in client.signatures())
        verb = found.partition("_")[0]
        start = time.monotonic()
        try:
            answer = client.ask(verb, file, top=_TOP)
        except BadRequest as error:
            raise UserError(f"{file}: {error}") from error
        seconds = time.monotonic() - start
    return Asked(str(file), label, verb, answer, seconds)
