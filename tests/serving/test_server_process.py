"""The server as a process: slow clients, saturation, and its end under load."""

import http.client
import json
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
import served_models

BODY = json.dumps({"signature_name": "double", "instances": [[1.5]]}).encode()
RUNNING = "tfavmae_requests_running"
START = """
import sys
from tfavmae.serving import server
from tfavmae.serving.app import Service
from tfavmae.serving.batching import Batcher
from tfavmae.serving.limits import Limits
from tfavmae.serving.versions import find_models

models = find_models(sys.argv[1])
for model in models.values():
    model.refresh()
places, body_seconds = int(sys.argv[2]), float(sys.argv[3])
limits = Limits(
    max_requests=places,
    header_seconds=0.5,
    body_seconds=body_seconds,
    request_seconds=20.0,
)
listening = server.listen("127.0.0.1", 0)
port = listening.getsockname()[1]
service = Service(models, limits, batcher=Batcher(max_batch=1))
server.run(service, listening, on_ready=lambda: print(port, flush=True))
print("ended", flush=True)
"""


class Process:
    """A server process of a model that takes 0.1 s for an answer."""

    def __init__(self, folder, places=4, body_seconds=1.0):
        self.process = subprocess.Popen(
            [sys.executable, "-c", START, str(folder), str(places), str(body_seconds)],
            stdout=subprocess.PIPE,
            text=True,
        )
        self.port = int(self.process.stdout.readline())

    def connect(self):
        return socket.create_connection(("127.0.0.1", self.port), timeout=10)

    def num_running(self):
        """Requests that the server has taken and not answered, by its own count."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        connection.close()
        (line,) = [x for x in text.splitlines() if x.startswith(RUNNING)]
        return float(line.split()[1])

    def ask(self, body=BODY):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        headers = {"Content-Type": "application/json"}
        connection.request("POST", "/v1/models/ears:predict", body, headers)
        reply = connection.getresponse()
        content = reply.read()
        connection.close()
        return reply.status, json.loads(content), reply.headers


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "ears"
    served_models.save(folder / "1", seconds=0.1)
    return folder


@pytest.fixture(scope="module")
def server(exported):
    running = Process(exported)
    yield running
    running.process.terminate()
    running.process.wait(30)


def received(connection):
    """Everything until the server closes the connection."""
    parts = []
    while part := connection.recv(65536):
        parts.append(part)
    return b"".join(parts)


def test_slow_headers_are_cut_off(server):
    with server.connect() as silent, server.connect() as slow:
        slow.sendall(b"POST /v1/models/ears:predict HTTP/1.1\r\nHost: x\r\n")
        start = time.monotonic()
        for connection in (silent, slow):
            assert received(connection).startswith(b"HTTP/1.1 408 ")
        assert time.monotonic() - start < 5
    assert server.ask()[0] == 200


def test_a_slow_body_is_told_so(server):
    with server.connect() as slow:
        slow.sendall(
            b"POST /v1/models/ears:predict HTTP/1.1\r\nHost: x\r\n"
            b"Content-Length: 1000\r\n\r\n{"
        )
        answer = received(slow)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"did not arrive within 1 s" in answer
    assert server.ask()[0] == 200


def test_saturation_is_answered_at_once(server):
    replies, start = [], time.monotonic()
    threads = [
        threading.Thread(target=lambda: replies.append(server.ask())) for _ in range(24)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    statuses = sorted(status for status, _, _ in replies)
    assert set(statuses) == {200, 429} and statuses.count(200) >= 4
    refused = next(reply for reply in replies if reply[0] == 429)
    assert "Busy" in refused[1]["error"] and refused[2]["Retry-After"] == "1"
    assert time.monotonic() - start < 15
    assert server.ask()[1] == {"predictions": [[3.0]]}


def test_who_hangs_up_leaves_no_trace(server):
    for _ in range(8):
        with server.connect() as connection:
            head = b"POST /v1/models/ears:predict HTTP/1.1\r\nHost: x\r\n"
            length = b"Content-Length: %d\r\n\r\n" % len(BODY)
            connection.sendall(head + length + BODY)
    deadline = time.monotonic() + 10
    while server.ask()[0] != 200:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_the_command_serves_an_export(exported):
    command = [sys.executable, "-m", "tfavmae", "serve", str(exported), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    line = process.stdout.readline()
    assert line.startswith("Serving ears (version 1) at http://127.0.0.1:")
    port = int(line.split(";")[0].rpartition(":")[2])
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("GET", "/healthz")
    assert connection.getresponse().status == 200
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0


def test_a_port_in_use_is_said(server, exported, cli):
    done = cli("serve", exported, "--port", server.port)
    assert done.status == 2 and "--port" in done.err and done.err.count("\n") == 1


def test_every_request_in_work_at_the_end_is_answered(exported):
    num_clients, num_slow = 24, 4
    server = Process(exported, places=64, body_seconds=15.0)
    head = b"POST /v1/models/ears:predict HTTP/1.1\r\nHost: x\r\n"
    head += b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    head %= len(BODY)
    connections = [server.connect() for _ in range(num_clients)]
    for connection in connections:
        connection.settimeout(30)
    for connection in connections[num_slow:]:
        connection.sendall(head + BODY)
    for connection in connections[:num_slow]:
        connection.sendall(head + BODY[:10])  # taken, and the rest is on its way
    deadline = time.monotonic() + 10
    # Each takes 0.1 s and none shares a batch: most still wait for the model.
    while server.num_running() < num_clients - 4:
        assert time.monotonic() < deadline
    server.process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    with pytest.raises(ConnectionError):
        server.connect()
    for connection in connections[:num_slow]:
        connection.sendall(BODY[10:])
    for connection in connections:
        with connection:
            answer = received(connection)
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert answer.endswith(b'{"predictions": [[3.0]]}')
    assert server.process.wait(30) == 0
    assert server.process.stdout.read() == "ended\n"


def test_the_end_under_load_loses_no_accepted_request(server):
    """The last test of this file: it ends the server of the others."""
    answers, lost, refused, stop = [], [], [], threading.Event()

    def load():
        while not stop.is_set():
            try:
                connection = server.connect()
            except ConnectionError:
                refused.append(1)
                return
            with connection:
                try:
                    head = b"POST /v1/models/ears:predict HTTP/1.1\r\nHost: x\r\n"
                    close = b"Connection: close\r\nContent-Length: %d\r\n\r\n"
                    connection.sendall(head + close % len(BODY) + BODY)
                    answer = received(connection)
                except ConnectionError:
                    # The kernel had taken the connection, the server never did.
                    refused.append(1)
                    continue
                (answers if b'{"predictions": [[3.0]]}' in answer else lost).append(
                    answer
                )

    threads = [threading.Thread(target=load) for _ in range(3)]
    for thread in threads:
        thread.start()
    while len(answers) < 6:
        time.sleep(0.01)
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(30) == 0
    stop.set()
    for thread in threads:
        thread.join()
    assert server.process.stdout.read() == "ended\n"
    assert not [answer for answer in lost if answer] and len(refused) >= 3
    assert len(answers) >= 6
