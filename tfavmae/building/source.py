"""What is known of a published data set without its media: a `Source`.

A data set's builder needs nothing more than this and its features. The audit and the
tests use it without TensorFlow.
"""

import abc
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from tfavmae.building.annotations import AnnotatedClip, Annotations
from tfavmae.building.file_templates import Template
from tfavmae.errors import UserError


class Source(abc.ABC):
    """Annotation files to clips, and the names their media may have.

    Args:
        selection: one of `SELECTIONS`; the first by default.
        **options: of this data set; see `OPTIONS`.

    Class attributes:
        NAME: of the data set.
        SELECTIONS: what can be built of it, name to description.
        OPTIONS: further options and their defaults.
        TEMPLATES: where media may lie, in this order.
        FIELDS: what templates may use.
        SPLITS: that the selections have, for error messages and pages.
        INSTRUCTIONS: which files belong into which folder.
    """

    NAME: ClassVar[str]
    SELECTIONS: ClassVar[dict[str, str]]
    OPTIONS: ClassVar[dict[str, object]] = {}
    TEMPLATES: ClassVar[tuple[Template, ...]]
    FIELDS: ClassVar[tuple[str, ...]] = ("id", "start", "end", "start_ms", "end_ms")
    INSTRUCTIONS: ClassVar[str]

    def __init__(self, selection: str | None = None, **options):
        self.selection = selection or next(iter(self.SELECTIONS))
        if self.selection not in self.SELECTIONS:
            raise UserError(
                f"{self.NAME} has no selection {selection!r}; there are: "
                f"{', '.join(self.SELECTIONS)}"
            )
        for name in options:
            if name not in self.OPTIONS:
                known = ", ".join(self.OPTIONS) or "none"
                raise UserError(f"{self.NAME} has no option {name!r}; it has: {known}")
        self.options = {**self.OPTIONS, **options}

    @property
    def full_name(self) -> str:
        return f"{self.NAME}/{self.selection}"

    @abc.abstractmethod
    def clips(self, annotations: Annotations, media: Path) -> Iterator[AnnotatedClip]:
        """All annotated clips of the selection, in a fixed order, one at a time.

        Args:
            annotations: where the annotation files are.
            media: the folder of media, for data sets whose files are their annotations.
        """

    def label_names(self, annotations: Annotations) -> dict[str, list[str]]:
        """The names of the classes of each label that has any, in their order."""
        return {}
