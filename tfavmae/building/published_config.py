"""Configurations of the builders of published data sets."""

import dataclasses
from typing import Any, ClassVar

from tfavmae.building.features import StoredClipsConfig
from tfavmae.building.manifest import FLAGS
from tfavmae.building.source import Source
from tfavmae.errors import UserError


@dataclasses.dataclass(eq=False, kw_only=True)
class PublishedConfig(StoredClipsConfig):
    """Options of the builders of published data sets, besides `StoredClipsConfig`'s.

    Args:
        name: folder of the data set below `data_dir/<data set>/`.
        selection: one of the source's `SELECTIONS`; `name` by default.
        options: options of the source.
        annotations: folder of annotation files; by default `annotations` in TFDS's
            manual directory.
        media: folder of media; by default `media` in TFDS's manual directory.
        manifest: folder of an audit to start from, instead of these two.
        templates: file names to look for before the source's own.
        skip: flags of the manifest (`manifest.FLAGS`) whose clips are left out.
        thorough: decode each clip in the audit with which a build without a manifest
            begins; needed to `skip` silent and still clips.
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
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    annotations: str | None = None
    media: str | None = None
    manifest: str | None = None
    templates: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    thorough: bool = False

    def __post_init__(self) -> None:
        self.selection = self.selection or self.name
        unknown = [flag for flag in self.skip if flag not in FLAGS]
        if unknown:
            raise UserError(
                f"`skip` must be among {', '.join(FLAGS)}; received {unknown[0]!r}."
            )
        self.decode_options()  # checks the options that it is made from


def configs(source: type[Source], **defaults: Any) -> list[PublishedConfig]:
    """One configuration for each selection of a source."""
    return [
        PublishedConfig(name=name, description=description, **defaults)
        for name, description in source.SELECTIONS.items()
    ]
