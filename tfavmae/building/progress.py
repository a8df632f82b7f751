"""Progress of a long task: one bar on a terminal, now and then a line elsewhere."""

import sys
import time
from typing import Any, Self

_INTERVAL_SECONDS = 10.0


class Progress:
    """Shows how far a task is, on standard error.

    On a terminal that is one bar with step, rate and remaining time, elsewhere a short
    line every ten seconds and one at the end of each step.

    Args:
        is_shown: False to show nothing.

    Example:

    >>> with Progress() as progress:
    ...     for done in range(1000):
    ...         progress("decoding", done, 1000)
    """

    def __init__(self, *, is_shown: bool = True) -> None:
        self._is_shown, self._unit = is_shown, ""
        self._step: str | None = None
        self._started = self._said = self._updated = 0.0
        self._first: float = 0
        self._done: float = 0
        self._said_done: float = -1
        self._total: float = 0
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Self:
        if self._is_shown and sys.stderr.isatty():
            from rich import progress as rich_progress
            from rich.console import Console

            self._bar = rich_progress.Progress(
                rich_progress.TextColumn("{task.description}"),
                rich_progress.BarColumn(),
                rich_progress.TextColumn("{task.completed}/{task.total}"),
                rich_progress.TextColumn("{task.fields[rate]}"),
                rich_progress.TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task("", rate="", visible=False)
        return self

    def __exit__(self, *_: object) -> None:
        self._end_step()
        if self._bar:
            self._bar.stop()

    def __call__(self, step: str, done: float, total: int, unit: str = "clips") -> None:
        """Takes note that `done` of `total` things of a step are done.

        Args:
            step: its name; another one begins when another name is given.
            done, total: of the things; a part of one counts as a fraction.
            unit: what they are.
        """
        now, done = time.monotonic(), round(done, 2)
        if step != self._step:
            self._end_step()
            self._step, self._first, self._unit = step, done, unit
            self._started = self._said = now
            self._said_done = -1
            if self._bar:
                self._bar.reset(self._task, description=step, visible=True)
        self._done, self._total, self._updated = done, max(done, total), now
        if self._bar:
            self._bar.update(
                self._task, completed=done, total=self._total, rate=self._rate(now)
            )
        elif self._is_shown and now - self._said >= _INTERVAL_SECONDS:
            self._say(now)

    def _rate(self, now: float) -> str:
        """The mean rate of the step so far; what was there at its start is not work."""
        seconds, done = now - self._started, self._done - self._first
        return f"{done / seconds:.1f} {self._unit}/s" if seconds >= 1 else ""

    def _say(self, now: float) -> None:
        self._said, self._said_done = now, self._done
        said = f"{self._step}: {self._done}/{self._total} {self._unit}"
        rate = self._rate(now)
        remaining = self._total - self._done
        if rate and remaining and self._done > self._first:
            per_thing = (now - self._started) / (self._done - self._first)
            left = round(remaining * per_thing)
            rate += f", {left // 3600}:{left // 60 % 60:02}:{left % 60:02} left"
        print(f"{said}, {rate}" if rate else said, file=sys.stderr, flush=True)

    def _end_step(self) -> None:
        is_new = self._done != self._said_done
        if self._is_shown and self._step and is_new and not self._bar:
            self._say(self._updated)
        self._step = None
