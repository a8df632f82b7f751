"""ESC-50 (Piczak, 2015): 50 classes of environmental sounds in 5 folds."""

from collections.abc import Iterator
from pathlib import Path

from tfavmae.building.annotations import (
    AnnotatedClip,
    Annotations,
    BadRow,
    TableRow,
    read_table,
    to_clips,
)
from tfavmae.building.file_templates import Template
from tfavmae.building.source import Source
from tfavmae.errors import UserError

_COLUMNS = ("filename", "fold", "target", "category", "esc10", "src_file", "take")
_FOLDS = ("1", "2", "3", "4", "5")


class ESC50(Source):
    """2,000 recordings of 5 s; report the mean over the five folds."""

    NAME = "esc50"
    SELECTIONS = {
        "default": "The five official folds, as splits fold_1 to fold_5.",
        "esc10": "The ten classes of ESC-10 alone, in the same folds.",
    }
    FIELDS = ("file", "id")
    TEMPLATES = tuple(
        Template(f"{folder}{{file}}", "clip")
        for folder in ("audio/", "", "ESC-50-master/audio/")
    )
    INSTRUCTIONS = (
        "Unpack github.com/karolpiczak/ESC-50/archive/master.zip: annotations is its "
        "folder meta (with esc50.csv), media its folder audio."
    )

    def _table(self, annotations: Annotations) -> tuple[Path, Iterator[TableRow]]:
        path = annotations.file(
            "esc50.csv",
            "meta/esc50.csv",
            "ESC-50-master/meta/esc50.csv",
            hint=self.INSTRUCTIONS,
        )
        return path, read_table(path, _COLUMNS)

    def label_names(self, annotations: Annotations) -> dict[str, list[str]]:
        path, rows = self._table(annotations)
        names: dict[int, str] = {}
        for row in rows:
            if not row.problem and self._is_wanted(row):
                name = names.setdefault(int(row["target"]), row["category"])
                if name != row["category"]:
                    raise UserError(
                        f"{path}: {row.where} calls class {row['target']} "
                        f"{row['category']!r}, an earlier line {name!r}."
                    )
        return {"label": [names[number] for number in sorted(names)]}

    def clips(self, annotations: Annotations, media: Path) -> Iterator[AnnotatedClip]:
        _, rows = self._table(annotations)
        # A row that cannot be read does not say its fold.
        return to_clips(rows, self._clip, "fold_1")

    def _is_wanted(self, row: TableRow) -> bool:
        return self.selection != "esc10" or row["esc10"].lower() == "true"

    def _clip(self, row: TableRow) -> AnnotatedClip | None:
        if not self._is_wanted(row):
            return None
        if row["fold"] not in _FOLDS:
            raise BadRow(f"there is no fold {row['fold']!r}")
        file = row["filename"]
        fields = {"file": file, "id": file.rpartition(".")[0]}
        labels = {"label": row["category"], "src_file": row["src_file"]}
        split = f"fold_{row['fold']}"
        return AnnotatedClip(fields["id"], split, fields, labels=labels)
