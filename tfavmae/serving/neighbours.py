"""The places in an index that are nearest to a file that a server was asked about."""

from typing import Any

import numpy as np

from tfavmae.serving.versions import Version
from tfavmae.tasks import search, windows
from tfavmae.tasks.forward import MODALITIES


class Neighbours:
    """Finds them.

    Args:
        address: of an index that `tfavmae index` made.
        top: how many places to name.

    Raises:
        UserError: there is no index, or it is damaged.
    """

    def __init__(self, address: str, top: int = 5) -> None:
        self._store, self._top = search.open_index(address), top

    @property
    def model(self) -> str:
        """The run whose vectors the index holds."""
        return self._store.facts["model"]

    def knows(self, version: Version) -> bool:
        """Whether the index holds vectors of the model that a version was made of."""
        return version.fingerprint == self._store.facts["fingerprint"]

    def of(self, outputs: dict[str, np.ndarray]) -> list[dict[str, Any]]:
        """The nearest places, best first.

        Args:
            outputs: of a file: `audio_embedding`, `video_embedding` `(hidden_dim,)`, or
                one of them.

        Raises:
            UserError: the index is damaged, or has nothing to compare with.
        """
        vectors = {
            m: outputs[f"{m}_embedding"]
            for m in MODALITIES
            if f"{m}_embedding" in outputs
        }
        fused = windows.fuse([vector[None] for vector in vectors.values()])
        if fused is not None:
            vectors[windows.FUSED] = fused[0]
        self._store.refresh()
        counts = dict.fromkeys(vectors, 1)
        query = search.Query("the file", vectors, counts)
        hits, _, _ = search.find(self._store, query, top=self._top)
        return [
            {
                "file": hit.file,
                "start_seconds": round(hit.start_seconds, 3),
                "end_seconds": round(hit.end_seconds, 3),
                "similarity": round(hit.similarity, 4),
                "place": search.place_of(hit),
            }
            for hit in hits
        ]
