"""Serving: exports, a server of them, and its clients."""

import importlib.util

# What the extra `serve` brings, by the name of the module.
_SERVER = ("multipart", "prometheus_client", "starlette", "uvicorn")


def missing_packages() -> list[str]:
    """Modules that `tfavmae serve` needs and that are not installed."""
    return [name for name in _SERVER if importlib.util.find_spec(name) is None]
