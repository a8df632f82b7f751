"""Any run or preset as a model of MTEB, for its tasks of audio, video and text.

Needs `mteb` (extra `mteb`, in an environment that need not be TensorFlow's alone):

>>> import mteb
>>> from tfavmae.tasks import mteb_model
>>> model = mteb_model.load("runs/pretrain")
>>> mteb.evaluate(model, mteb.get_tasks(["GreatestHitsA2VRetrieval"]))

Written for the encoder protocol of mteb 2.26: `encode` gets a PyTorch `DataLoader`,
whose batches are dicts of lists by modality.
"""

import dataclasses
import importlib.util
import itertools
import math
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tfavmae import extras
from tfavmae.errors import UserError

if TYPE_CHECKING:
    from tfavmae.tasks.trained import Trained

MODALITIES = ("audio", "video", "text")


def load(address: str | os.PathLike) -> "MTEBModel":
    """A run, a preset or a file of weights as a model of MTEB.

    Args:
        address: as of `tfavmae.load`.

    Raises:
        UserError: there is none of them, or `mteb` is not installed.
    """
    import_first()
    from tfavmae.tasks import trained

    return MTEBModel(trained.load(address))


def import_first() -> None:
    """Imports MTEB, and what crashes where TensorFlow was imported before it.

    These are PyTorch (2.14), and the Triton that its builds for CUDA import when MTEB
    first loads a part of theirs.

    Raises:
        UserError: `mteb` is not installed.
    """
    extras.load("torch", "mteb", "MTEB")
    if importlib.util.find_spec("triton"):
        importlib.import_module("triton")
    extras.load("mteb", "mteb", "MTEB")


@dataclasses.dataclass(frozen=True)
class _Item:
    """A row of a task: audio int16 `(samples,)` at 16 kHz, frames, text, or `None`."""

    audio: np.ndarray | None = None
    video: "Frames | None" = None
    text: str | None = None


class MTEBModel:
    """An encoder of MTEB; see `load`.

    Audio is cut into windows of the clip length that the model was trained on, and the
    embeddings of windows are averaged, as in `Trained.embed`; the frames of a video are
    those that lie in the windows. An item of several modalities is the mean of their
    embeddings, each of length 1.

    Args:
        run: the model.
    """

    def __init__(self, run: "Trained") -> None:
        self.run = run
        self.model = run.run.model
        self.modalities = [*self.model.modalities]
        if hasattr(self.model, "text_encoder"):
            self.modalities.append("text")

    @property
    def mteb_model_meta(self) -> Any:
        """MTEB's `ModelMeta`: what its result files say of the model."""
        from mteb.models.model_meta import ModelMeta

        name = pathlib.PurePath(str(self.run.run.workdir)).name
        return ModelMeta.create_empty(
            {
                "name": f"tfavmae/{name}",
                "revision": f"step_{self.run.run.step or 0}",
                "modalities": self.modalities,
                "embed_dim": self.model.embedding_dim,
                "n_parameters": self.model.count_params(),
                "similarity_fn_name": "cosine",
                "open_weights": True,
                "use_instructions": False,
            }
        )

    def encode(
        self,
        inputs: Iterable[Mapping[str, Any]],
        *,
        task_metadata: Any,
        hf_split: str,
        hf_subset: str,
        prompt_type: Any = None,
        **kwargs: Any,
    ) -> np.ndarray:
        """Embeddings of the items of a task, float32 `(items, dim)`, of length 1.

        Args:
            inputs: batches: dicts of `audio`, `video` and `text`, each a list; what a
                model does not read is left out.
            task_metadata, hf_split, hf_subset, prompt_type, **kwargs: of MTEB, which
                this model does not need.

        Raises:
            UserError: an item has nothing that the model reads.
        """
        items = [item for batch in inputs for item in self._items(batch)]
        found: list[list[np.ndarray]] = [[] for _ in items]
        for modality in self.modalities:
            rows = [i for i, x in enumerate(items) if getattr(x, modality) is not None]
            if rows:
                vectors = self._embed([items[i] for i in rows], modality)
                for i, vector in zip(rows, vectors, strict=True):
                    found[i].append(vector / max(np.linalg.norm(vector), 1e-12))
        empty = [i for i, x in enumerate(found) if not x]
        if empty:
            name = getattr(task_metadata, "name", "the task")
            raise UserError(
                f"{name}: item {empty[0]} of {hf_split} has nothing that "
                f"{self.run.run.workdir} reads: {', '.join(self.modalities)}"
            )
        means = np.stack([np.mean(x, axis=0) for x in found])
        lengths = np.linalg.norm(means, axis=1, keepdims=True)
        return (means / np.maximum(lengths, 1e-12)).astype("float32")

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Cosine similarities `(n, m)`."""
        from mteb.similarity_functions import cos_sim

        return cos_sim(embeddings1, embeddings2)

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Cosine similarities of pairs, `(n,)`."""
        from mteb.similarity_functions import pairwise_cos_sim

        return pairwise_cos_sim(embeddings1, embeddings2)

    def _items(self, batch: Mapping[str, Any]) -> Iterator[_Item]:
        columns = {m: batch[m] for m in self.modalities if m in batch}
        count = max((len(x) for x in batch.values()), default=0)
        seconds = self.run.config.data.clip_seconds
        for row in range(count):
            values = {m: x[row] for m, x in columns.items()}
            audio, video = values.get("audio"), values.get("video")
            yield _Item(
                audio=None if audio is None else _waveform(audio),
                video=None if video is None else Frames(video, seconds),
                text=values.get("text"),
            )

    def _embed(self, items: Sequence[_Item], modality: str) -> np.ndarray:
        if modality == "text":
            return self.run.embed_text([str(x.text) for x in items])
        from tfavmae.tasks import embedding

        batches = self._batches(items, modality)
        return embedding.embed(self.model, batches)[f"{modality}_embedding"]

    def _batches(
        self, items: Sequence[_Item], modality: str
    ) -> Iterator[dict[str, np.ndarray]]:
        """Evaluation batches of the windows of all items, of one modality alone."""
        from tfavmae.training import factory

        config = self.run.config
        spec = factory.clip_spec(config.data, config.model, train=False)
        size = config.data.batch_size
        rows: list[tuple[int, np.ndarray]] = []
        for index, item in enumerate(items):
            if modality == "audio":
                windows = _audio_windows(item.audio, spec.num_samples)
            else:
                windows = item.video.windows(spec) if item.video else []
            rows += [(index, window) for window in windows]
            while len(rows) >= size:
                yield _batch(rows[:size], modality, spec, size)
                rows = rows[size:]
        if rows:
            yield _batch(rows, modality, spec, size)


def _waveform(item: Any) -> np.ndarray:
    """int16 `(samples,)` at the stored rate, of an item of MTEB.

    That is a mapping, or a decoder that can be read like one, of `array`, float of
    `(samples,)` or `(channels, samples)`, and `sampling_rate`.
    """
    from tfavmae.data.splits import STORED_SAMPLE_RATE_HZ
    from tfavmae.media.waveform import resample

    samples = np.asarray(item["array"], "float32")
    if samples.ndim > 1:
        samples = samples.mean(0)
    rate = int(item["sampling_rate"])
    return resample(np.ascontiguousarray(samples), rate, STORED_SAMPLE_RATE_HZ)


def _audio_windows(audio: np.ndarray | None, length: int) -> list[np.ndarray]:
    if audio is None:
        return []
    starts = range(0, max(len(audio), 1), length)
    return [audio[start : start + length] for start in starts]


class Frames:
    """The frames of a video of MTEB.

    Args:
        video: a decoder of torchcodec, or an array or tensor `(frames, 3, height,
            width)`, uint8, of which nothing says how long they last: one window.
        clip_seconds: length of a window.
    """

    def __init__(self, video: Any, clip_seconds: float) -> None:
        self.video = video
        self.num_windows = 1
        facts = getattr(video, "metadata", None)
        if facts is not None and facts.duration_seconds:
            self.num_windows = math.ceil(facts.duration_seconds / clip_seconds - 1e-6)

    def windows(self, spec: Any) -> list[np.ndarray]:
        """uint8 `(num_frames, height, width, 3)` of each window, resized and cropped.

        Args:
            spec: a `ClipSpec`, of which frames are spread over the window.
        """
        total = len(self.video)
        edges = np.linspace(0, total, self.num_windows + 1)
        shares = (np.arange(spec.num_frames) + 0.5) / spec.num_frames
        found = []
        for first, end in itertools.pairwise(edges):
            places = first + shares * (end - first)
            found.append(self._cropped(places.astype(int).tolist(), spec))
        return found

    def _cropped(self, places: list[int], spec: Any) -> np.ndarray:
        from tfavmae.data import resizing

        decoder = getattr(self.video, "get_frames_at", None)
        if decoder is not None:
            frames = np.asarray(decoder(indices=places).data)
        else:
            frames = np.stack([np.asarray(self.video[i], "uint8") for i in places])
        frames = frames.transpose(0, 2, 3, 1)
        _, height, width, _ = frames.shape
        box, scale, shift = resizing.centre(
            height, width, spec.frame_size, spec.shorter_side
        )
        top, left, rows, columns = np.asarray(box)
        part = frames[:, top : top + rows, left : left + columns]
        size, how = spec.frame_size, spec.interpolation
        return np.asarray(resizing.resample(part, scale, shift, size, how))


def _batch(
    rows: Sequence[tuple[int, np.ndarray]], modality: str, spec: Any, size: int
) -> dict[str, np.ndarray]:
    """A batch of `size` windows of one modality; the other one is absent."""
    batch = {
        "audio": np.zeros((size, spec.num_samples), "int16"),
        "audio_samples": np.zeros(size, "int32"),
        "video": np.zeros((size, spec.num_frames, *spec.frame_size, 3), "uint8"),
        "audio_present": np.zeros(size, "float32"),
        "video_present": np.zeros(size, "float32"),
        "sample_weight": np.zeros(size, "float32"),
        "example_index": np.full(size, -1, "int32"),
    }
    for row, (index, values) in enumerate(rows):
        batch["example_index"][row] = index
        batch["sample_weight"][row] = batch[f"{modality}_present"][row] = 1
        if modality == "audio":
            batch["audio"][row, : len(values)] = values
            batch["audio_samples"][row] = len(values)
        else:
            batch["video"][row] = values
    return batch
