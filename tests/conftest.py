"""What every test may use."""

import os
import signal
import subprocess
import sys

# Before anything imports TensorFlow or Keras.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("COLUMNS", "80")

import hypothesis
import pytest

# Whoever starts the tests in the background may have them ignore Ctrl-C, and processes
# that they start would do so too.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The time of one example says nothing; which examples there are must not change.
hypothesis.settings.register_profile("tfavmae", deadline=None, derandomize=True)
hypothesis.settings.load_profile("tfavmae")


@pytest.fixture
def cli(capfd):
    """Runs a command line in this process: `cli("describe", "--config", path)`.

    Returns an object with `status`, `out` and `err`.
    """
    from tfavmae.cli import main

    def command(*arguments):
        capfd.readouterr()
        status = main([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return Done(status, out, err)

    return command


@pytest.fixture
def fresh_python():
    """Runs code in a new interpreter and returns what it printed."""

    def python(code, *arguments, blocked=(), environment=None):
        blocker = _BLOCK.format(blocked=tuple(blocked)) if blocked else ""
        done = subprocess.run(
            [sys.executable, "-P", "-c", blocker + code, *map(str, arguments)],
            env={**os.environ, **(environment or {})},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr[-4000:]
        return done.stdout

    return python


class Done:
    """How a command ended."""

    def __init__(self, status, out, err):
        self.status, self.out, self.err = status, out, err

    def __repr__(self):
        return f"status {self.status}\n--- out\n{self.out}\n--- err\n{self.err}"


_BLOCK = """
import sys

class _Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked}:
            raise ModuleNotFoundError(f"{{name}} is blocked in this test", name=name)

sys.meta_path.insert(0, _Refuse())
"""


@pytest.fixture(scope="session")
def chromium():
    """A browser without a window."""
    import browser

    with browser.chromium() as running:
        yield running


@pytest.fixture(scope="session")
def quick_demo(tmp_path_factory):
    """The folder of a demo on a toy scale: data, four runs, an export, a report."""
    from tfavmae.cli import main

    folder = tmp_path_factory.mktemp("demo") / "runs"
    assert main(["demo", "--quick", "--workdir", str(folder)]) == 0
    return folder
