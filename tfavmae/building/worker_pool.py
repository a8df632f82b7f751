"""Worker processes that may hang or die without taking their caller along.

Media files are untrusted input to C libraries. Each piece of work is done in one of a
few small Python processes with a time and a memory limit; a process that exceeds them,
or crashes, costs that piece of work alone and is replaced.

The processes are started afresh (never forked: TensorFlow's threads do not survive
that) and import only the module that the work is in. `multiprocessing` is not used
because it would import the caller's main script, TensorFlow included, in each of them.
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
from typing import Any

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
    """What became of one item.

    Attributes:
        value: what the function returned; None if it failed.
        reason: why it failed, in one line; None if it did not.
    """

    value: Any = None
    reason: str | None = None


class WorkerPool:
    """A few worker processes, started when first needed.

    Args:
        num_workers: how many; None for one per available core.
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
    ):
        self.num_workers = num_workers or available_cores()
        self._limits = (time_limit_seconds, memory_limit_bytes)
        self._tasks = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._workers: set[_Worker] = set()
        self._is_closed = False

    def map(self, function: str, items: Iterable) -> Iterator[Outcome]:
        """Outcomes of `function(item)`, in the order of the items.

        At most four items per worker are under way or waiting to be taken, however
        many there are.

        Args:
            function: `"package.module:name"`, imported in the workers.
            items: anything that pickles; drawn as they are needed.
        """
        window = collections.deque()
        for item in items:
            window.append(self._submit(function, item))
            if len(window) >= 4 * self.num_workers:
                yield window.popleft().result()
        while window:
            yield window.popleft().result()

    def close(self):
        """Ends the workers at once, whatever they are doing."""
        self._is_closed = True
        for worker in list(self._workers):
            worker.kill()
        for _ in self._threads:
            self._tasks.put(None)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _submit(self, function, item) -> concurrent.futures.Future:
        future = concurrent.futures.Future()
        self._tasks.put((function, item, future))
        if len(self._threads) < self.num_workers:
            # Daemons, so that an interrupted program never waits for them.
            self._threads.append(threading.Thread(target=self._attend, daemon=True))
            self._threads[-1].start()
        return future

    def _attend(self):
        """One thread's life: hands items to its own worker, replaces it if it dies."""
        worker = None
        while (task := self._tasks.get()) is not None and not self._is_closed:
            function, item, future = task
            try:
                if worker is None:
                    worker = self._start()
                future.set_result(worker.ask(function, item))
            except BaseException as error:
                future.set_exception(error)
            if worker is not None and worker.is_dead:
                self._workers.discard(worker)
                worker = None
        if worker is not None:
            worker.kill()

    def _start(self) -> "_Worker":
        worker = _Worker(self._limits)
        self._workers.add(worker)
        if self._is_closed:
            worker.kill()
        worker.wait_until_ready()
        return worker


class _Worker:
    """One process; talks in pickles over its standard input and output."""

    def __init__(self, limits):
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

    def wait_until_ready(self):
        try:
            pickle.load(self.process.stdout)
        except (EOFError, OSError) as error:
            self.kill()
            raise RuntimeError(
                "A worker process could not start; its own message is above."
            ) from error

    def ask(self, function, item) -> Outcome:
        try:
            pickle.dump((function, item), self.process.stdin)
            self.process.stdin.flush()
            answer = pickle.load(self.process.stdout)
        except (EOFError, OSError, pickle.UnpicklingError):
            return Outcome(reason=self._cause_of_death())
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _cause_of_death(self) -> str:
        self.is_dead = True
        try:
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

    def kill(self):
        """Ends the process, whatever it is doing."""
        self.is_dead = True
        self.process.kill()
        self.process.wait()


def available_cores() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def serve(time_limit_seconds: float, memory_limit_bytes: int):
    """A worker's main loop: requests on standard input, outcomes on standard output."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not mix with the answers
    # An unhandled alarm ends the process even inside a C library's endless loop.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    _limit_memory(memory_limit_bytes)
    _send(answers, "ready")
    while True:
        try:
            function, item = pickle.load(sys.stdin.buffer)
        except EOFError:
            return  # the caller has closed the pool, or is gone
        try:
            work = _resolve(function)
        except Exception as error:  # no fault of the item's: raised by the caller
            _send(answers, RuntimeError(f"A worker cannot use {function}: {error}"))
            continue
        signal.setitimer(signal.ITIMER_REAL, time_limit_seconds)
        outcome = _work(work, item, memory_limit_bytes)
        signal.setitimer(signal.ITIMER_REAL, 0)
        _send(answers, outcome)


def _send(stream, message):
    try:
        pickle.dump(message, stream, protocol=pickle.HIGHEST_PROTOCOL)
        stream.flush()
    except BrokenPipeError:
        os._exit(0)  # the caller is gone, and with it whoever could be told


def _resolve(function: str) -> Callable:
    module, name = function.split(":")
    return getattr(importlib.import_module(module), name)


def _work(function, item, memory_limit_bytes) -> Outcome:
    try:
        return Outcome(function(item))
    except MemoryError:
        gigabytes = memory_limit_bytes / 2**30
        return Outcome(reason=f"needs more than {gigabytes:g} GiB (memory_limit_bytes)")
    except Exception as error:  # reported with the item: one line says it all
        reason = getattr(error, "reason", None) or f"{type(error).__name__}: {error}"
        return Outcome(reason=" ".join(str(reason).split()))


def _limit_memory(num_bytes):
    if sys.platform != "linux" or math.isinf(num_bytes):
        return
    import resource  # not on every platform

    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard != resource.RLIM_INFINITY:
        num_bytes = min(num_bytes, hard)
    resource.setrlimit(resource.RLIMIT_AS, (num_bytes, hard))
