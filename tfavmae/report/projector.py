"""Embeddings as a page of TensorBoard's projector."""

import os
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from tfavmae import files

# TensorBoard looks for this name in its --logdir, and below it beside event files.
_CONFIG = "projector_config.pbtxt"


def write(
    directory: str | os.PathLike,
    ids: Sequence[str],
    vectors: Mapping[str, np.ndarray],
    labels: Sequence[str] | None = None,
) -> pathlib.Path:
    """Writes embeddings for `tensorboard --logdir DIRECTORY`, tab Projector.

    Audio and video of a clip are two points of one cloud, because a contrastive model
    puts them into one space; they can be told apart by colour (`modality`).

    Args:
        directory: gets `embeddings.tsv`, `metadata.tsv` and `projector_config.pbtxt`.
        ids: of the clips.
        vectors: from `tasks.embedding.embed`; a missing modality gives no point.
        labels: class of each clip, in words.

    Returns:
        The directory.

    Raises:
        UserError: the disk is full or the directory cannot be written.
    """
    columns = ["id", "modality", *(["label"] if labels is not None else [])]
    metadata, points = [columns], []
    for modality in ("audio", "video"):
        if f"{modality}_embedding" not in vectors:
            continue
        for row in np.flatnonzero(vectors[f"{modality}_present"]):
            label = [labels[row]] if labels is not None else []
            metadata.append([ids[row], modality, *label])
            points.append([f"{x:.6g}" for x in vectors[f"{modality}_embedding"][row]])
    config = (
        'embeddings {\n  tensor_name: "embeddings"\n  tensor_path: "embeddings.tsv"\n'
        '  metadata_path: "metadata.tsv"\n}\n'
    )
    directory = pathlib.Path(directory)
    files.write_atomically(directory / "embeddings.tsv", _tsv(points))
    files.write_atomically(directory / "metadata.tsv", _tsv(metadata))
    # Last: TensorBoard shows the others from then on.
    files.write_atomically(directory / _CONFIG, config)
    return directory


def _tsv(rows: Sequence[Sequence[str]]) -> bytes:
    """Tab-separated values; in a cell, any white space becomes one space."""
    lines = ("\t".join(" ".join(cell.split()) for cell in row) for row in rows)
    # File names need not be valid UTF-8.
    return "".join(f"{line}\n" for line in lines).encode("utf-8", "backslashreplace")
