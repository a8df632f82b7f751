"""Configs without the folders and machines of those who made them."""

import copy
import pathlib
from collections.abc import Mapping
from typing import Any

_PLACES = (("data", "data_dir"), ("data", "services"), ("trainer", "tpu"))


def without_places(values: Mapping[str, Any]) -> dict[str, Any]:
    """Nested dicts of a config without what means nothing, or too much, to others.

    Folders of data, decoding services and accelerators are left out; of the runs that
    weights came from, the name of the folder stays.
    """
    kept = copy.deepcopy(dict(values))
    for section, key in _PLACES:
        if isinstance(kept.get(section), dict):
            kept[section].pop(key, None)
    text = (kept.get("model") or {}).get("text")
    if isinstance(text, dict):
        for key in ("preset", "vocabulary"):
            if isinstance(text.get(key), str):
                text[key] = _name_of(text[key])
    source = kept.get("initialize_from")
    if isinstance(source, str):
        kept["initialize_from"] = _name_of(source)
    elif isinstance(source, list):
        kept["initialize_from"] = [
            {**x, "from": _name_of(str(x.get("from")))}
            if isinstance(x, Mapping)
            else _name_of(str(x))
            for x in source
        ]
    if isinstance(sources := kept.get("teacher_from"), list):
        kept["teacher_from"] = [_name_of(str(source)) for source in sources]
    return kept


def _name_of(address: str) -> str:
    return address if "://" in address else pathlib.PurePath(address).name
