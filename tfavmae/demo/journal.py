"""Record of a demo: its options, its steps, what they took and what they found."""

import contextlib
import dataclasses
import json
import pathlib
import shlex
import time
from collections.abc import Callable, Iterator
from typing import Any

from tfavmae.demo.memory import PeakMemory
from tfavmae.errors import UserError
from tfavmae.files import write_atomically


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of the demo.

    Args:
        workdir: folder of all results.
        videos: folder of the user's media files; by default, SoundingShapes is made.
        labels: CSV of their labels; without it, nothing is fine-tuned.
        seed: of the data and of all models.
        is_quick: whether to run on a toy scale, for tests.
        recipe: for pretraining, instead of the demo's.
        overrides: further `key=value` for all recipes.
    """

    workdir: str = "runs/demo"
    videos: str | None = None
    labels: str | None = None
    seed: int = 0
    is_quick: bool = False
    recipe: str | None = None
    overrides: tuple[str, ...] = ()

    @property
    def gallery_size(self) -> int | None:
        """Clips in which retrieval is measured; None for all that a split has.

        Fixed, to compare runs by their recall: the more clips, the harder.
        """
        if self.videos:
            return None
        return 16 if self.is_quick else 500


@dataclasses.dataclass(frozen=True)
class Step:
    """One command.

    Args:
        name: short and unique, a key of `summary.json`.
        title: for people.
        argv: the words of the command after `tfavmae`.
    """

    name: str
    title: str
    argv: list[str]

    @property
    def command(self) -> str:
        """The step as a line for a shell."""
        return shlex.join(["tfavmae", *self.argv])


class Journal:
    """The record of a demo, `summary.json`: steps, their time and memory, results.

    Args:
        options: of the demo.

    Attributes:
        folder: of all results.
        content: of the file; a step that ran has `seconds`, `peak_gib` and `is_done`.

    Raises:
        UserError: the folder holds a demo of other options.
    """

    def __init__(self, options: Options) -> None:
        self.folder = pathlib.Path(options.workdir)
        self.path = self.folder / "summary.json"
        asked = dataclasses.asdict(options) | {"overrides": list(options.overrides)}
        self.content: dict[str, Any] = {"options": asked, "steps": {}}
        self.content["is_finished"] = False
        if not self.path.exists():
            return
        self.content = json.loads(self.path.read_text())
        for key, value in asked.items():
            found = self.content["options"].get(key)
            if found != value:
                raise UserError(
                    f"{self.folder} holds a demo with {key}={found!r}, not {value!r}; "
                    "use another --workdir"
                )

    @property
    def is_finished(self) -> bool:
        """Whether all steps are done and the report is written."""
        return self.content["is_finished"]

    @property
    def durations(self) -> dict[str, float]:
        """Seconds by step."""
        return {k: s["seconds"] for k, s in self.content["steps"].items()}

    def run(self, step: Step, run_command: Callable[[list[str]], Any]) -> Any:
        """Prints a step's command and runs it.

        Args:
            step: to run.
            run_command: as of `steps.run`.

        Returns:
            The result of the command.
        """
        from rich.console import Console

        console = Console(soft_wrap=True, highlight=False, markup=False)
        console.rule(step.title, align="left")
        console.print(f"$ {step.command}", style="bold")
        with self.timed(step.name) as entry:
            entry |= {"title": step.title, "command": step.command}
            return run_command(step.argv)

    @contextlib.contextmanager
    def timed(self, name: str) -> Iterator[dict[str, Any]]:
        """Adds the time and the peak memory of the block to the entry of a step.

        The time of a step that was stopped is the sum of its parts. One that was done
        and only recognises its work keeps what it took.

        Yields:
            The entry, to which the block may add.
        """
        new = {"seconds": 0.0, "peak_gib": 0.0, "is_done": False}
        entry = self.content["steps"].setdefault(name, new)
        started, is_done = time.monotonic(), False
        memory = PeakMemory()
        try:
            with memory:
                yield entry
            is_done = True
        finally:
            if not entry["is_done"]:
                seconds = entry["seconds"] + time.monotonic() - started
                peak = max(entry["peak_gib"], memory.peak_bytes / 2**30)
                entry |= {"seconds": round(seconds, 2), "peak_gib": round(peak, 3)}
                entry["is_done"] = is_done
            self.write()

    def finish(self, results: dict[str, Any]) -> None:
        """Marks the demo as done and keeps its figures.

        Args:
            results: of the commands, by step.
        """
        kept = {k: r.to_dict() for k, r in results.items() if hasattr(r, "to_dict")}
        self.content |= {"results": kept, "is_finished": True}
        self.write()

    def write(self) -> None:
        """Writes `summary.json`."""
        write_atomically(self.path, json.dumps(self.content, indent=1) + "\n")
