"""Worker processes that may hang or crash without affecting their caller.

Media files are untrusted input to C libraries. Each item is processed in one of a few
small Python processes with a time and a memory limit; a process that exceeds them, or
crashes, loses that item alone and is replaced. What such a process answers is not
trusted either: it is plain data (`messages`), of a type that the caller names.

The processes are started afresh (never forked: TensorFlow's threads do not survive
that) and import only the module of the function they call. `multiprocessing` would
import the caller's main script, TensorFlow included, in each of them.
"""

import collections
import concurrent.futures
import contextlib
import dataclasses
import importlib
import io
import itertools
import json
import math
import os
import queue
import signal
import subprocess
import sys
import threading
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO, Self, cast

from tfavmae.building import messages
from tfavmae.errors import UserError

_BOOT = """
import json, sys
sys.path[:], limits = json.loads(sys.argv[1])
from tfavmae.building.worker_pool import serve
serve(*limits)
"""
_NUM_AHEAD = 4  # outcomes of a worker: stored clips, which may have megabytes
# One thread each: the processes are the parallelism.
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The result of one item.

    Attributes:
        value: what the function returned; None if it failed.
        reason: why it failed, in one line; None if it did not.
        is_past_end: it failed because its file ends before it.
    """

    value: Any = None
    reason: str | None = None
    is_past_end: bool = False


class WorkerPool:
    """A few worker processes, started when they are first needed.

    Args:
        num_workers: number of processes; None for one per available core.
        time_limit_seconds: for one item; a worker that exceeds it is killed.
        memory_limit_bytes: address space of one worker (enforced on Linux).

    Raises:
        UserError: `num_workers` is not positive.

    Example:

    >>> with WorkerPool(num_workers=2) as pool:
    ...     for outcome in pool.map("tfavmae.media.decode:probe", paths, MediaInfo):
    ...         print(outcome.value or outcome.reason)
    """

    def __init__(
        self,
        num_workers: int | None = None,
        *,
        time_limit_seconds: float = 120.0,
        memory_limit_bytes: int = 4 * 2**30,
    ) -> None:
        if num_workers is not None and num_workers < 1:
            raise UserError(
                f"`num_workers` (--workers) must be at least 1; received {num_workers}."
            )
        self.num_workers = num_workers or available_cores()
        self._limits = (time_limit_seconds, memory_limit_bytes)
        self._tasks: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._workers: set[Worker] = set()
        self._is_closed = False

    def map(
        self, function: str, items: Iterable, returns: Any = Any
    ) -> Iterator[Outcome]:
        """Outcomes of `function(item)`, in the order of the items.

        Args:
            function: `"package.module:name"`, imported in the workers.
            items: whatever `messages.pack` takes; drawn as they are needed.
            returns: the type of the values, as in `messages.typed`; an answer of
                another type is a failure.

        Raises:
            RuntimeError: a worker cannot start, or cannot import the function.
        """
        window: collections.deque[concurrent.futures.Future] = collections.deque()
        for item in items:
            future: concurrent.futures.Future = concurrent.futures.Future()
            self._submit((function, item, returns, future))
            window.append(future)
            # Enough to keep all workers busy while the first item takes long, few
            # enough that memory does not grow with the number of items.
            if len(window) >= 4 * self.num_workers:
                yield window.popleft().result()
        while window:
            yield window.popleft().result()

    def streams(
        self, function: str, items: Iterable, returns: Any = Any
    ) -> Iterator[tuple[Any, Outcome | None]]:
        """The outcomes of a function that yields many for one item, as they come.

        Each worker is busy with an item of its own. They are a few outcomes ahead of
        who reads them, so that memory does not grow with the number of outcomes.

        Args:
            function: `"package.module:name"` of a generator function; an exception that
                it yields is a failure of one outcome, one that it raises ends them.
            items: what the caller knows it by, what `messages.pack` takes, and how many
                outcomes it has at most; a worker that gives more is killed. Drawn as
                they are needed.
            returns: as of `map`.

        Yields:
            What an item is known by, and an outcome; None in its place after the last.

        Raises:
            RuntimeError: as of `map`.
        """
        ready: queue.Queue[Any] = queue.Queue(_NUM_AHEAD * self.num_workers)
        remaining, num_open = iter(items), 0
        is_left = threading.Event()

        def is_unread() -> bool:
            return is_left.is_set() or self._is_closed

        try:
            while True:
                free = self.num_workers - num_open
                for about, item, most in itertools.islice(remaining, free):
                    answers = Answers(about, most, ready, is_unread)
                    self._submit((function, item, returns, answers))
                    num_open += 1
                if not num_open:
                    return
                about, outcome = ready.get()
                if isinstance(outcome, BaseException):
                    raise outcome
                num_open -= outcome is None
                yield about, outcome
        finally:
            is_left.set()

    def _submit(self, task: tuple[Any, ...]) -> None:
        self._tasks.put(task)
        if len(self._threads) < self.num_workers:
            # Daemons, so that an interrupted program never waits for them.
            self._threads.append(threading.Thread(target=self._attend, daemon=True))
            self._threads[-1].start()

    def close(self) -> None:
        """Kills the workers at once, even in the middle of an item."""
        self._is_closed = True
        for worker in list(self._workers):
            worker.kill()
        for _ in self._threads:
            self._tasks.put(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _attend(self) -> None:
        """A thread's loop: hands items to its own worker, and replaces a dead one."""
        worker = None
        while (task := self._tasks.get()) is not None and not self._is_closed:
            function, item, returns, future = task
            if isinstance(future, Answers) and future.is_unread():
                continue
            try:
                if worker is None:
                    worker = Worker(self._limits)
                    self._workers.add(worker)
                    # `close` may have run before the worker was in the set.
                    if self._is_closed:
                        worker.kill()
                    worker.wait_until_ready()
                if isinstance(future, Answers):
                    self._attend_stream(worker, function, item, returns, future)
                else:
                    future.set_result(worker.ask(function, item, returns))
            except BaseException as error:
                future.set_exception(error)
            if worker is not None and worker.is_dead:
                self._workers.discard(worker)
                worker = None
        if worker is not None:
            worker.kill()

    @staticmethod
    def _attend_stream(
        worker: "Worker", function: str, item: Any, returns: Any, answers: "Answers"
    ) -> None:
        outcomes = worker.ask_all(function, item, returns)
        for count, outcome in enumerate(outcomes, start=1):
            if count > answers.most or not answers.put(outcome):
                worker.kill()  # in the middle of an item that nobody wants any more
                break
        answers.put(None)


@dataclasses.dataclass(frozen=True)
class Answers:
    """Where a worker's thread puts the outcomes of one item.

    Args:
        about: what the item is known by.
        most: outcomes that it may have.
        ready: outcomes of all items, each with what its item is known by.
        is_unread: whether nobody will read any more.
    """

    about: Any
    most: int
    ready: queue.Queue[Any]
    is_unread: Callable[[], bool]

    def put(self, outcome: Outcome | BaseException | None) -> bool:
        """Waits for room; returns False if there is no reader left."""
        while not self.is_unread():
            with contextlib.suppress(queue.Full):
                self.ready.put((self.about, outcome), timeout=0.1)
                return True
        return False

    def set_exception(self, error: BaseException) -> None:
        """Hands an error to the reader."""
        self.put(error)


class Worker:
    """One process, which exchanges messages over its standard input and output.

    Args:
        limits: time in seconds and memory in bytes for one item.
    """

    def __init__(self, limits: tuple[float, int]) -> None:
        path = [entry or os.getcwd() for entry in sys.path]
        self.limits, self.is_dead = limits, False
        self.process = subprocess.Popen(
            [sys.executable, "-c", _BOOT, json.dumps([path, limits])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **_ENVIRONMENT},
            # Ctrl-C reaches the caller alone, which then decides.
            start_new_session=True,
        )
        self.requests = cast(BinaryIO, self.process.stdin)
        self.answers = cast(io.BufferedReader, self.process.stdout)

    def wait_until_ready(self) -> None:
        """Waits for the process to have imported what it needs.

        Raises:
            RuntimeError: it ended instead.
        """
        try:
            messages.read(self.answers)
        except (EOFError, OSError, messages.BadMessage) as error:
            self.kill()
            raise RuntimeError(
                "A worker process could not start; its own message is above."
            ) from error

    def ask(self, function: str, item: Any, returns: Any) -> Outcome:
        """Has the process call `function(item)` and waits for the outcome.

        Raises:
            RuntimeError: the process cannot import the function.
        """
        outcomes = list(itertools.islice(self.ask_all(function, item, returns), 2))
        if len(outcomes) == 1:
            return outcomes[0]
        self.kill()
        wrong = Outcome(reason=f"the decoder gave {len(outcomes)} answers instead of 1")
        # The second one may say how the process died behind its answer.
        return next((one for one in outcomes if one.reason is not None), wrong)

    def ask_all(self, function: str, item: Any, returns: Any) -> Iterator[Outcome]:
        """The outcomes of a function: one, or those of a generator as they come.

        Raises:
            RuntimeError: the process cannot import the function.
        """
        try:
            self.requests.write(messages.pack([function, item]))
            self.requests.flush()
            while True:
                answer = messages.unpack(messages.read(self.answers))
                form = tuple[str, Any, bool]
                kind, content, is_past_end = messages.typed(form, answer)
                if kind == "end":
                    return
                if kind == "value":
                    yield Outcome(messages.typed(returns, content))
                    continue
                reason = messages.one_line(content)
                if kind == "unusable":
                    raise RuntimeError(reason)
                yield Outcome(reason=reason, is_past_end=is_past_end)
        except (EOFError, OSError):
            yield Outcome(reason=self.cause_of_death())
        except messages.BadMessage as error:
            # What else it may say is not worth hearing.
            self.kill()
            yield Outcome(reason=f"the decoder gave a wrong answer: {error}")

    def cause_of_death(self) -> str:
        """Ends a process whose pipe broke; says in one line why it died."""
        self.is_dead = True
        try:
            # A process whose pipe broke is about to end; its status tells the cause.
            status = self.process.wait(5)
        except subprocess.TimeoutExpired:
            status = None
        self.kill()
        if status is None:
            return "the decoder closed its pipe"
        if status == -signal.SIGALRM:
            return f"took longer than {self.limits[0]:g} s (time_limit_seconds)"
        if status < 0:
            return f"the decoder crashed ({signal.Signals(-status).name})"
        return f"the decoder ended by itself (exit status {status})"

    def kill(self) -> None:
        """Kills the process, even in the middle of an item."""
        self.is_dead = True
        self.process.kill()
        self.process.wait()


def available_cores() -> int:
    """Number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def serve(time_limit_seconds: float, memory_limit_bytes: int) -> None:
    """A worker's main loop: requests on standard input, outcomes on standard output."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not mix with the answers
    # An unhandled alarm ends the process even inside a C library's endless loop.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    if sys.platform == "linux" and not math.isinf(memory_limit_bytes):
        import resource  # does not exist on every platform

        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        soft = memory_limit_bytes
        if hard != resource.RLIM_INFINITY:
            soft = min(soft, hard)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    requests = cast(io.BufferedReader, sys.stdin.buffer)
    send(answers, "ready")
    while True:
        try:
            function, item = messages.unpack(messages.read(requests))
        except EOFError:
            return  # the caller has closed the pool, or is gone
        try:
            module, name = function.split(":")
            work = getattr(importlib.import_module(module), name)
        except Exception as error:  # not the item's fault: the caller raises it
            reason = f"A worker cannot use {function}: {error}"
            send(answers, ["unusable", reason, False])
            continue
        outcomes = answers_of(work, item, memory_limit_bytes)
        while True:
            signal.setitimer(signal.ITIMER_REAL, time_limit_seconds)
            answer = next(outcomes, None)
            # Not while somebody takes their time to read the answer.
            signal.setitimer(signal.ITIMER_REAL, 0)
            if answer is None:
                break
            send(answers, answer)
        send(answers, ["end", None, False])


def send(stream: BinaryIO, message: Any) -> None:
    """Writes one message; ends the process if nobody reads it."""
    try:
        stream.write(message if isinstance(message, bytes) else messages.pack(message))
        stream.flush()
    except BrokenPipeError:
        os._exit(0)  # the caller is gone: an error could not be reported to anyone


def answers_of(
    function: Callable[[Any], Any], item: Any, memory_limit_bytes: int
) -> Iterator[bytes]:
    """What a worker answers: `function(item)`, or every error as a line of text.

    Of a generator function, what it yields, one answer each.
    """
    try:
        value = function(item)
        for part in value if isinstance(value, types.GeneratorType) else [value]:
            if isinstance(part, Exception):
                yield _failure(part)
            else:
                yield messages.pack(["value", part, False])
    except MemoryError:
        gigabytes = memory_limit_bytes / 2**30
        reason = f"needs more than {gigabytes:g} GiB (memory_limit_bytes)"
        yield messages.pack(["reason", reason, False])
    except Exception as error:
        yield _failure(error)


def _failure(error: Exception) -> bytes:
    reason = getattr(error, "reason", None) or f"{type(error).__name__}: {error}"
    is_past_end = bool(getattr(error, "is_past_end", False))
    return messages.pack(["reason", messages.one_line(reason), is_past_end])
