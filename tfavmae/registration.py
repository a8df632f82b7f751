"""Registration with Keras of every class that a `.keras` file may hold.

`keras.saving.load_model` finds a class by its registered name, and only if the module
that defines it has been imported. Importing `tfavmae` sees to that without importing
Keras itself, which takes seconds: if Keras is there already the modules are imported at
once, else at the end of its import.
"""

import contextlib
import importlib
import importlib.abc
import importlib.util
import pkgutil
import sys
import threading
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

_ROOMS = ("layers", "objectives", "models")
_MODULES = ("tfavmae.training.optimizers", "tfavmae.training.schedules")


def register() -> None:
    """Imports every module that registers classes."""
    for room in _ROOMS:
        package = importlib.import_module(f"tfavmae.{room}")
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)
    for name in _MODULES:
        importlib.import_module(name)


def register_with_keras() -> None:
    """Calls `register` now if Keras is imported, else as soon as it is."""
    if "keras" in sys.modules:
        register()
    elif not any(isinstance(finder, _AfterKeras) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterKeras())


class _AfterKeras(importlib.abc.MetaPathFinder):
    """Calls `register` at the end of the import of Keras.

    It stays until then: whoever asks `importlib.util.find_spec("keras")` whether Keras
    is installed, as `huggingface_hub` does, does not import it.
    """

    def __init__(self) -> None:
        self._lookup = threading.local()

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        if fullname != "keras" or getattr(self._lookup, "is_ours", False):
            return None
        self._lookup.is_ours = True
        try:
            spec = importlib.util.find_spec("keras")
        finally:
            self._lookup.is_ours = False
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_register(module: ModuleType) -> None:
                execute(module)
                with contextlib.suppress(ValueError):  # removed by another import
                    sys.meta_path.remove(self)
                register()

            spec.loader.exec_module = execute_and_register
        return spec
