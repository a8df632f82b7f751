"""Methods of our models that load presets and save them."""

import os
from typing import Any, Self

from tfavmae.errors import UserError
from tfavmae.models import model_card, preset_folder
from tfavmae.models.preset_address import is_remote


class PresetMethods:
    """`from_preset` and `save_to_preset`, as in KerasHub; mixed into every model."""

    @classmethod
    def from_preset(cls, preset: str | os.PathLike, **options: Any) -> Self:
        """A model of this class: one of our sizes, or one that somebody has trained.

        Args:
            preset: a size such as `cav_mae_base`, which has no weights yet; or a folder
                of `save_to_preset`, `hf://USER/REPO`, `hf://USER/REPO@REVISION` or
                `kaggle://USER/MODEL/FRAMEWORK/VARIATION`, with its weights. A folder
                that is called like a size is `./cav_mae_base`.
            **options: of a size: arguments as of `build_pretraining` and
                `build_classifier`.

        Raises:
            UserError: there is no such preset, it is damaged, its model is of another
                class, or options are given for a model that has weights.
            ValueError: for an unknown option.

        Example:

        >>> tfavmae.CAVMAE.from_preset("cav_mae_base")
        >>> tfavmae.CAVMAE.from_preset("hf://USER/REPO")
        """
        # `presets` lists the subclasses of this class.
        from tfavmae.models import presets

        address = os.fspath(preset)
        if address in presets.preset_names():
            return presets.build_preset(cls, address, **options)
        if not is_remote(address) and not os.path.isdir(os.path.expanduser(address)):
            raise UserError(presets.unknown_preset(address))
        if options:
            raise UserError(
                f"{address}: has weights, which do not fit other options; leave out "
                f"{', '.join(sorted(options))}."
            )
        model = preset_folder.PresetFolder(address).read_model()
        presets.check_class(cls, type(model), address)
        return model

    def save_to_preset(
        self, directory: str | os.PathLike, *, license: str | None = None
    ) -> None:
        """Saves the model as a folder that `from_preset` reads.

        The card says no more than the model itself knows; `tfavmae.save_preset` of a
        run says what it was trained on as well, and stores how clips become inputs.

        Args:
            directory: a new folder, or that of an earlier preset.
            license: of the weights, by its SPDX name.

        Raises:
            UserError: `directory` holds something else, or cannot be written.
        """
        task = model_card.task_of(self)
        card = model_card.render(self, task, os.path.basename(directory), license)
        preset_folder.write(self, directory, card, task)
