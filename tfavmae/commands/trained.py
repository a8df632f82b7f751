"""Trained models, and the clips that a command runs them on."""

import argparse
import contextlib
import dataclasses
import pathlib
import tempfile
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from tfavmae.commands import recipes
from tfavmae.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from tfavmae.config.experiment import ExperimentConfig
    from tfavmae.data.pipeline import ClipSplit
    from tfavmae.tasks.results import Result
    from tfavmae.training.runs import Run


@dataclasses.dataclass
class Trained:
    """A run that was loaded, and the recipe that names the clips.

    Args:
        run: the run; its `model` has its weights.
        config: of the run, or of `--config`, with `--set`.
        workdir: the run's folder.
    """

    run: "Run"
    config: "ExperimentConfig"
    workdir: pathlib.Path

    def open_split(self, name: str | None = None) -> "ClipSplit":
        """The split called `name`, by default the recipe's validation split."""
        from tfavmae.data.pipeline import open_split

        data = self.config.data
        name = name or data.validation_split or data.train_split
        return open_split(data.dataset, name, data.data_dir)

    def open_all(self) -> "ClipSplit":
        """All splits of the data set as one."""
        from tfavmae.data.splits import open_info

        data = self.config.data
        return self.open_split("+".join(open_info(data.dataset, data.data_dir).splits))

    def batches(
        self, split: "ClipSplit", labels: Sequence[str] = (), **options: Any
    ) -> Any:
        """Evaluation batches of `split`, of both modalities whatever the model uses.

        Args:
            split: clips.
            labels: names of the labels that the batches hold.
            **options: of `ClipSplit.evaluation_batches`.
        """
        from tfavmae.training.factory import clip_spec

        spec = clip_spec(self.config.data, self.config.model, train=False)
        spec = dataclasses.replace(
            spec, labels=tuple(labels), modalities=("audio", "video")
        )
        return split.evaluation_batches(spec, self.config.data.batch_size, **options)

    def embed(
        self, split: "ClipSplit", labels: Sequence[str] = (), indices: Any = None
    ) -> dict[str, "np.ndarray"]:
        """Embeddings as of `tasks.embedding.embed`.

        Args:
            split: clips.
            labels: names of labels to return as well.
            indices: rows of the split; all by default.
        """
        from tfavmae.data.pipeline import naming_damage
        from tfavmae.tasks import embedding

        batches = self.batches(split, labels, indices=indices)
        with naming_damage():
            return embedding.embed(self.run.model, batches, labels=labels)

    def path_of(self, what: str, split: "ClipSplit", suffix: str) -> pathlib.Path:
        """Where a result on a split goes: `workdir/what_split.suffix`."""
        # `train[:10%]` is a split, but not a good file name.
        name = "".join(c if c.isalnum() else "_" for c in split.name).strip("_")
        return self.workdir / f"{what}_{name}{suffix}"

    def report(self, result: "Result", what: str, split: "ClipSplit") -> None:
        """Writes a result as JSON into the run's folder, and prints it."""
        path = self.path_of(what, split, ".json")
        result.to_json(path)
        result.print()
        print(path)


def load(args: argparse.Namespace) -> Trained:
    """The run of `--workdir`, with the clips of `--config` or else its own.

    Raises:
        UserError: there is no run, or its weights cannot be read.
    """
    from tfavmae.training import experiment

    config = recipes.load(args.config, args.workdir, args.set)
    return Trained(experiment.load(args.workdir), config, pathlib.Path(args.workdir))


@contextlib.contextmanager
def media_split(
    path: str | pathlib.Path, trained: Trained, strict: bool = True
) -> Iterator[tuple["ClipSplit", list[tuple[str, str]]]]:
    """Media files as a split that exists as long as the block.

    Long files are cut into clips of the model's length, as by `data build clip_folder`.

    Args:
        path: a media file, or a folder of them.
        trained: the model that gets the clips.
        strict: whether a file that cannot be decoded is an error.

    Yields:
        `(split, bad_files)`, the second a list of `(path, reason)`.

    Raises:
        UserError: there is no such file, or nothing in it can be decoded.
    """
    from tfavmae.building.bad_files import read_bad_files
    from tfavmae.data.pipeline import open_split
    from tfavmae_datasets.clip_folder import build_clip_folder

    path = pathlib.Path(path).expanduser()
    if not path.exists():
        raise UserError(f"{path}: no such file or folder")
    config = trained.config
    with tempfile.TemporaryDirectory() as scratch:
        folder = path
        if path.is_file():
            # The builder takes folders: one that holds this file alone.
            folder = pathlib.Path(scratch, "media")
            folder.mkdir()
            (folder / path.name).symlink_to(path.resolve())
        builder = build_clip_folder(
            folder,
            pathlib.Path(scratch, "data"),
            clip_seconds=config.data.clip_seconds,
            min_seconds=min(0.5, config.data.clip_seconds),
            shorter_side=min(config.model.video.height, config.model.video.width),
            # Near lossless: these JPEGs are read once and then removed.
            jpeg_quality=95,
            validation_fraction=0.0,
            strict=strict,
        )
        split = open_split(str(builder.data_path), "train")
        yield split, read_bad_files(builder.bad_files_path)
