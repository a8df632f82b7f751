"""Packages of extras, for tests that need them.

After `make install` all are there; a test that is skipped says what to install.
"""

import pytest

_EXTRAS = {"gradio": "search", "keras_hub": "text", "lancedb": "search"}


def need(package):
    """The package; without it the test, or the whole file, is skipped."""
    install = f"pip install 'tfavmae[{_EXTRAS[package]}]'"
    return pytest.importorskip(package, reason=f"needs {package}: {install}")
