"""What can be chosen when a published data set is built."""

import dataclasses
import hashlib
import json

import tensorflow_datasets as tfds

from tfavmae.data.manifest import FLAGS, Manifest
from tfavmae.data.media import DecodeOptions
from tfavmae.data.source import Source
from tfavmae.errors import UserError

# These decide how the work is done or where things are, not what comes out.
_WITHOUT_EFFECT = (
    *("annotations", "media", "manifest", "templates", "thorough"),
    *("num_workers", "strict", "time_limit_seconds", "memory_limit_bytes"),
)
_OF_TFDS = {field.name for field in dataclasses.fields(tfds.core.BuilderConfig)}


@dataclasses.dataclass(eq=False, kw_only=True)
class PublishedConfig(tfds.core.BuilderConfig):
    """Options of the builders of published data sets.

    Args:
        name: below `data_dir/<data set>/`.
        selection: of the `Source`; `name` by default.
        options: of the `Source`.
        annotations: folder of annotation files; by default `annotations` in TFDS's
            manual directory.
        media: folder of media; by default `media` in TFDS's manual directory.
        manifest: folder of an audit to start from, instead of these two.
        templates: file names to look for before the source's own.
        skip: flags of the manifest (`manifest.FLAGS`) whose clips are left out.
        thorough: decode each clip in the audit that a build without manifest begins
            with; needed for `skip` of silent and still ones.
        min_seconds: shorter clips are left out.
        frame_rate, shorter_side, jpeg_quality, channels: as in `media.DecodeOptions`.
        num_workers: processes; None for one per core.
        strict: make the first clip that cannot be stored an error.
        time_limit_seconds, memory_limit_bytes: for the decoding of one clip.
    """

    name: str
    selection: str | None = None
    options: dict = dataclasses.field(default_factory=dict)
    annotations: str | None = None
    media: str | None = None
    manifest: str | None = None
    templates: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    thorough: bool = False
    min_seconds: float = 0.5
    frame_rate: float = 8.0
    shorter_side: int = 256
    jpeg_quality: int = 90
    channels: str = "first"
    num_workers: int | None = None
    strict: bool = False
    time_limit_seconds: float = 120.0
    memory_limit_bytes: int = 4 * 2**30

    def __post_init__(self):
        self.selection = self.selection or self.name
        unknown = [flag for flag in self.skip if flag not in FLAGS]
        if unknown:
            raise UserError(
                f"`skip` must be among {', '.join(FLAGS)}. Received: {unknown[0]!r}."
            )
        self.decode_options()  # complains about the rest

    def decode_options(self) -> DecodeOptions:
        """How the clips are stored."""
        return DecodeOptions(
            frame_rate=self.frame_rate,
            shorter_side=self.shorter_side,
            jpeg_quality=self.jpeg_quality,
            channels=self.channels,
            min_seconds=self.min_seconds,
        )

    def chosen(self) -> dict:
        """The options that decide, with the manifest, what the data set holds."""
        return {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name not in _OF_TFDS and field.name not in _WITHOUT_EFFECT
        }

    def fingerprint(self, manifest: Manifest) -> str:
        """Hash of all that decides what the data set holds."""
        text = json.dumps([self.chosen(), manifest.fingerprint], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def configs(source: type[Source], **defaults) -> list[PublishedConfig]:
    """One configuration for each selection of a source."""
    return [
        PublishedConfig(name=name, description=description, **defaults)
        for name, description in source.SELECTIONS.items()
    ]
