"""TFDS builder of `clip_folder`."""

import os
from collections.abc import Iterator
from typing import Any

import tensorflow_datasets as tfds

from tfavmae.building import decoding
from tfavmae.building.decoding_builder import BuildPlan, DecodingBuilder
from tfavmae.building.worker_pool import WorkerPool
from tfavmae.errors import UserError
from tfavmae.media.decode import STILL_EXTENSIONS, is_still
from tfavmae_datasets.clip_folder import listing as listing_lib
from tfavmae_datasets.clip_folder.options import ClipFolderConfig


class Builder(DecodingBuilder):
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
    CUTS_BY_HEADER = True

    @property
    def skip(self) -> tuple[str, ...]:
        return self.builder_config.skip

    def label_features(self) -> dict[str, Any]:
        # `plan` sets the names, once the CSV has been read.
        return {"label": tfds.features.ClassLabel()}

    def names_source(self) -> bool:
        return self.builder_config.videos is not None

    def source_digest(self) -> str | None:
        videos, pictures = self.builder_config.videos, self.builder_config.pictures
        return listing_lib.list_folder(videos, pictures).digest if videos else None

    def plan(
        self, dl_manager: tfds.download.DownloadManager, pool: WorkerPool
    ) -> BuildPlan:
        config = self.builder_config
        videos = config.videos or dl_manager.manual_dir
        listing = listing_lib.list_folder(videos, config.pictures)
        for name, reason in listing.unusable:
            self.bad_files.add(listing.folder / name, reason)
        labels = listing_lib.Labels({}, [], [])
        if config.labels is not None:
            labels = listing_lib.read_labels(
                config.labels,
                config.file_column,
                config.label_column,
                listing.files,
                listing.folder,
            )
        files, remarks = self.labelled_files(listing, labels)
        pictures = [
            count
            for extension, count in listing.ignored.items()
            if extension in STILL_EXTENSIONS
        ]
        if pictures:
            remarks.append(
                f"{sum(pictures)} pictures were left out; pictures=true makes each a "
                "clip of one frame"
            )
        self.info.features["label"].names = labels.names
        self._listing, self._labels, self._remarks = listing, labels, remarks
        self._stored: dict[str, dict[str, int]] = {}
        self._durations = self.probe_files(files, pool)
        train, validation = listing_lib.split_files(
            self._durations, config.validation_fraction, labels.by_file
        )
        return BuildPlan(
            rows={"train": self.rows(train), "validation": self.rows(validation)},
            num_rows=sum(
                listing_lib.count_clips(seconds, config.clip_seconds)
                for seconds in self._durations.values()
            ),
            source_digest=listing.digest,
            facts={
                "videos": os.fspath(listing.folder),
                "num_files": len(listing.files),
                "num_unlabelled": len(set(listing.files) - labels.by_file.keys()),
                "ignored": listing.ignored,
            },
            if_empty=(
                f"{listing.folder}: none of its {len(listing.files)} media files could "
                f"be decoded. {self.bad_files_path} says why."
            ),
        )

    def labelled_files(
        self, listing: listing_lib.Listing, labels: listing_lib.Labels
    ) -> tuple[tuple[str, ...], list[str]]:
        """The files to build, and a remark on those without a label.

        Raises:
            UserError: labels were given, and none is of a file.
        """
        config, files = self.builder_config, listing.files
        if config.labels is None:
            return files, []
        for name, line in labels.missing:
            where = f"named in line {line} of {config.labels}"
            self.bad_files.add(name, f"{where}, but not in {listing.folder}")
        if not labels.by_file and config.unlabelled == "skip":
            raise UserError(
                f"{config.labels}: names no media file in {listing.folder}, where "
                f"{files[0]} is one. File names are relative to that folder or to the "
                "CSV."
            )
        unlabelled = [file for file in files if file not in labels.by_file]
        if not unlabelled:
            return files, []
        is_kept = config.unlabelled == "keep"
        if not is_kept:
            files = tuple(file for file in files if file in labels.by_file)
        return files, [
            f"{len(unlabelled)} of {len(listing.files)} files have no label in "
            f"{config.labels} and were {'kept' if is_kept else 'left out'}: "
            f"{listing_lib.some_of(unlabelled)}"
        ]

    def count_example(self, split: str, example: dict[str, Any]) -> None:
        key = example["id"]
        # A file's name may have an "@" itself.
        file = key if key in self._durations else key.rpartition("@")[0]
        self._stored.setdefault(split, {})[file] = example["label"]

    def closing_facts(self) -> dict[str, Any]:
        stored, remarks = self._stored, list(self._remarks)
        if list(stored) == ["validation"]:  # see `open_splits`
            stored = {"train": stored["validation"]}
        if self.builder_config.validation_fraction:
            remarks += listing_lib.remarks_on_splits(stored, self._labels.names)
        num_files = {split: len(files) for split, files in stored.items()}
        return {"num_files_stored": num_files, "remarks": remarks}

    def probe_files(self, files: tuple[str, ...], pool: WorkerPool) -> dict[str, float]:
        """Length in seconds of each file that can be used; reports the others."""
        config, durations = self.builder_config, {}
        paths = [os.fspath(self._listing.folder / file) for file in files]
        outcomes = decoding.probe_files(pool, paths)
        for done, (file, path) in enumerate(zip(files, paths, strict=True), 1):
            outcome = next(outcomes)
            self.progress("reading headers", done, len(files), "files")
            if outcome.reason is not None:
                self.bad_files.add(path, outcome.reason)
                continue
            seconds = outcome.value.duration_seconds or 0.0
            if seconds < config.min_seconds and not is_still(file):
                self.bad_files.add(
                    path,
                    f"too short: {seconds:.2f} s, the minimum is "
                    f"{config.min_seconds:g} s (min_seconds)",
                )
            elif config.clip_seconds is None and seconds > config.max_seconds:
                self.bad_files.add(
                    path,
                    f"too long to be one clip: {seconds:.0f} s, the maximum is "
                    f"{config.max_seconds:g} s (max_seconds); set clip_seconds to cut "
                    "it",
                )
            else:
                durations[file] = seconds
        return durations

    def rows(self, files: list[str]) -> Iterator[decoding.Row]:
        """The clips that the files are cut into."""
        index = {name: i for i, name in enumerate(self._labels.names)}
        for file in files:
            label = index.get(self._labels.by_file.get(file), -1)
            path = os.fspath(self._listing.folder / file)
            seconds, clip_seconds = (
                self._durations[file],
                self.builder_config.clip_seconds,
            )
            for start, end in listing_lib.cut(seconds, clip_seconds):
                if path in self.ended_files:
                    break
                key = listing_lib.clip_id(file, start)
                yield decoding.Row(key, path, start, end, {"label": label})

    def open_splits(self, plan: BuildPlan) -> dict[str, Any]:
        opened = super().open_splits(plan)
        if list(opened) == ["validation"]:
            # All files of `train` were bad. What is left is there to be trained on.
            return {"train": opened["validation"]}
        return opened
