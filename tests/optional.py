"""Packages that may be missing, for tests that need them.

After `make install` all are there; a test that is skipped says what to install. The
last two have no release yet for the newest TensorFlow (`make test-matrix`).
"""

import pytest

_FROM = {
    "gradio": "'tfavmae[search]'",
    "keras_hub": "'tfavmae[text]'",
    "lancedb": "'tfavmae[search]'",
    "official": "tf-models-official",
    "tensorflow_text": "tensorflow-text",
}


def need(package):
    """The package; without it the test, or the whole file, is skipped."""
    install = f"pip install {_FROM[package]}"
    return pytest.importorskip(package, reason=f"needs {package}: {install}")
