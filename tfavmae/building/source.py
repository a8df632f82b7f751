"""Description of a published data set without its media: a `Source`.

The builder of a data set adds only the features of its labels. The audit and the tests
use a source without TensorFlow.
"""

import abc
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from tfavmae.building.annotations import AnnotatedClip, Annotations
from tfavmae.building.file_templates import Template
from tfavmae.errors import UserError, did_you_mean


class Source(abc.ABC):
    """Reads annotation files as clips, and knows the names that their media may have.

    Args:
        selection: one of `SELECTIONS`; the first by default.
        **options: options of this data set; see `OPTIONS`.

    Class attributes:
        NAME: name of the data set.
        SELECTIONS: the parts or forms that can be built, name to description.
        OPTIONS: further options and their defaults.
        CLASSES: names of the classes of each label that are known without annotations.
        TEMPLATES: file names of the media, tried in this order.
        FIELDS: fields of a clip that templates may use.
        INSTRUCTIONS: which files belong into which folder.

    Raises:
        UserError: there is no such selection or option.
    """

    NAME: ClassVar[str]
    SELECTIONS: ClassVar[dict[str, str]]
    OPTIONS: ClassVar[dict[str, object]] = {}
    CLASSES: ClassVar[Mapping[str, Sequence[str]]] = {}
    TEMPLATES: ClassVar[tuple[Template, ...]]
    FIELDS: ClassVar[tuple[str, ...]] = ("id", "start", "end", "start_ms", "end_ms")
    INSTRUCTIONS: ClassVar[str]

    def __init__(self, selection: str | None = None, **options: Any) -> None:
        self.selection = selection or next(iter(self.SELECTIONS))
        if self.selection not in self.SELECTIONS:
            raise UserError(
                f"{self.NAME} has no selection {selection!r}; "
                f"{did_you_mean(selection, self.SELECTIONS)}"
            )
        for name in options:
            if name not in self.OPTIONS:
                raise UserError(
                    f"{self.NAME} has no option {name!r}; "
                    f"{did_you_mean(name, self.OPTIONS)}"
                )
        self.options: dict[str, Any] = {**self.OPTIONS, **options}

    @property
    def full_name(self) -> str:
        """Name of the data set and the selection, as TFDS writes them."""
        return f"{self.NAME}/{self.selection}"

    @abc.abstractmethod
    def clips(self, annotations: Annotations, media: Path) -> Iterator[AnnotatedClip]:
        """All annotated clips of the selection, in a fixed order, one at a time.

        Args:
            annotations: the folder of annotation files.
            media: the folder of media, for data sets whose files are their annotations.
        """

    def label_names(self, annotations: Annotations) -> dict[str, list[str]]:
        """Names of the classes, in their order, of each label that has classes."""
        return {}
