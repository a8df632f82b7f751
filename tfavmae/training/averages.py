"""The mean of the weights of named epochs, as CAV-MAE fine-tunes."""

import pathlib
import zipfile
from collections.abc import Sequence

import keras
import numpy as np

from tfavmae import files
from tfavmae.errors import UserError
from tfavmae.private_hooks import whole_values
from tfavmae.training.callbacks import StepCallback, sync_state


class KeptEpochs(StepCallback):
    """Keeps the weights at the end of some epochs, a file each.

    An epoch that is made again, because a run continues from before its end, writes
    the same file again.

    Args:
        first_step: steps made before.
        directory: of the files.
        epochs: numbers of the first and the last of them, from 1.
        steps_per_epoch: updates in an epoch.
        is_chief: whether this process writes.
    """

    def __init__(
        self,
        *,
        first_step: int = 0,
        directory: pathlib.Path,
        epochs: Sequence[int],
        steps_per_epoch: int,
        is_chief: bool = True,
    ) -> None:
        super().__init__(first_step)
        self.directory = directory
        self.first, self.last = epochs
        self.steps_per_epoch = steps_per_epoch
        self.is_chief = is_chief

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        # Keras counts from 0.
        if not self.first <= epoch + 1 <= self.last:
            return
        sync_state(self.model)
        # Not `save_weights`, which adds the moments of the optimizer.
        averaged = _averaged(self.model)
        with whole_values(averaged.values()):
            values = {a: keras.ops.convert_to_numpy(v) for a, v in averaged.items()}
        if self.is_chief:
            with files.replacing(self._path(epoch + 1)) as temporary:
                np.savez(temporary, **values)

    def finish(self, model: keras.Model) -> tuple[int, str]:
        """Gives a model the mean of the kept weights; whole numbers stay.

        Returns:
            The step of the last of them, and what the weights are in words.

        Raises:
            UserError: a file is missing or damaged.
        """
        variables = _averaged(model)
        sums = {a: np.zeros(v.shape, "float64") for a, v in variables.items()}
        for number in range(self.first, self.last + 1):
            path = self._path(number)
            try:
                with np.load(path) as values:
                    for name, total in sums.items():
                        total += values[name]
            except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
                raise UserError(
                    f"{path}: cannot be read ({error}), and trainer.average_epochs"
                    " needs it; restore it, or train into another --workdir."
                ) from error
        for name, variable in variables.items():
            variable.assign(sums[name] / (self.last - self.first + 1))
        text = f"the mean of epochs {self.first} to {self.last}"
        return self.last * self.steps_per_epoch, text

    def _path(self, number: int) -> pathlib.Path:
        return self.directory / f"epoch-{number:04d}.npz"


def _averaged(model: keras.Model) -> dict[str, keras.Variable]:
    """The weights by address, without counters and random generators."""
    return {
        v.path.removeprefix(f"{model.name}/"): v
        for v in model.weights
        if keras.backend.is_float_dtype(v.dtype)
    }
