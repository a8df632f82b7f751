"""What all builders of published data sets have in common.

    class Builder(published.PublishedBuilder):
        SOURCE = VGGSound
        VERSION = tfds.core.Version("1.0.0")
        BUILDER_CONFIGS = published.configs(VGGSound)

        def label_features(self):
            return {"label": tfds.features.ClassLabel()}

A build has two steps: an audit makes a manifest of annotations and media, then those
clips of the manifest that are in order are decoded and stored. Whoever has a manifest
begins with the second step; the disk is then never searched.
"""

import abc
import collections
import dataclasses
import functools
import itertools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import tensorflow_datasets as tfds

from tfavmae.building import audit as audit_lib
from tfavmae.building import decoding, features, inspection
from tfavmae.building.clip_cache import PreparedClips, remove_leftovers
from tfavmae.building.manifest import OK, Manifest
from tfavmae.building.published_config import PublishedConfig, configs
from tfavmae.building.source import Source
from tfavmae.building.worker_pool import WorkerPool
from tfavmae.errors import UserError
from tfavmae.files import exclusive


class PublishedBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Builds a published data set; a subclass names its source and its labels.

    Class attributes:
        SOURCE: the `Source`.
    """

    SOURCE: ClassVar[type[Source]]
    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "Initial release."}
    builder_config_cls = PublishedConfig

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.summary = decoding.Summary()
        self._pool: WorkerPool | None = None
        self._decoded: list[decoding.DecodedRows] = []
        self._is_on_beam = False

    def __init_subclass__(cls, **kwargs):
        # TFDS shows these instructions where files are missing.
        if hasattr(cls, "SOURCE"):
            cls.MANUAL_DOWNLOAD_INSTRUCTIONS = cls.SOURCE.INSTRUCTIONS
        super().__init_subclass__(**kwargs)

    def _create_builder_config(self, builder_config, *args, **kwargs):
        # TFDS refuses other configs of a published name, but where the media are is
        # everyone's own matter.
        if isinstance(builder_config, PublishedConfig):
            return builder_config
        return super()._create_builder_config(builder_config, *args, **kwargs)

    @abc.abstractmethod
    def label_features(self) -> dict:
        """TFDS features of the labels; names of classes follow from the source."""

    @staticmethod
    def finish_example(example: dict) -> dict:
        """Hook: the last change to an example that a protocol asks for."""
        return example

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            features=features.features(self.label_features()),
            metadata=tfds.core.MetadataDict(),
        )

    @functools.cached_property
    def source(self) -> Source:
        config = self.builder_config
        return self.SOURCE(config.selection, **config.options)

    # --- Where things are ---

    @property
    def work_folder(self) -> Path:
        """Where manifest, report and decoded clips lie; TFDS may delete its own."""
        path = os.fspath(self.data_path.parent)
        if "://" in path:
            return Path("~/.cache/tfavmae").expanduser() / path.partition("://")[2]
        return Path(path)

    @property
    def bad_files_path(self) -> str:
        """The report of clips left out in decoding; the manifest has the others."""
        return os.fspath(self.work_folder / "bad_files.csv")

    def _folder(self, given, name, dl_manager) -> Path:
        if given:
            return Path(given).expanduser()
        manual = Path(dl_manager.manual_dir)
        return manual / name if (manual / name).is_dir() else manual

    # --- Building ---

    def download_and_prepare(self, **kwargs):
        """Builds the data set, or goes on with a build that was interrupted.

        Raises:
            UserError: if another build is at work here, or the data set that is there
                was built of another manifest or with other options.
        """
        options = kwargs.get("download_config")
        self._is_on_beam = bool(
            options and (options.beam_runner or options.beam_options)
        )
        with exclusive(self.work_folder / "build.lock"):
            if self.data_path.exists() and not _is_overwriting(kwargs):
                self._check_same()
            try:
                super().download_and_prepare(**kwargs)
            finally:
                self.close()
            remove_leftovers(self.work_folder)

    def close(self):
        """Ends the decoding, if there is any."""
        for decoded in self._decoded:
            decoded.close()
        if self._pool:
            self._pool.close()

    def _check_same(self):
        there = dict(self.info.metadata or {})
        if "manifest_fingerprint" not in there:
            raise UserError(
                f"{self.data_path}: was built by an older version, which kept no "
                "manifest. Build it again with --overwrite, or in another data_dir."
            )
        config = self.builder_config
        # As JSON, as which a data set that was loaded has them.
        options, wanted = (
            json.loads(json.dumps(chosen))
            for chosen in (there["options"], config.chosen())
        )
        differing = [name for name in wanted if options.get(name) != wanted[name]]
        manifest = Manifest(config.manifest).fingerprint if config.manifest else None
        if manifest not in (None, there["manifest_fingerprint"]):
            differing.append("manifest")
        if differing:
            raise UserError(
                f"{self.data_path}: was built with other {', '.join(differing)}. Build "
                "it again with --overwrite, or in another data_dir."
            )

    def _split_generators(self, dl_manager):
        config = self.builder_config
        self.close()
        self.summary, self._decoded = decoding.Summary(), []
        self._pool = WorkerPool(
            config.num_workers,
            time_limit_seconds=config.time_limit_seconds,
            memory_limit_bytes=config.memory_limit_bytes,
        )
        manifest = self._manifest(dl_manager)
        self._set_names(manifest.facts["label_names"])
        media_root = config.media if config.manifest else None
        self._root = Path(media_root or manifest.media).expanduser()
        self._bad_files = decoding.BadFiles(self.bad_files_path, strict=config.strict)
        self._fingerprint = config.fingerprint(manifest.fingerprint)
        if self._is_on_beam:
            return self._splits_on_beam(manifest)
        return self._open_splits(manifest)

    def _manifest(self, dl_manager) -> Manifest:
        """The given manifest, one that an interrupted build made, or a new one."""
        config = self.builder_config
        if config.manifest:
            return self._checked(Manifest(config.manifest))
        annotations = self._folder(config.annotations, "annotations", dl_manager)
        media_root = self._folder(config.media, "media", dl_manager)
        return audit_lib.audit(
            self.source,
            annotations,
            media_root,
            self.work_folder / "audit",
            templates=config.templates,
            thorough=config.thorough,
            min_seconds=config.min_seconds,
            num_workers=config.num_workers,
            time_limit_seconds=config.time_limit_seconds,
            memory_limit_bytes=config.memory_limit_bytes,
            # Of a build that was interrupted the manifest stays, as do its clips.
            reuse=any(self.work_folder.glob("prepared-*")),
        )

    def _checked(self, manifest) -> Manifest:
        facts = manifest.facts
        found = f"{facts['dataset']}/{facts['selection']}"
        if found != self.source.full_name:
            raise UserError(
                f"{manifest.folder}: is the manifest of {found}, not of "
                f"{self.source.full_name}."
            )
        skipped = {"silent", "still"} & set(self.builder_config.skip)
        if skipped and not facts["thorough"]:
            raise UserError(
                f"{manifest.folder}: is of a quick audit, which does not see clips "
                f"that are {' or '.join(sorted(skipped))}. Audit again without --quick."
            )
        return manifest

    def _set_names(self, label_names):
        for name, names in label_names.items():
            feature = self.info.features[name]
            feature = getattr(feature, "feature", feature)  # that of a sequence
            if feature.num_classes is None:
                feature.names = names

    def _open_splits(self, manifest) -> dict:
        """Splits of which each is known to have an example: TFDS refuses empty ones."""
        opened = {}
        for split in manifest.splits:
            examples = self._decode(manifest, split)
            first = next(examples, None)
            if first is not None:
                opened[split] = itertools.chain([first], examples)
        if not opened:
            raise UserError(
                f"{self._root}: of {manifest.facts['num_rows']} annotated clips none "
                f"could be stored. {manifest.folder}/index.html and "
                f"{self.bad_files_path} say why."
            )
        self._unfinished = len(opened)
        finish = functools.partial(self._finish, manifest)
        return {
            split: self._generate_examples(examples, finish)
            for split, examples in opened.items()
        }

    def _decode(self, manifest, split) -> Iterator[tuple[str, dict]]:
        config = self.builder_config
        limits = f"{config.time_limit_seconds:g}-{config.memory_limit_bytes}"
        folder = self.work_folder / f"prepared-{self._fingerprint}-{limits}"
        decoded = decoding.decode_rows(
            self._rows(manifest, split),
            config.decode_options(),
            bad_files=self._bad_files,
            pool=self._pool,
            summary=self.summary,
            prepared=PreparedClips(folder / f"{split}.clips"),
        )
        self._decoded.append(decoded)
        return decoded

    def _rows(self, manifest, split) -> Iterator[decoding.Row]:
        skip = frozenset(self.builder_config.skip)
        for row in manifest.rows(split):
            if row.status != OK or not skip.isdisjoint(row.flags):
                continue
            path = self._root / row.path
            reason = inspection.change_since(row, path)
            if reason:
                self.summary.num_bad += 1
                self._bad_files.add(path, reason)
                continue
            start = row.start_seconds or 0.0
            yield decoding.Row(
                row.id, os.fspath(path), start, row.end_seconds, row.labels
            )

    def _splits_on_beam(self, manifest) -> dict:
        """The same on Beam, which counts and reports for itself."""
        try:
            from tfavmae.building import beam
        except ImportError as error:
            raise UserError(
                "Beam is not installed: pip install 'tfavmae[beam]'."
            ) from error
        config = self.builder_config
        collections.deque(manifest.rows(), maxlen=0)  # is it the one that was audited?
        self.info.metadata.update(self._facts(manifest))
        steps = {
            split: beam.Step(
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
            for split, counts in manifest.splits.items()
            if counts[OK]
        }
        return {split: beam.DecodedClips(step) for split, step in steps.items()}

    def _generate_examples(self, examples, finish):
        for key, example in examples:
            yield key, self.finish_example(example)
        self._unfinished -= 1
        if not self._unfinished:
            finish()

    def _finish(self, manifest):
        self.info.metadata.update(
            **self._facts(manifest), summary=dataclasses.asdict(self.summary)
        )

    def _facts(self, manifest) -> dict:
        facts = ("annotations", "splits", "num_rows", "thorough", "min_seconds")
        return {
            "manifest_fingerprint": manifest.fingerprint,
            "manifest": {name: manifest.facts[name] for name in facts},
            "options": self.builder_config.chosen(),
            "fingerprint": self._fingerprint,
        }


def _is_overwriting(kwargs) -> bool:
    config = kwargs.get("download_config")
    mode = config and config.download_mode
    return bool(mode) and mode != tfds.GenerateMode.REUSE_DATASET_IF_EXISTS


__all__ = ["PublishedBuilder", "PublishedConfig", "configs"]
