"""Base class of the TFDS builders that decode media files.

A builder says where its rows come from (`DecodingBuilder.plan`) and which labels they
carry. All else is here: worker processes, the report of bad files, decoded clips that
outlive an interruption, the lock on the folder, the check that a data set on the disk
was built with the same options, and the metadata.
"""

import abc
import contextlib
import dataclasses
import errno
import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import tensorflow_datasets as tfds
from tensorflow_datasets.core.utils import tqdm_utils

from tfavmae.building import decoding
from tfavmae.building.clip_cache import PreparedClips, find_leftovers
from tfavmae.building.features import (
    StoredClipsConfig,
    check_name,
    example_features,
    fingerprint_of,
)
from tfavmae.building.progress import Progress
from tfavmae.building.worker_pool import WorkerPool
from tfavmae.errors import UserError
from tfavmae.files import disk_error, exclusive, is_disk_full, remove
from tfavmae.media.decode import Clip

Examples = Iterator[tuple[str, dict[str, Any]]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class BuildPlan:
    """The rows of a build, and what is to be recorded about them.

    Attributes:
        rows: rows to decode by split; drawn as they are needed.
        num_rows: their number, for the progress.
        source_digest: hash of the source; with the options it decides the content.
        facts: metadata to store with the data set.
        if_empty: message of the `UserError` if no clip at all can be stored.
    """

    rows: dict[str, Iterable[decoding.Row]]
    num_rows: int
    source_digest: str
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)
    if_empty: str = "no clip could be stored."


class DecodingBuilder(
    tfds.core.GeneratorBasedBuilder,
    skip_registration=True,  # type: ignore[call-arg]  # untyped in TFDS
):
    """Builds a data set by decoding media files in worker processes.

    A subclass implements `label_features` and `plan`, and overrides the other hooks
    where it has something to say. Its configurations are `StoredClipsConfig`s.

    Attributes:
        summary: `decoding.Summary` of the latest build.
        bad_files: `decoding.BadFiles`, the report of the latest build.
        num_workers: decoding processes; None for one per core.
        progress: is told of each step of a build.
        ended_files: files with fewer clips than their headers promise; see
            `decoding.decode_rows`.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "Initial release."}
    SOURCE_KIND: ClassVar[str] = "files"  # named in the error when the source differs
    # Whether `plan` cuts files by the lengths in their headers and heeds `ended_files`.
    CUTS_BY_HEADER: ClassVar[bool] = False

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.summary, self.bad_files = decoding.Summary(), decoding.BadFiles()
        self.num_workers: int | None = self.builder_config.num_workers
        self._download_config = tfds.download.DownloadConfig()
        self._pool: WorkerPool | None = None
        self._decoded: list[decoding.DecodedRows] = []  # one per split
        self._num_unfinished = 0  # splits
        self._num_rows = 0
        self.progress: Callable[..., None] = Progress(is_shown=False)
        self.ended_files: set[str] = set()
        self._fingerprint = ""

    # TFDS refuses a config that shares the name of a published one without being that
    # very object, but where the media lie is a matter of the user's configuration.
    # Overrides a private method, read in TFDS 4.9.10; can go once TFDS accepts such
    # configs itself.
    def _create_builder_config(
        self, builder_config: Any, *args: Any, **kwargs: Any
    ) -> Any:
        if isinstance(builder_config, StoredClipsConfig):
            check_name(builder_config.name)
            return builder_config
        return super()._create_builder_config(builder_config, *args, **kwargs)

    # TFDS prints sizes that nobody knows yet. Private methods, read in TFDS 4.9.10; if
    # it renames them, the lines are back.
    def _log_download_bytes(self) -> None:
        pass

    def _log_download_done(self) -> None:
        pass

    # --- Hooks of a builder ---

    @abc.abstractmethod
    def label_features(self) -> dict[str, Any]:
        """TFDS features of the labels by name."""

    @abc.abstractmethod
    def plan(
        self, dl_manager: tfds.download.DownloadManager, pool: WorkerPool
    ) -> BuildPlan:
        """Finds the rows to decode.

        Args:
            dl_manager: knows TFDS's manual directory.
            pool: the workers that will decode the rows. What they already find to be
                bad belongs into `self.bad_files`.

        Raises:
            UserError: the source cannot be used.
        """

    def names_source(self) -> bool:
        """Whether the configuration says what to build from.

        If not, as in `tfds.load("clip_folder")`, a data set on the disk is read
        whatever it was built from.
        """
        return True

    def source_digest(self) -> str | None:
        """`BuildPlan.source_digest` where it is known without a build, else None."""
        return None

    @property
    def skip(self) -> tuple[str, ...]:
        """Flags of decoded clips that are left out; see `decoding.decode_rows`."""
        return ()

    def count_example(self, split: str, example: dict[str, Any]) -> None:
        """Notes what `closing_facts` needs to know of a stored example."""

    def closing_facts(self) -> dict[str, Any]:
        """Metadata that is known once all examples are stored.

        `remarks`, a list of sentences, is shown at the end of a build.
        """
        return {}

    @property
    def frame_size(self) -> int | None:
        """Pixels of square frames; None where frames differ in size."""
        return None

    def static_facts(self) -> dict[str, Any]:
        """Metadata that is known before the build."""
        return {}

    @staticmethod
    def finish_example(example: dict[str, Any]) -> dict[str, Any]:
        """Applies the last change that a protocol asks for to an example."""
        return example

    # --- Places ---

    @property
    def work_folder(self) -> Path:
        """Local folder of lock, reports and decoded clips, next to the versions.

        It is not the folder of the version, which TFDS deletes and renames.
        """
        path = os.fspath(self.data_path.parent)
        if "://" in path:
            return Path("~/.cache/tfavmae").expanduser() / path.partition("://")[2]
        return Path(path)

    @property
    def bad_files_path(self) -> str:
        """The report (CSV) of files that could not be stored, with reasons."""
        return os.fspath(self.work_folder / "bad_files.csv")

    # --- Building ---

    def download_and_prepare(
        self,
        *,
        download_config: tfds.download.DownloadConfig | None = None,
        **kwargs: Any,
    ) -> None:
        """Builds the data set, or continues a build that was interrupted.

        Raises:
            UserError: another build is running here, the disk is full, the number of
                workers is not positive, or the existing data set was built from another
                source or with other options.
        """
        WorkerPool(
            self.num_workers
        )  # refuses a wrong number before anything is written
        self._download_config = download_config or tfds.download.DownloadConfig()
        kwargs["download_config"] = self._download_config
        overwrites = self._download_config.download_mode.overwrite_dataset
        is_kept = self.data_path.exists() and not overwrites
        if is_kept and self.names_source() and (changed := self.changes()):
            raise UserError(
                f"{self.data_path}: was built with other {', '.join(changed)}. Build "
                "it again with --overwrite, or beside it under another name or in "
                "another data_dir."
            )
        if is_kept and not find_leftovers(self.work_folder):
            # Reading a finished data set needs neither the lock nor write access.
            super().download_and_prepare(**kwargs)
            return
        with (
            exclusive(self.work_folder / "build.lock"),
            without_tfds_bars() as has_bars,
            Progress(is_shown=has_bars) as self.progress,
        ):
            for path in self.work_folder.glob("incomplete.*"):
                remove(path)  # what TFDS was writing when it was killed
            try:
                super().download_and_prepare(**kwargs)
            except UserError:
                raise
            except Exception as error:
                # TensorFlow and TFDS wrap what the system said in errors of their own.
                if is_disk_full(error):
                    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                    raise disk_error(full, self.data_path) from error
                raise
            finally:
                self.close()
            for path in find_leftovers(self.work_folder):
                remove(path)

    def close(self) -> None:
        """Stops the workers and closes the decoded clips, if there are any."""
        for decoded in self._decoded:
            decoded.close()
        if self._pool:
            self._pool.close()

    def changes(self) -> list[str]:
        """Names of the options that differ from those of the data set on the disk.

        Raises:
            UserError: the data set is too old to record its options.
        """
        built, config = dict(self.info.metadata or {}), self.builder_config
        if "fingerprint" not in built:
            raise UserError(
                f"{self.data_path}: was built by an older version, which did not "
                "record its source. Build it again with --overwrite, or in another "
                "data_dir."
            )
        # Compared as JSON, the form in which a data set stores its options.
        wanted = json.loads(json.dumps(config.chosen()))
        changed = [n for n in wanted if built["options"].get(n) != wanted[n]]
        digest = self.source_digest()
        if digest and built["fingerprint"] != fingerprint_of(built["options"], digest):
            changed.append(self.SOURCE_KIND)
        return changed

    @property
    def num_taken_over(self) -> int:
        """Rows that an interrupted build had decoded already."""
        return sum(decoded.num_taken_over for decoded in self._decoded)

    @property
    def prepared_folder(self) -> Path:
        """The folder of decoded clips that this build, and no other, can take over."""
        config = self.builder_config
        # A clip that exceeded its limits may succeed under others.
        limits = f"{config.time_limit_seconds:g}-{config.memory_limit_bytes}"
        return self.work_folder / f"prepared-{self._fingerprint}-{limits}"

    def prepared_clips(self, split: str) -> PreparedClips | None:
        """The file that keeps decoded clips until TFDS has written them all."""
        return PreparedClips(self.prepared_folder / f"{split}.clips", Clip)

    def open_splits(self, plan: BuildPlan) -> dict[str, Any]:
        """Decodes each split up to its first example; leaves out empty splits.

        Returns:
            What `_split_generators` returns to TFDS.
        """
        opened = {}
        for split, rows in plan.rows.items():
            examples = decoding.decode_rows(
                rows,
                self.builder_config.decode_options(),
                bad_files=self.bad_files,
                pool=self._pool,
                summary=self.summary,
                prepared=self.prepared_clips(split),
                skip=self.skip,
                ended=self.ended_files if self.CUTS_BY_HEADER else None,
            )
            self._decoded.append(examples)
            # TFDS fails on a split without examples, but only once all are decoded.
            first = next(examples, None)
            if first is not None:
                opened[split] = itertools.chain([first], examples)
        if not opened:
            raise UserError(plan.if_empty)
        self._num_unfinished = len(opened)
        return {
            split: self._generate_examples(examples, split)
            for split, examples in opened.items()
        }

    # --- Methods that TFDS requires ---

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            features=example_features(self.label_features(), self.frame_size),
            metadata=tfds.core.MetadataDict(self.static_facts()),
        )

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, Any]:
        config = self.builder_config
        self.close()
        self.summary, self._decoded = decoding.Summary(), []
        self.ended_files = set()
        # A pool cannot be used again once it is closed.
        self._pool = WorkerPool(
            self.num_workers,
            time_limit_seconds=config.time_limit_seconds,
            memory_limit_bytes=config.memory_limit_bytes,
        )
        self.bad_files = decoding.BadFiles(self.bad_files_path, strict=config.strict)
        plan = self.plan(dl_manager, self._pool)
        options = config.chosen()
        self._fingerprint = fingerprint_of(options, plan.source_digest)
        self._num_rows = plan.num_rows
        for path in self.work_folder.glob("prepared-*"):
            if path != self.prepared_folder:
                remove(path)  # of a killed build of other files or options
        self.info.metadata.update(
            **plan.facts,
            options=options,
            # For those who decode further files as these were.
            stored_as=dataclasses.asdict(self.builder_config.decode_options()),
            fingerprint=self._fingerprint,
        )
        return self.open_splits(plan)

    def _generate_examples(self, examples: Examples, split: str) -> Examples:
        for key, example in examples:
            self.count_example(split, example)
            self.progress("decoding", self.summary.num_rows, self._num_rows)
            yield key, self.finish_example(example)
        self._num_unfinished -= 1
        # TFDS writes the metadata after the last example, and has no hook in between.
        if not self._num_unfinished:
            num_rows = self.summary.num_rows
            self.progress("decoding", num_rows, num_rows)
            self.summary.num_bad = self.bad_files.count
            self.info.metadata.update(
                summary=dataclasses.asdict(self.summary), **self.closing_facts()
            )


@contextlib.contextmanager
def without_tfds_bars() -> Iterator[bool]:
    """Turns TFDS's progress bars off, which name scratch files; yields if they were on.

    TFDS has no public way to ask for that; read in TFDS 4.9.10.
    """
    were_on = tqdm_utils._active
    tfds.disable_progress_bar()
    try:
        yield were_on
    finally:
        tqdm_utils._active = were_on
