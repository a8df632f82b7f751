"""Base class of the builders of published data sets.

    class Builder(published_builder.PublishedBuilder):
        SOURCE = VGGSound
        BUILDER_CONFIGS = published_builder.configs(VGGSound)

        def label_features(self):
            return {"label": tfds.features.ClassLabel()}

A build has two steps: an audit makes a manifest of annotations and media, then the
clips of the manifest that are usable are decoded and stored. With a manifest at hand,
a build starts at the second step and never searches the disk.
"""

import collections
import dataclasses
import functools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import tensorflow_datasets as tfds

from tfavmae.building import audit, decoding, inspection
from tfavmae.building.decoding_builder import BuildPlan, DecodingBuilder
from tfavmae.building.manifest import OK, Manifest
from tfavmae.building.published_config import PublishedConfig, configs
from tfavmae.building.source import Source
from tfavmae.building.worker_pool import WorkerPool
from tfavmae.errors import UserError


class PublishedBuilder(
    DecodingBuilder,
    skip_registration=True,  # type: ignore[call-arg]  # untyped in TFDS
):
    """Builds a published data set; a subclass names its source and its labels.

    Class attributes:
        SOURCE: the `Source` class. It supplies the names of the classes, so
            `label_features` leaves them out.
    """

    SOURCE: ClassVar[type[Source]]
    SOURCE_KIND = "manifest"
    builder_config_cls = PublishedConfig

    def __init_subclass__(cls, **kwargs: Any) -> None:
        # TFDS shows these instructions where files are missing.
        if hasattr(cls, "SOURCE"):
            cls.MANUAL_DOWNLOAD_INSTRUCTIONS = cls.SOURCE.INSTRUCTIONS
        super().__init_subclass__(**kwargs)

    @functools.cached_property
    def source(self) -> Source:
        """The configured selection of the data set."""
        config = self.builder_config
        return self.SOURCE(config.selection, **config.options)

    def names_source(self) -> bool:
        config = self.builder_config
        given = config.manifest or config.annotations or config.media
        return bool(given or self._download_config.manual_dir)

    def source_digest(self) -> str | None:
        manifest = self.builder_config.manifest
        return Manifest(manifest).fingerprint if manifest else None

    def plan(
        self, dl_manager: tfds.download.DownloadManager, pool: WorkerPool
    ) -> BuildPlan:
        config, manifest = self.builder_config, self.find_manifest(dl_manager)
        for name, names in manifest.facts["label_names"].items():
            feature = self.info.features[name]
            feature = getattr(feature, "feature", feature)  # that of a sequence
            if feature.num_classes is None:
                feature.names = names
        # The media may have moved since the audit.
        media = config.media if config.manifest else None
        root = Path(media or manifest.media).expanduser()
        recorded = ("annotations", "splits", "num_rows", "thorough", "min_seconds")
        self._manifest, self._root = manifest, root
        return BuildPlan(
            rows={split: self.usable_rows(split) for split in manifest.splits},
            num_rows=sum(counts[OK] for counts in manifest.splits.values()),
            source_digest=manifest.fingerprint,
            facts={
                "manifest_fingerprint": manifest.fingerprint,
                "manifest": {name: manifest.facts[name] for name in recorded},
            },
            if_empty=(
                f"{root}: of {manifest.facts['num_rows']} annotated clips none could "
                f"be stored. {manifest.folder}/index.html and {self.bad_files_path} "
                "say why."
            ),
        )

    def find_manifest(self, dl_manager: tfds.download.DownloadManager) -> Manifest:
        """The given manifest, that of an interrupted build, or a new one.

        Raises:
            UserError: the given manifest is of another data set, or of an audit too
                quick for `skip`.
        """
        config = self.builder_config
        if not config.manifest:

            def folder_of(name: str) -> Path:
                if given := getattr(config, name):
                    return Path(given)
                # TFDS raises an error of its own where it does not exist.
                manual = Path(dl_manager.manual_dir)
                return manual / name if (manual / name).is_dir() else manual

            return audit.audit(
                self.source,
                folder_of("annotations"),
                folder_of("media"),
                self.work_folder / "audit",
                templates=config.templates,
                thorough=config.thorough,
                min_seconds=config.min_seconds,
                num_workers=self.num_workers,
                time_limit_seconds=config.time_limit_seconds,
                memory_limit_bytes=config.memory_limit_bytes,
                progress=functools.partial(self.progress, "auditing"),
                # An interrupted build leaves its clips, which belong to its manifest.
                reuse=any(self.work_folder.glob("prepared-*")),
            )
        manifest = Manifest(config.manifest)
        found = f"{manifest.facts['dataset']}/{manifest.facts['selection']}"
        if found != self.source.full_name:
            raise UserError(
                f"{manifest.folder}: is the manifest of {found}, not of "
                f"{self.source.full_name}."
            )
        skipped = {"silent", "still"} & set(config.skip)
        if skipped and not manifest.facts["thorough"]:
            raise UserError(
                f"{manifest.folder}: comes from a quick audit, which does not detect "
                f"{' or '.join(sorted(skipped))} clips. Audit again without --quick."
            )
        return manifest

    def usable_rows(self, split: str) -> Iterator[decoding.Row]:
        """Rows of the manifest to decode; a file that has changed is reported."""
        for row in self._manifest.rows(split):
            if not row.is_usable(self.builder_config.skip):
                continue
            path = self._root / row.path
            reason = inspection.change_since(row, path)
            if reason:
                self.bad_files.add(path, reason)
                continue
            start = row.start_seconds or 0.0
            yield decoding.Row(
                row.id, os.fspath(path), start, row.end_seconds, row.labels
            )

    def open_splits(self, plan: BuildPlan) -> dict[str, Any]:
        """On Beam, transforms instead of generators; Beam counts and reports itself."""
        chosen = self._download_config
        if not (chosen.beam_runner or chosen.beam_options):
            return super().open_splits(plan)
        try:
            from tfavmae.building import beam
        except ImportError as error:
            raise UserError(
                "Beam is not installed: pip install 'tfavmae[beam]'."
            ) from error
        config, manifest = self.builder_config, self._manifest
        # Beam's workers read parts of the manifest, so its fingerprint is checked here.
        collections.deque(manifest.rows(), maxlen=0)
        return {
            split: beam.DecodedClips(
                beam.Step(
                    manifest_csv=os.fspath(manifest.csv_path),
                    root=os.fspath(self._root),
                    split=split,
                    skip=frozenset(config.skip),
                    options=dataclasses.asdict(config.decode_options()),
                    limits=(config.time_limit_seconds, config.memory_limit_bytes),
                    strict=config.strict,
                    bad_files=os.fspath(self.work_folder / f"bad_files-{split}"),
                    finish=self.finish_example,
                )
            )
            for split, counts in manifest.splits.items()
            if counts[OK]
        }


__all__ = ["PublishedBuilder", "PublishedConfig", "configs"]
