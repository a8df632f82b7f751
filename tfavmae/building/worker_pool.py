"""Worker processes that may hang or crash without affecting their caller.

Media files are untrusted input to C libraries. Each item is processed in one of a few
small Python processes with a time and a memory limit; a process that exceeds them, or
crashes, loses that item alone and is replaced.

The processes are started afresh (never forked: TensorFlow's threads do not survive
that) and import only the module of the function they call. `multiprocessing` would
import the caller's main script, TensorFlow included, in each of them.
"""

import collections
import concurrent.futures
import dataclasses
import importlib
import json
import math
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO, Self, cast

_BOOT = """
import json, sys
sys.path[:], limits = json.loads(sys.argv[1])
from tfavmae.building.worker_pool import serve
serve(*limits)
"""
# One thread each: the processes are the parallelism.
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The result of one item.

    Attributes:
        value: what the function returned; None if it failed.
        reason: why it failed, in one line; None if it did not.
    """

    value: Any = None
    reason: str | None = None


class WorkerPool:
    """A few worker processes, started when they are first needed.

    Args:
        num_workers: number of processes; None for one per available core.
        time_limit_seconds: for one item; a worker that exceeds it is killed.
        memory_limit_bytes: address space of one worker (enforced on Linux).

    Example:

    >>> with WorkerPool(num_workers=2) as pool:
    ...     for outcome in pool.map("tfavmae.media.decode:probe", paths):
    ...         print(outcome.value or outcome.reason)
    """

    def __init__(
        self,
        num_workers: int | None = None,
        *,
        time_limit_seconds: float = 120.0,
        memory_limit_bytes: int = 4 * 2**30,
    ) -> None:
        self.num_workers = num_workers or available_cores()
        self._limits = (time_limit_seconds, memory_limit_bytes)
        self._tasks: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._workers: set[Worker] = set()
        self._is_closed = False

    def map(self, function: str, items: Iterable) -> Iterator[Outcome]:
        """Outcomes of `function(item)`, in the order of the items.

        Args:
            function: `"package.module:name"`, imported in the workers.
            items: anything that pickles; drawn as they are needed.

        Raises:
            RuntimeError: a worker cannot start, or cannot import the function.
        """
        window: collections.deque[concurrent.futures.Future] = collections.deque()
        for item in items:
            future: concurrent.futures.Future = concurrent.futures.Future()
            self._tasks.put((function, item, future))
            if len(self._threads) < self.num_workers:
                # Daemons, so that an interrupted program never waits for them.
                self._threads.append(threading.Thread(target=self._attend, daemon=True))
                self._threads[-1].start()
            window.append(future)
            # Enough to keep all workers busy while the first item takes long, few
            # enough that memory does not grow with the number of items.
            if len(window) >= 4 * self.num_workers:
                yield window.popleft().result()
        while window:
            yield window.popleft().result()

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
            function, item, future = task
            try:
                if worker is None:
                    worker = Worker(self._limits)
                    self._workers.add(worker)
                    # `close` may have run before the worker was in the set.
                    if self._is_closed:
                        worker.kill()
                    worker.wait_until_ready()
                future.set_result(worker.ask(function, item))
            except BaseException as error:
                future.set_exception(error)
            if worker is not None and worker.is_dead:
                self._workers.discard(worker)
                worker = None
        if worker is not None:
            worker.kill()


class Worker:
    """One process, which exchanges pickles over its standard input and output.

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
        self.answers = cast(BinaryIO, self.process.stdout)

    def wait_until_ready(self) -> None:
        """Waits for the process to have imported what it needs.

        Raises:
            RuntimeError: it ended instead.
        """
        try:
            pickle.load(self.answers)
        except (EOFError, OSError) as error:
            self.kill()
            raise RuntimeError(
                "A worker process could not start; its own message is above."
            ) from error

    def ask(self, function: str, item: Any) -> Outcome:
        """Has the process call `function(item)` and waits for the outcome.

        Raises:
            RuntimeError: the process cannot import the function.
        """
        try:
            pickle.dump((function, item), self.requests)
            self.requests.flush()
            answer = pickle.load(self.answers)
        except (EOFError, OSError, pickle.UnpicklingError):
            return Outcome(reason=self.cause_of_death())
        if isinstance(answer, Exception):
            raise answer
        return answer

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
    send(answers, "ready")
    while True:
        try:
            function, item = pickle.load(sys.stdin.buffer)
        except EOFError:
            return  # the caller has closed the pool, or is gone
        try:
            module, name = function.split(":")
            work = getattr(importlib.import_module(module), name)
        except Exception as error:  # not the item's fault: the caller raises it
            send(answers, RuntimeError(f"A worker cannot use {function}: {error}"))
            continue
        signal.setitimer(signal.ITIMER_REAL, time_limit_seconds)
        outcome = outcome_of(work, item, memory_limit_bytes)
        signal.setitimer(signal.ITIMER_REAL, 0)
        send(answers, outcome)


def send(stream: BinaryIO, message: Any) -> None:
    """Writes one pickle; ends the process if nobody reads it."""
    try:
        pickle.dump(message, stream, protocol=pickle.HIGHEST_PROTOCOL)
        stream.flush()
    except BrokenPipeError:
        os._exit(0)  # the caller is gone: an error could not be reported to anyone


def outcome_of(
    function: Callable[[Any], Any], item: Any, memory_limit_bytes: int
) -> Outcome:
    """The outcome of `function(item)`, with every error as a reason in one line."""
    try:
        return Outcome(function(item))
    except MemoryError:
        gigabytes = memory_limit_bytes / 2**30
        return Outcome(reason=f"needs more than {gigabytes:g} GiB (memory_limit_bytes)")
    except Exception as error:
        reason = getattr(error, "reason", None) or f"{type(error).__name__}: {error}"
        return Outcome(reason=" ".join(str(reason).split()))
