"""What can be chosen when a published data set is built."""

import dataclasses
from typing import ClassVar

from tfavmae.building.features import StoredClipsConfig
from tfavmae.building.manifest import FLAGS
from tfavmae.building.source import Source
from tfavmae.errors import UserError


@dataclasses.dataclass(eq=False, kw_only=True)
class PublishedConfig(StoredClipsConfig):
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

    Further ones are those of `StoredClipsConfig`.
    """

    WITHOUT_EFFECT: ClassVar[tuple[str, ...]] = (
        "annotations",
        "media",
        "manifest",
        "templates",
        "thorough",
    )

    name: str
    selection: str | None = None
    options: dict = dataclasses.field(default_factory=dict)
    annotations: str | None = None
    media: str | None = None
    manifest: str | None = None
    templates: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    thorough: bool = False

    def __post_init__(self):
        self.selection = self.selection or self.name
        unknown = [flag for flag in self.skip if flag not in FLAGS]
        if unknown:
            raise UserError(
                f"`skip` must be among {', '.join(FLAGS)}. Received: {unknown[0]!r}."
            )
        self.decode_options()  # complains about the rest


def configs(source: type[Source], **defaults) -> list[PublishedConfig]:
    """One configuration for each selection of a source."""
    return [
        PublishedConfig(name=name, description=description, **defaults)
        for name, description in source.SELECTIONS.items()
    ]
