"""A server under load: latency, errors and memory of `tfavmae serve`.

    python benchmarks/serving_http.py export/shapes --requests 10000 --clients 32

Starts the server, asks it by turns with every signature of arrays (zeros of its shapes,
1 to 4 rows) and with `--file`, and stops it under load. See README.md.
"""

import argparse
import collections
import json
import pathlib
import subprocess
import sys
import threading
import time

import numpy as np

from tfavmae.serving.client import Overloaded, RestClient, ServingError

_ANY_LENGTH = {"audio": 16000}  # axes of any length get this size, others 2


class Load:
    """Clients that ask as fast as they are answered.

    Args:
        client: asks.
        questions: what to ask by turns; name -> function of the client.
        num_requests: of all clients together.
    """

    def __init__(self, client, questions, num_requests):
        self.client, self.questions = client, list(questions.items())
        self.left, self.lock = num_requests, threading.Lock()
        self.seconds = collections.defaultdict(list)
        self.errors = collections.Counter()

    def run(self, num_clients):
        """Asks with so many threads; returns the seconds that it took."""
        threads = [threading.Thread(target=self._ask) for _ in range(num_clients)]
        start = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return time.monotonic() - start

    def _ask(self):
        while True:
            with self.lock:
                if self.left <= 0:
                    return
                self.left -= 1
                name, question = self.questions[self.left % len(self.questions)]
            start = time.monotonic()
            try:
                question(self.client)
                self.seconds[name].append(time.monotonic() - start)
            except Overloaded:
                self.errors["busy (429 or 503)"] += 1
            except ServingError as error:
                self.errors[str(error)[:120]] += 1


def questions_for(client, file):
    """Requests with zeros for each signature of arrays, and with a file."""
    found = {}
    for name, signature in client.signatures().items():
        if any(spec["dtype"] == "DT_STRING" for spec in signature["inputs"].values()):
            continue
        for rows in (1, 4):
            inputs = {
                key: zeros(key, spec, rows) for key, spec in signature["inputs"].items()
            }
            found[f"{name}, {rows} rows"] = lambda client, name=name, inputs=inputs: (
                client.predict(name, **inputs)
            )
    if file:
        content = pathlib.Path(file).read_bytes()
        verb = "classify" if "classify" in client.signatures() else "embed"
        found[f"file, {verb}"] = lambda client: client.ask(verb, content)
    return found


def zeros(name, spec, rows):
    """Zeros that a signature takes."""
    dtypes = {"DT_FLOAT": "float32", "DT_UINT8": "uint8", "DT_INT32": "int32"}
    sizes = [int(axis["size"]) for axis in spec["tensor_shape"].get("dim", ())]
    shape = [_ANY_LENGTH.get(name, 2) if size < 0 else size for size in sizes]
    if sizes and sizes[0] < 0:
        shape[0] = rows
    return np.zeros(shape, dtypes[spec["dtype"]])


def resident_mebibytes(pid):
    """Memory of a process (Linux)."""
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("the server has ended")


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("directory")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--file", help="a media file to ask about, too")
    args = parser.parse_args()
    command = [sys.executable, "-m", "tfavmae", "serve", args.directory, "--port", "0"]
    command += ["--max-requests", str(4 * args.clients)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        line = server.stdout.readline()
        model = line.split()[1]
        client = RestClient(model, line.split(" at ")[1].split(";")[0], 600, 0)
        questions = questions_for(client, args.file)
        Load(client, questions, 10 * len(questions)).run(4)  # traces and warms up
        before = resident_mebibytes(server.pid)
        load = Load(client, questions, args.requests)
        seconds = load.run(args.clients)
        after = resident_mebibytes(server.pid)
    finally:
        server.terminate()
        status = server.wait(300)
    total = np.concatenate([np.array(x) for x in load.seconds.values()])
    report = {
        "requests": args.requests,
        "clients": args.clients,
        "answered per second": round(len(total) / seconds, 1),
        "errors": dict(load.errors),
        "memory before and after, MiB": [round(before), round(after)],
        "growth": round(after / before - 1, 4),
        "exit status": status,
    }
    for name, values in {"all": total, **load.seconds}.items():
        p50, p99 = 1e3 * np.quantile(values, [0.5, 0.99])
        report[name] = {"p50 ms": round(p50, 1), "p99 ms": round(p99, 1)}
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
