"""Micro-batching: requests that wait for the model at the same time run together.

One thread runs the model, which is parallel within. While it runs, requests queue up;
then it takes as many of them as fit together. So an idle server answers at once, and a
busy one wins what a batch is faster than its rows. No timer decides.
"""

import asyncio
import collections
import concurrent.futures
import dataclasses
from typing import Any

import numpy as np

from tfavmae.serving.protocol import RequestError
from tfavmae.serving.versions import Version

Arrays = dict[str, np.ndarray]


@dataclasses.dataclass(eq=False)
class _Waiting:
    """Rows that wait for the model, and who gets their answer."""

    version: Version
    signature: str
    inputs: Arrays
    num_rows: int
    answer: asyncio.Future

    @property
    def kind(self) -> Any:
        """Equal for those that can share a batch; unique where rows cannot."""
        if not self.version.signatures[self.signature].is_batched:
            return id(self)
        shapes = sorted((name, x.shape[1:]) for name, x in self.inputs.items())
        return (id(self.version), self.signature, tuple(shapes))


class Batcher:
    """Runs signatures for many requests; see the top of the file.

    Args:
        max_batch: most rows that run together; a larger request runs in pieces.
        max_rows: most rows of one request.
    """

    def __init__(self, max_batch: int = 32, max_rows: int = 1024) -> None:
        self.max_batch, self.max_rows = max_batch, max_rows
        self._queue: collections.deque[_Waiting] = collections.deque()
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "model")
        self._task: asyncio.Task | None = None
        # For the metrics: rows of each batch that has run.
        self.on_batch = lambda signature, num_rows: None

    async def run(self, version: Version, signature: str, inputs: Arrays) -> Arrays:
        """Runs rows, together with those of others.

        Args:
            version: the loaded model.
            signature: name of its signature.
            inputs: arrays that fit it.

        Raises:
            RequestError: there is no row, there are too many, or TensorFlow refuses
                them.
        """
        if not version.signatures[signature].is_batched:
            return await self._enqueue(version, signature, inputs, 1)
        counts = {name: len(x) for name, x in inputs.items()}
        num_rows = next(iter(counts.values()))
        if len(set(counts.values())) > 1:
            raise RequestError(400, f"The inputs have different batch sizes: {counts}.")
        if not 1 <= num_rows <= self.max_rows:
            raise RequestError(
                400,
                f"A request holds 1 to {self.max_rows} rows; received {num_rows}. "
                "Send several requests.",
            )
        pieces = []
        for start in range(0, num_rows, self.max_batch):
            piece = {k: x[start : start + self.max_batch] for k, x in inputs.items()}
            length = min(self.max_batch, num_rows - start)
            pieces.append(self._enqueue(version, signature, piece, length))
        answers = await asyncio.gather(*pieces)
        if len(answers) == 1:
            return answers[0]
        if not all(x.ndim for answer in answers for x in answer.values()):
            raise RequestError(
                400,
                f"This signature takes at most {self.max_batch} rows at a time: not "
                "every output has one row for each.",
            )
        return {k: np.concatenate([a[k] for a in answers]) for k in answers[0]}

    def _enqueue(
        self, version: Version, signature: str, inputs: Arrays, num_rows: int
    ) -> asyncio.Future[Arrays]:
        # No coroutine: the queue has the order in which requests came.
        answer = asyncio.get_running_loop().create_future()
        self._queue.append(_Waiting(version, signature, inputs, num_rows, answer))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work())
        return answer

    async def _work(self) -> None:
        while self._queue:
            batch = self._next_batch()
            if not batch:
                continue
            self.on_batch(batch[0].signature, sum(one.num_rows for one in batch))
            loop = asyncio.get_running_loop()
            try:
                answers = await loop.run_in_executor(self._thread, _run, batch)
            except Exception as error:
                if len(batch) > 1 and isinstance(error, RequestError):
                    # One of them is to blame: alone, each gets its own answer.
                    answers = [await self._alone(one) for one in batch]
                else:
                    answers = [error] * len(batch)
            for one, answer in zip(batch, answers, strict=True):
                if one.answer.done():
                    continue  # its client has given up
                if isinstance(answer, Exception):
                    one.answer.set_exception(answer)
                else:
                    one.answer.set_result(answer)

    async def _alone(self, one: _Waiting) -> Arrays | Exception:
        loop = asyncio.get_running_loop()
        try:
            return (await loop.run_in_executor(self._thread, _run, [one]))[0]
        except Exception as error:
            return error

    def _next_batch(self) -> list[_Waiting]:
        """The oldest request, and later ones that fit to it, out of the queue."""
        batch: list[_Waiting] = []
        rest: list[_Waiting] = []
        num_rows = 0
        for one in self._queue:
            if one.answer.done():
                continue
            fits = not batch or (
                one.kind == batch[0].kind and num_rows + one.num_rows <= self.max_batch
            )
            if fits:
                batch.append(one)
                num_rows += one.num_rows
            else:
                rest.append(one)
        self._queue = collections.deque(rest)
        return batch

    def close(self) -> None:
        """Ends the thread when the batch that it runs has ended."""
        self._thread.shutdown(wait=True)


def _run(batch: list[_Waiting]) -> list[Arrays]:
    """The answers of requests of one kind, in their order."""
    first = batch[0]
    if len(batch) == 1:
        return [first.version.run(first.signature, first.inputs)]
    inputs = {k: np.concatenate([one.inputs[k] for one in batch]) for k in first.inputs}
    outputs = first.version.run(first.signature, inputs)
    total = sum(one.num_rows for one in batch)
    if any(x.shape[:1] != (total,) for x in outputs.values()):
        # An output that is no row of the batch, such as its mean.
        return [one.version.run(one.signature, one.inputs) for one in batch]
    ends = np.cumsum([one.num_rows for one in batch])[:-1]
    pieces = {name: np.split(value, ends) for name, value in outputs.items()}
    return [{k: x[i] for k, x in pieces.items()} for i in range(len(batch))]
