"""What the server measures of itself, in Prometheus' text format."""

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Mapping

import prometheus_client
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from tfavmae.serving.protocol import RequestError
from tfavmae.serving.versions import Model

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128)


def _number(model: Model) -> int:
    return model.current.number if model.current is not None else -1


@dataclasses.dataclass
class Outcome:
    """How a request ended, for the one who measures it."""

    status: int = 500


class Measures:
    """Counters of one server; no other server of the process shares them.

    Args:
        models: by name.

    Attributes:
        num_running: set by whoever knows the number of requests in work.
    """

    def __init__(self, models: Mapping[str, Model]) -> None:
        self.num_running: Callable[[], int] = lambda: 0
        registry = self._registry = prometheus_client.CollectorRegistry()
        self._requests = prometheus_client.Counter(
            "tfavmae_requests", "Requests answered.", ("model", "method", "status"),
            registry=registry,
        )  # fmt: skip
        self._seconds = prometheus_client.Histogram(
            "tfavmae_request_seconds", "From the headers to the answer.",
            ("model", "method"), buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self._rows = prometheus_client.Histogram(
            "tfavmae_batch_rows", "Rows that ran together.", ("signature",),
            buckets=_ROWS, registry=registry,
        )  # fmt: skip
        running = prometheus_client.Gauge(
            "tfavmae_requests_running", "Requests in work.", registry=registry
        )
        running.set_function(lambda: self.num_running())
        version = prometheus_client.Gauge(
            "tfavmae_model_version", "The version that is served; -1 for none.",
            ("model",), registry=registry,
        )  # fmt: skip
        for name, model in models.items():
            version.labels(name).set_function(functools.partial(_number, model))
        with contextlib.suppress(ValueError):
            prometheus_client.ProcessCollector(registry=registry)

    @contextlib.contextmanager
    def counting(self, model: str, method: str) -> Iterator[Outcome]:
        """Measures the request that the block answers."""
        outcome, start = Outcome(), time.monotonic()
        try:
            yield outcome
        except RequestError as error:
            outcome.status = error.status
            raise
        finally:
            self._requests.labels(model, method, str(outcome.status)).inc()
            self._seconds.labels(model, method).observe(time.monotonic() - start)

    def on_batch(self, signature: str, num_rows: int) -> None:
        """Counts a batch that runs."""
        self._rows.labels(signature).observe(num_rows)

    def exposition(self) -> tuple[bytes, str]:
        """All measures as text, and its media type."""
        return prometheus_client.generate_latest(self._registry), CONTENT_TYPE_LATEST
