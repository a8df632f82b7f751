"""A server under load: latency, errors, memory and the end of `tfavmae serve`.

    python benchmarks/serving_http.py                     # a tiny model, made here
    python benchmarks/serving_http.py export/shapes --file clip.mp4

Starts the server three times: for `--requests` mixed requests as fast as they are
answered, for a tenth as many at a quarter of that rate, and with few places, to be
refused. The first is stopped under load. It ends with status 1 if a figure is not
reached.
See README.md.
"""

import argparse
import collections
import gc
import json
import pathlib
import sys
import tempfile
import threading
import time

import numpy as np

from tfavmae.serving import c_loader
from tfavmae.serving.client import (
    Overloaded,
    RestClient,
    ServingError,
    Unreachable,
    newest_version,
)
from tfavmae.serving.local import local_server
from tfavmae.serving.warmup import REQUESTS

_AUDIO_SAMPLES = 16000  # of arrays; as JSON, a clip of 10 s is 3 MB
_PLACES = 4  # of the server that is to refuse
_BUSY = "busy (429 or 503)"
MAX_GROWTH, MAX_SPREAD = 0.05, 3.0


class Load:
    """Clients that ask by turns.

    Args:
        client: asks.
        questions: what to ask; name -> function of the client.
        num_requests: of all clients together.
        per_second: when they are due, evenly; `None`: as soon as the last is answered.
            An answer's time counts from when its request was due.
    """

    def __init__(self, client, questions, num_requests, per_second=None):
        self.client, self.questions = client, list(questions.items())
        self.num_requests, self.per_second = num_requests, per_second
        self.num_asked, self.lock = 0, threading.Lock()
        self.seconds = collections.defaultdict(list)
        self.errors = collections.Counter()

    def run(self, num_clients):
        """Asks with so many threads; returns the seconds that it took."""
        self.start = time.monotonic()
        threads = [threading.Thread(target=self._ask) for _ in range(num_clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return time.monotonic() - self.start

    def _ask(self):
        while True:
            with self.lock:
                index = self.num_asked
                if index >= self.num_requests:
                    return
                self.num_asked += 1
            name, question = self.questions[index % len(self.questions)]
            due = time.monotonic()
            if self.per_second is not None:
                due = self.start + index / self.per_second
                time.sleep(max(due - time.monotonic(), 0))
            try:
                question(self.client)
                self.seconds[name].append(time.monotonic() - due)
            except Overloaded:
                self.errors[_BUSY] += 1
            except Unreachable:
                self.errors["unreachable"] += 1
            except ServingError as error:
                self.errors[str(error)[:120]] += 1

    def figures(self):
        """Median and 99th percentile in ms by kind of request, and of all."""
        every = np.concatenate([np.array(x) for x in self.seconds.values()])
        found = {}
        for name, values in {"all": every, **self.seconds}.items():
            p50, p99 = (float(x) for x in 1e3 * np.quantile(values, [0.5, 0.99]))
            found[name] = {"p50": round(p50, 1), "p99": round(p99, 1)}
            found[name]["spread"] = round(p99 / p50, 2)
        return found


def questions_for(directory, file):
    """Every warm-up request of an export, of 1 and 4 rows; and a media file.

    Pixels as JSON numbers in 1 row only: 4 rows are 25 MB, and measure JSON.
    """
    path = newest_version(pathlib.Path(directory))
    found = {}
    for name, inputs in c_loader.read_requests(path / REQUESTS):
        if "audio" in inputs:
            inputs["audio"] = inputs["audio"][:, :_AUDIO_SAMPLES]
            length = np.minimum(inputs["audio_samples"], inputs["audio"].shape[1])
            inputs["audio_samples"] = length.astype("int32")
        for rows in (1,) if "video" in inputs else (1, 4):
            batch = {k: np.repeat(x, rows, axis=0) for k, x in inputs.items()}
            found[f"{name}, {rows} rows"] = lambda client, name=name, batch=batch: (
                client.predict(name, **batch)
            )
    if file:
        content = pathlib.Path(file).read_bytes()
        verb = "classify" if "classify, 1 rows" in found else "embed"
        found[f"file, {verb}"] = lambda client: client.ask(verb, content)
    return found


def resident_mebibytes(pid):
    """Memory of a process (Linux)."""
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("the server has ended")


def client_of(server, timeout_seconds=600.0):
    """A client that sends nothing again."""
    return RestClient(server.models[0], server.url, timeout_seconds, 0)


def at_full_speed(args, questions):
    """As many requests as fit, and the end under load."""
    with local_server(
        args.directory, "--max-requests", str(4 * args.clients)
    ) as server:
        client = client_of(server)
        # Fills caches and the allocator's pools.
        Load(client, questions, max(args.requests // 10, 1)).run(args.clients)
        before = resident_mebibytes(server.process.pid)
        load = Load(client, questions, args.requests)
        seconds = load.run(args.clients)
        after = resident_mebibytes(server.process.pid)
        last = Load(client, questions, 10**9)
        thread = threading.Thread(target=last.run, args=(args.clients,))
        thread.start()
        time.sleep(1)
        server.process.terminate()
        server.process.wait(300)
        last.num_requests = 0
        thread.join()
    # Whose connection the server never took, or took and closed unasked, was refused.
    lost = {k: n for k, n in last.errors.items() if k != "unreachable"}
    answered = sum(map(len, load.seconds.values()))
    return {
        "answered per second": round(answered / seconds, 2),
        "errors": dict(load.errors),
        "memory before and after, MiB": [round(before), round(after)],
        "growth": round(after / before - 1, 4),
        "lost at the end": lost,
        "exit status": server.process.returncode,
        "ms": load.figures(),
    }


def below_saturation(args, questions, per_second):
    """A tenth of the requests at a quarter of the rate."""
    with local_server(args.directory) as server:
        client = client_of(server)
        Load(client, questions, 10 * len(questions)).run(4)
        count = max(args.requests // 10, len(questions))
        load = Load(client, questions, count, per_second)
        load.run(args.clients)
    return {
        "requests": count,
        "due per second": round(per_second, 2),
        "errors": dict(load.errors),
        "ms": load.figures(),
    }


def saturated(args, questions):
    """More clients than places: who gets none is told so at once."""
    with local_server(args.directory, "--max-requests", str(_PLACES)) as server:
        count = max(args.requests // 10, 2 * args.clients)
        load = Load(client_of(server), questions, count)
        load.run(args.clients)
    return {
        "requests": count,
        "places": _PLACES,
        "answered": sum(map(len, load.seconds.values())),
        "errors": dict(load.errors),
    }


def verdicts(fast, calm, full):
    """Whether each figure is reached."""
    return {
        "no error": not fast["errors"] and not calm["errors"],
        f"memory grows by at most {MAX_GROWTH:.0%}": fast["growth"] <= MAX_GROWTH,
        f"p99 at most {MAX_SPREAD:g} times p50, of every kind": all(
            x["spread"] <= MAX_SPREAD for k, x in calm["ms"].items() if k != "all"
        ),
        "saturation is answered by 429 or 503": set(full["errors"]) == {_BUSY},
        "the end loses no request": not fast["lost at the end"]
        and fast["exit status"] == 0,
    }


def export_of(model, size, folder):
    """A classifier of random weights, exported."""
    from tfavmae.models import presets
    from tfavmae.serving.export import export

    built = presets.build_classifier(model, size, num_classes=309)
    return export(built, pathlib.Path(folder) / size).parent


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("directory", nargs="?", help="default: a model made here")
    parser.add_argument("--model", default="cav_mae", help="of the model made here")
    parser.add_argument("--size", default="tiny", help="likewise")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--file", help="a media file to ask about, too")
    args = parser.parse_args()
    gc.collect()
    gc.freeze()  # a collection in the clients is no time of the server
    with tempfile.TemporaryDirectory() as folder:
        if args.directory is None:
            args.directory = export_of(args.model, args.size, folder)
        questions = questions_for(args.directory, args.file)
        fast = at_full_speed(args, questions)
        rate = fast["answered per second"] / 4
        calm = below_saturation(args, questions, rate)
        full = saturated(args, questions)
    reached = verdicts(fast, calm, full)
    report = {
        "requests": args.requests,
        "clients": args.clients,
        "at full speed": fast,
        "at a quarter of that rate": calm,
        "with few places": full,
        "reached": reached,
    }
    print(json.dumps(report, indent=1))
    return 0 if all(reached.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
