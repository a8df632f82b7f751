"""Answers about media files: one for each window, and their mean for the file."""

import asyncio
import collections
import concurrent.futures
import dataclasses
import pathlib
from collections.abc import AsyncIterator
from typing import Any

import numpy as np

from tfavmae.building.worker_pool import WorkerPool
from tfavmae.serving import clips
from tfavmae.serving.batching import Batcher
from tfavmae.serving.preprocessing import ClipForm
from tfavmae.serving.protocol import RequestError, to_json
from tfavmae.serving.versions import Version

VERBS = ("classify", "embed", "events", "similarity")
_END = object()


@dataclasses.dataclass(frozen=True)
class WindowAnswer:
    """The outputs of a signature for one window, without the batch axis."""

    start_seconds: float
    end_seconds: float
    outputs: dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Asker:
    """Asks models about files.

    Args:
        pool: decodes.
        batcher: runs the model.
        threads: wait for the pool, one for each file at a time.
    """

    pool: WorkerPool
    batcher: Batcher
    threads: concurrent.futures.Executor

    async def probe(self, path: pathlib.Path) -> Any:
        """The header of a file; see `clips.probe`."""
        return await self._in_thread(clips.probe, self.pool, path)

    async def windows(
        self, version: Version, form: ClipForm, signature: str, path, info
    ) -> AsyncIterator[WindowAnswer]:
        """The answers about the windows of a file, each as soon as it is there.

        Args:
            version: the model.
            form: how it takes its clips.
            signature: from `clips.choose_signature`.
            path: the file.
            info: its header.

        Raises:
            RequestError: it cannot be decoded, or the model refuses it.
        """
        found = clips.windows(
            self.pool, path, info, form, version.signatures[signature]
        )
        running: collections.deque[tuple[clips.Window, asyncio.Task]]
        running = collections.deque()
        try:
            while (window := await self._in_thread(next, found, _END)) is not _END:
                run = self.batcher.run(version, signature, window.inputs)
                running.append((window, asyncio.create_task(run)))
                # The model takes windows that wait together as one batch.
                while running and (
                    running[0][1].done() or len(running) >= self.batcher.max_batch
                ):
                    yield await _answer(*running.popleft())
            while running:
                yield await _answer(*running.popleft())
        finally:
            for _, task in running:
                task.cancel()

    async def _in_thread(self, function, *args):
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.threads, function, *args)


async def _answer(window: clips.Window, task: asyncio.Task) -> WindowAnswer:
    outputs = {name: value[0] for name, value in (await task).items()}
    return WindowAnswer(window.start_seconds, window.end_seconds, outputs)


class Mean:
    """The answer about a file: the mean over its windows, summed as they come.

    Embeddings keep their length of 1. An output with a place in time or in the picture,
    such as a heat map, means nothing on average and stays with its window.
    """

    def __init__(self) -> None:
        self.num_windows = 0
        self._sums: dict[str, np.ndarray] = {}

    def add(self, answer: WindowAnswer) -> None:
        """Takes one more window into the mean."""
        self.num_windows += 1
        for name, value in answer.outputs.items():
            if value.ndim <= 1 and value.dtype.kind == "f":
                total = self._sums.get(name, np.zeros(value.shape, np.float64))
                self._sums[name] = total + value

    def outputs(self) -> dict[str, np.ndarray]:
        """The means by output."""
        means = {k: total / self.num_windows for k, total in self._sums.items()}
        for name, value in means.items():
            if name.endswith("_embedding"):
                means[name] = value / max(float(np.linalg.norm(value)), 1e-12)
        return means


def to_answer(
    outputs: dict[str, np.ndarray], labels: dict[str, list[str]], top: int
) -> dict[str, Any]:
    """Outputs as JSON: probabilities as the likeliest classes, the rest as it is.

    Args:
        outputs: by name, without the batch axis.
        labels: names of the classes by output; none, or empty, if they have none.
        top: how many classes to give.
    """
    answer: dict[str, Any] = {}
    for name, value in outputs.items():
        is_ranked = name == "probabilities" or name.endswith("_probabilities")
        if is_ranked and value.ndim == 1:
            names = labels.get(name, [])
            names = names if len(names) == len(value) else []
            order = np.argsort(-value, kind="stable")[:top]
            answer[name] = [
                {
                    "label": names[i] if names else f"class {i}",
                    "probability": round(float(value[i]), 6),
                }
                for i in order
            ]
        elif name != "logits" and not name.endswith("_logits"):
            answer[name] = to_json(name, value.astype(np.float32))
    return answer


def check_verb(verb: str) -> None:
    """Raises `RequestError` if files cannot be asked about by a verb."""
    if verb not in VERBS:
        known = ", ".join(VERBS)
        raise RequestError(400, f"Files are taken by {known}; received `{verb[:50]}`.")
