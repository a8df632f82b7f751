"""The TFDS builder of `clip_folder`."""

import dataclasses
import itertools
import os
from collections.abc import Iterator

import tensorflow_datasets as tfds

from tfavmae.building import decoding, features
from tfavmae.building.clip_cache import PreparedClips, remove_leftovers
from tfavmae.building.worker_pool import WorkerPool
from tfavmae.errors import UserError
from tfavmae_datasets.clip_folder import listing as listing_lib
from tfavmae_datasets.clip_folder.options import ClipFolderConfig

PROBE = "tfavmae.media.decode:probe"


class Builder(tfds.core.GeneratorBasedBuilder):
    """Any folder of media files, cut into clips; see README.md."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "Initial release."}
    BUILDER_CONFIGS = [
        ClipFolderConfig(name="default", description="Files of the manual directory.")
    ]
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "Put media files into the manual directory, or name their folder in a "
        "`ClipFolderConfig(videos=...)`."
    )

    builder_config_cls = ClipFolderConfig

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.summary = decoding.Summary()
        self._pool: WorkerPool | None = None
        self._decoded: list[decoding.DecodedRows] = []  # one for each split

    def _create_builder_config(self, builder_config, *args, **kwargs):
        # TFDS refuses other configs of the default's name, but a folder is none of the
        # built-in selections, and one folder per `data_dir` should need no name.
        if isinstance(builder_config, ClipFolderConfig):
            return builder_config
        return super()._create_builder_config(builder_config, *args, **kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        # The names follow when the CSV has been read.
        labels = {"label": tfds.features.ClassLabel()}
        return self.dataset_info_from_configs(
            features=features.features(labels),
            metadata=tfds.core.MetadataDict(),
        )

    @property
    def bad_files_path(self) -> str:
        """The report of files left out; outside the folder that TFDS may delete."""
        return os.fspath(self.data_path.parent / "bad_files.csv")

    def download_and_prepare(self, **kwargs):
        try:
            super().download_and_prepare(**kwargs)
        finally:
            self.close()
        remove_leftovers(self.data_path.parent)

    @property
    def num_taken_over(self) -> int:
        """Rows that an interrupted build had decoded already."""
        return sum(decoded.num_taken_over for decoded in self._decoded)

    def close(self):
        """Ends the decoding, if there is any."""
        for decoded in self._decoded:
            decoded.close()
        if self._pool:
            self._pool.close()

    def _prepared(self, split) -> PreparedClips:
        """Where decoded clips wait until TFDS has written them."""
        config = self.builder_config
        # A clip that exceeded its limits may do better under others.
        limits = f"{config.time_limit_seconds:g}-{config.memory_limit_bytes}"
        folder = f"prepared-{self._report['fingerprint']}-{limits}"
        return PreparedClips(self.data_path.parent / folder / f"{split}.clips")

    def _split_generators(self, dl_manager):
        config = self.builder_config
        self.close()
        self.summary, self._decoded = decoding.Summary(), []
        self._pool = WorkerPool(
            config.num_workers,
            time_limit_seconds=config.time_limit_seconds,
            memory_limit_bytes=config.memory_limit_bytes,
        )
        listing = listing_lib.list_folder(config.videos or dl_manager.manual_dir)
        self._bad_files = decoding.BadFiles(self.bad_files_path, strict=config.strict)
        self._report = {
            "videos": os.fspath(listing.folder),
            "options": config.chosen(),
            "fingerprint": config.fingerprint(listing.digest),
            "num_files": len(listing.files),
            "ignored": listing.ignored,
        }
        labels = self._read_labels(listing)
        self.info.features["label"].names = labels.names if labels else []
        durations = self._probe(listing, self._select(listing, labels))
        return self._open_splits(listing, labels, durations)

    def _read_labels(self, listing) -> listing_lib.Labels | None:
        config = self.builder_config
        if config.labels is None:
            return None
        labels = listing_lib.read_labels(
            config.labels, config.file_column, config.label_column, listing.files
        )
        for name, line in labels.missing:
            where = f"named in line {line} of {config.labels}"
            self._bad_files.add(name, f"{where}, but not in {listing.folder}")
        return labels

    def _select(self, listing, labels) -> list[str]:
        files = list(listing.files)
        if labels and self.builder_config.unlabelled == "skip":
            files = [file for file in files if file in labels.by_file]
            self._report["num_unlabelled"] = len(listing.files) - len(files)
        if not files:
            raise UserError(
                f"{self.builder_config.labels}: names no media file in "
                f"{listing.folder}. File names are relative to that folder."
            )
        return files

    def _probe(self, listing, files) -> dict[str, float]:
        """Length of each readable file."""
        paths = [os.fspath(listing.folder / file) for file in files]
        durations = {}
        for file, path, outcome in zip(
            files, paths, self._pool.map(PROBE, paths), strict=True
        ):
            reason = outcome.reason or self._wrong_length(outcome.value)
            if reason:
                self._bad_files.add(path, reason)
            else:
                durations[file] = outcome.value.duration_seconds
        return durations

    def _wrong_length(self, info) -> str | None:
        config, seconds = self.builder_config, info.duration_seconds
        if seconds < config.min_seconds:
            return (
                f"too short: {seconds:.2f} s, the minimum is {config.min_seconds:g} s "
                "(min_seconds)"
            )
        if config.clip_seconds is None and seconds > config.max_seconds:
            return (
                f"too long to be one clip: {seconds:.0f} s, the maximum is "
                f"{config.max_seconds:g} s (max_seconds); set clip_seconds to cut it"
            )
        return None

    def _open_splits(self, listing, labels, durations) -> dict:
        """Splits of which each is known to have an example: TFDS refuses empty ones."""
        files = listing_lib.split_files(
            durations, self.builder_config.validation_fraction
        )
        opened = {}
        for split, names in zip(("train", "validation"), files, strict=True):
            rows = self._rows(listing, labels, durations, names)
            examples = self._decode(split, rows)
            first = next(examples, None)
            if first is not None:
                opened[split] = itertools.chain([first], examples)
        if list(opened) == ["validation"]:
            opened = {"train": opened["validation"]}
        if not opened:
            raise UserError(
                f"{listing.folder}: none of its {len(listing.files)} media files could "
                f"be decoded. {self.bad_files_path} says why."
            )
        self._unfinished = len(opened)
        return {
            split: self._generate_examples(opened[split]) for split in sorted(opened)
        }

    def _rows(self, listing, labels, durations, files) -> Iterator[decoding.Row]:
        names = labels.names if labels else []
        index = {name: i for i, name in enumerate(names)}
        for file in files:
            label = index.get(labels.by_file.get(file), -1) if labels else -1
            path = os.fspath(listing.folder / file)
            parts = listing_lib.cut(durations[file], self.builder_config.clip_seconds)
            for start, end in parts:
                key = file if start == 0 else f"{file}@{start:g}"
                yield decoding.Row(key, path, start, end, {"label": label})

    def _decode(self, split, rows) -> Iterator[tuple[str, dict]]:
        decoded = decoding.decode_rows(
            rows,
            self.builder_config.decode_options(),
            bad_files=self._bad_files,
            pool=self._pool,
            summary=self.summary,
            prepared=self._prepared(split),
        )
        self._decoded.append(decoded)
        return decoded

    def _generate_examples(self, examples):
        yield from examples
        self._unfinished -= 1
        if not self._unfinished:
            self._finish()

    def _finish(self):
        self.summary.num_bad = self._bad_files.count
        self._report["summary"] = dataclasses.asdict(self.summary)
        self.info.metadata.update(self._report)
