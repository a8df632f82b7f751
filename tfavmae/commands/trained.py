"""A trained model and the clips that a command asks it about."""

import contextlib
import dataclasses
import pathlib
import tempfile

from tfavmae.commands import recipes
from tfavmae.errors import UserError


@dataclasses.dataclass
class Trained:
    """A run that was loaded, and the config that says which clips.

    Args:
        run: `training.experiment.Run`.
        config: of the run, or of `--config`, with `--set`.
        workdir: the run's folder.
    """

    run: object
    config: object
    workdir: pathlib.Path

    def open_split(self, name=None):
        """The split called `name`, by default the config's validation split."""
        from tfavmae.data.pipeline import open_split

        data = self.config.data
        name = name or data.validation_split or data.train_split
        return open_split(data.dataset, name, data.data_dir)

    def open_all(self):
        """All splits of the data set as one."""
        from tfavmae.data.splits import open_info

        data = self.config.data
        return self.open_split("+".join(open_info(data.dataset, data.data_dir).splits))

    def batches(self, split, labels=(), **options):
        """Evaluation batches of `split`, with both modalities whatever is used."""
        from tfavmae.training.factory import clip_spec

        spec = clip_spec(self.config.data, self.config.model, train=False)
        spec = dataclasses.replace(spec, labels=labels, modalities=("audio", "video"))
        return split.evaluation_batches(spec, self.config.data.batch_size, **options)


def load(args) -> Trained:
    """The run of `--workdir`, asked about the clips of `--config` or of its own."""
    from tfavmae.training import experiment

    config = recipes.load(args)
    return Trained(experiment.load(args.workdir), config, pathlib.Path(args.workdir))


@contextlib.contextmanager
def media_split(path, trained: Trained, strict=True):
    """Media files as a split that lasts as long as the block.

    Long files are cut into clips of the model's length, as `data build clip_folder`
    does it.

    Args:
        path: a media file, or a folder of them.
        trained: the model that will be asked.
        strict: a file that cannot be decoded is an error.

    Yields:
        `(split, bad_files)`, the second a list of `(path, reason)`.
    """
    from tfavmae.data.pipeline import open_split
    from tfavmae_datasets.clip_folder import build_clip_folder

    path = pathlib.Path(path).expanduser()
    if not path.exists():
        raise UserError(f"{path}: no such file or folder")
    config = trained.config
    with tempfile.TemporaryDirectory() as scratch:
        folder = path
        if path.is_file():
            folder = pathlib.Path(scratch, "media")
            folder.mkdir()
            (folder / path.name).symlink_to(path.resolve())
        builder = build_clip_folder(
            folder,
            pathlib.Path(scratch, "data"),
            clip_seconds=config.data.clip_seconds,
            min_seconds=min(0.5, config.data.clip_seconds),
            shorter_side=min(config.model.video.height, config.model.video.width),
            jpeg_quality=95,
            validation_fraction=0.0,
            strict=strict,
        )
        yield open_split(str(builder.data_path), "train"), read_bad_files(builder)


def read_bad_files(builder) -> list[tuple[str, str]]:
    """`(path, reason)` of the files that a build of clip_folder left out."""
    import csv

    path = pathlib.Path(builder.bad_files_path)
    if not path.exists():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return [(row["path"], row["reason"]) for row in csv.DictReader(file)]
