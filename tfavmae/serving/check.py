"""Check of an export: does it run without us, as its signatures say, every time?"""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from tfavmae.errors import UserError, shown
from tfavmae.serving import c_loader
from tfavmae.serving.client import newest_version
from tfavmae.serving.warmup import REQUESTS


@dataclasses.dataclass(frozen=True)
class Report:
    """What `check` found.

    Attributes:
        path: the SavedModel.
        faults: one sentence for each; none is good.
        signatures: by name, its `inputs` and `outputs` (dtype and shape), and
            `latency_ms` by batch size, the median of three.
        load_seconds: time that TensorFlow took to load it.
        memory_mib: the largest part of memory that the process had.
    """

    path: pathlib.Path
    faults: list[str]
    signatures: dict[str, dict[str, Any]]
    load_seconds: float
    memory_mib: float

    def print(self) -> None:
        """Prints a table of the signatures."""
        sizes = [k for x in self.signatures.values() for k in x["latency_ms"]]
        sizes = list(dict.fromkeys(sizes))
        table = Table("signature", "inputs", *(f"ms, batch {k}" for k in sizes))
        for name, own in self.signatures.items():
            latency = [f"{own['latency_ms'][k]:.1f}" for k in sizes]
            table.add_row(name, ", ".join(own["inputs"]), *latency)
        console = Console()
        console.print(table)
        console.print(
            f"loaded in {self.load_seconds:.1f} s; {self.memory_mib:.0f} MiB at most"
        )

    def raise_for_faults(self) -> None:
        """Raises a `UserError` if there is a fault."""
        if self.faults:
            raise UserError(
                f"{self.path}: has {len(self.faults)} faults: "
                f"{'; '.join(map(shown, self.faults))}. Export it again."
            )


def check(directory: str | os.PathLike, batch_sizes: Sequence[int] = (1, 8)) -> Report:
    """Replays the warm-up requests of an export in a process of TensorFlow's C API.

    Args:
        directory: a SavedModel, or a folder of numbered versions.
        batch_sizes: each request is also made of so many equal clips.

    Raises:
        UserError: there is no SavedModel, it has no warm-up requests, or TensorFlow
            cannot load it.
    """
    try:
        path = newest_version(pathlib.Path(directory))
    except FileNotFoundError as error:
        raise UserError(f"{error} Write it with `tfavmae export`.") from error
    if not (path / REQUESTS).is_file():
        raise UserError(f"{path}: has no {REQUESTS} to replay; export it again.")
    command = [sys.executable, "-I", c_loader.__file__, "check", str(path.resolve())]
    done = subprocess.run(
        [*command, str(path.resolve() / REQUESTS), *map(str, batch_sizes)],
        capture_output=True,
        text=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    if done.returncode:
        last = done.stderr.strip().rpartition("\n")[2]
        raise UserError(f"{path}: cannot be loaded ({last}); export it again.")
    return Report(path, **json.loads(done.stdout))
