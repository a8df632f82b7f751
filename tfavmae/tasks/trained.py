"""A trained model and the clips to ask it about, from data sets and media files."""

import contextlib
import dataclasses
import functools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfavmae.config.experiment import ExperimentConfig
from tfavmae.data.pipeline import ClipSplit, naming_damage, open_split
from tfavmae.data.splits import open_info
from tfavmae.errors import UserError, shown
from tfavmae.media.decode import DecodeOptions
from tfavmae.tasks import classification, embedding, forward, media, text, windows
from tfavmae.tasks.forward import MODALITIES
from tfavmae.training import factory, runs
from tfavmae_datasets.vggsound.source import stat_order

Path = str | os.PathLike

# Of published classifiers, whose files have no names.
_NAMES_IN_ORDER = {"vggsound/stat": stat_order}


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The answer of a classifier to a media file.

    Attributes:
        file: name of the file.
        probabilities: by class, highest first. They are the means over the windows,
            and sum to 1 unless a clip may have several classes.
        num_windows: windows of the model's clip length that the file was cut into and
            that have the modalities that the model reads.
    """

    file: str
    probabilities: dict[str, float]
    num_windows: int


@dataclasses.dataclass(frozen=True)
class Trained:
    """A run that was loaded, and the recipe that names the clips; see `load`.

    Args:
        run: the run; its `model` has its weights.
        config: of the run, or a recipe that names other clips.

    Example:

    >>> run = tfavmae.load("runs/finetune")
    >>> run.classify("dog.mp4").probabilities
    {'dog': 0.93, 'cat': 0.07}
    """

    run: runs.Run
    config: ExperimentConfig

    # --- Media files ---

    def embed(self, file: Path) -> dict[str, np.ndarray]:
        """Embeds a media file; the embeddings of its windows are averaged.

        Args:
            file: a video, an audio file or a still picture.

        Returns:
            `audio_embedding` and `video_embedding`, float32 `(hidden_dim,)`, of the
            modalities that both the file and the model have.

        Raises:
            UserError: the file cannot be decoded, or has nothing that the model reads.
        """
        # Decoded window by window, as the clips of a data set are.
        with self.open_files([file]) as clips:
            vectors = self.embed_split(clips.split)
        found = {}
        for modality in MODALITIES:
            present, name = vectors[f"{modality}_present"], f"{modality}_embedding"
            if name in vectors and present.any():
                found[name] = vectors[name][present].mean(0)
        if not found:
            raise UserError(f"{file}: has nothing that this model reads")
        return found

    def embed_text(self, texts: Sequence[str]) -> np.ndarray:
        """Embeds texts, into the space of this model's other embeddings.

        Args:
            texts: sentences or words.

        Returns:
            float32 `(texts, projection_dim)`.

        Raises:
            UserError: the model has no text encoder, or a text is empty.
        """
        return text.embed(self.run.model, texts, str(self.run.workdir))

    def classify(self, file: Path) -> Prediction:
        """Classifies a media file with a fine-tuned model.

        Args:
            file: a video, an audio file or a still picture.

        Raises:
            UserError: the file cannot be decoded or lacks a modality that the model
                reads, or the model has no classes.
        """
        self.check_has_classes()
        with self.open_files([file]) as clips:
            predictions, refused = self.classify_clips(clips)
        if refused:
            raise UserError(": ".join(refused[0]))
        return predictions[0]

    @contextlib.contextmanager
    def open_files(
        self,
        paths: Iterable[Path],
        *,
        strict: bool = False,
        stored: Mapping[str, Any] | None = None,
    ) -> Iterator[media.MediaClips]:
        """Media files as clips, made as the clips of the training were.

        Args:
            paths: of media files and folders.
            strict: whether a file that cannot be decoded is an error.
            stored: fields of `DecodeOptions` that differ from the training's, for
                clips that are to be shown and not to be asked about.

        Yields:
            The clips, which exist as long as the block.

        Raises:
            UserError: there is no such file, or nothing can be decoded.
        """
        options = dataclasses.replace(self.stored_as, **(stored or {}))
        files = media.find_files(paths)
        seconds = self.config.data.clip_seconds
        with media.clips_of_files(files, seconds, options, strict=strict) as clips:
            yield clips

    @property
    def stored_as(self) -> DecodeOptions:
        """The form in which media files are decoded, that of the training clips.

        Raises:
            UserError: the run's folder is damaged.
        """
        # Of a training clip, the shortest is a matter of the data set; an answer to a
        # short file is better than none.
        stored = {**self.run.stored_as, "min_seconds": 0.0}
        try:
            return DecodeOptions(**stored)
        except TypeError as error:
            raise UserError(
                f"{self.run.workdir}: is damaged: its clips are stored as "
                f"{shown(self.run.stored_as)}."
            ) from error

    @functools.cached_property
    def clip_maker(self) -> windows.ClipMaker:
        """How the model takes its clips, of both modalities whatever it uses."""
        spec = factory.clip_spec(self.config.data, self.config.model, train=False)
        spec = dataclasses.replace(spec, labels=(), modalities=MODALITIES)
        return windows.ClipMaker(spec, self.stored_as)

    def cutting(
        self, window_seconds: float | None = None, stride_seconds: float | None = None
    ) -> windows.Cutting:
        """How files are cut into windows for this model.

        Args:
            window_seconds: by default the length of its clips, which is the longest.
            stride_seconds: by default the length of a window.

        Raises:
            UserError: a window is longer than the model's clips.
        """
        longest = self.config.data.clip_seconds
        window_seconds = window_seconds or longest
        if window_seconds > longest:
            raise UserError(
                f"{self.run.workdir}: its model takes clips of {longest:g} s; received "
                f"windows of {window_seconds:g} s. Choose at most {longest:g}s."
            )
        return windows.Cutting(window_seconds, stride_seconds or window_seconds)

    def embed_files(
        self,
        files: Iterable[media.MediaFile],
        cutting: windows.Cutting,
        progress: Callable[[float], None] | None = None,
    ) -> Iterator[windows.FileVectors]:
        """Embeds media files window by window; see `windows.embed_files`.

        Args:
            files: from `media.find_files`.
            cutting: from `cutting`.
            progress: is told how many files are done.
        """
        return windows.embed_files(
            self.run.model,
            self.clip_maker,
            files,
            cutting,
            batch_size=self.config.data.batch_size,
            step=self._embedding_step,
            progress=progress,
        )

    @functools.cached_property
    def _embedding_step(self) -> Any:
        """Traced once, however many files are asked about."""
        return forward.step_of(self.run.model, windows.OUTPUTS)

    def classify_clips(
        self, clips: media.MediaClips
    ) -> tuple[list[Prediction], list[tuple[str, str]]]:
        """Classifies every file of `open_files`.

        Returns:
            `(predictions, refused)` in the order of the files; the second has the name
            of each file that lacks a modality, and the reason.
        """
        model, labels = self.run.model, self.check_has_classes()
        if not isinstance(labels.num_classes, int) or labels.num_segments:
            raise UserError(
                f"{self.run.workdir}: files get one class each; this model learned "
                f"{self.config.data.label}. Measure it with `tfavmae evaluate`."
            )
        names = [f"class {i}" for i in range(labels.num_classes)]
        if isinstance(labels.names, list):
            names = labels.names
        with naming_damage():
            answers, present = classification.predict(model, self.batches(clips.split))
        usable = np.all([present[m] for m in model.modalities], axis=0)
        predictions, refused = [], []
        for index, file in enumerate(clips.files):
            windows = clips.file_of_clip == index
            if not windows.any():
                continue  # could not be decoded: in `clips.bad_files`
            if not (windows & usable).any():
                absent = [m for m in model.modalities if not present[m][windows].any()]
                lacks = " and ".join(absent) or "at no time both audio and video"
                refused.append((file, f"has no {lacks}, which this model needs"))
                continue
            means = answers[windows & usable].mean(0)
            order = np.argsort(-means, kind="stable")
            found = {names[i]: float(means[i]) for i in order}
            predictions.append(Prediction(file, found, int((windows & usable).sum())))
        return predictions, refused

    # --- Data sets ---

    def open_split(self, name: str | None = None) -> ClipSplit:
        """The split called `name`, by default the recipe's validation split."""
        data = self.config.data
        name = name or data.validation_split or data.train_split
        return open_split(data.dataset, name, data.data_dir)

    def open_all(self) -> ClipSplit:
        """All splits of the data set as one."""
        data = self.config.data
        return self.open_split("+".join(open_info(data.dataset, data.data_dir).splits))

    def batches(
        self, split: ClipSplit, labels: Sequence[str] = (), **options: Any
    ) -> tf.data.Dataset:
        """Evaluation batches of `split`, of both modalities whatever the model uses.

        Args:
            split: clips.
            labels: names of the labels that the batches hold.
            **options: of `ClipSplit.evaluation_batches`.
        """
        spec = factory.clip_spec(self.config.data, self.config.model, train=False)
        spec = dataclasses.replace(spec, labels=tuple(labels), modalities=MODALITIES)
        return split.evaluation_batches(spec, self.config.data.batch_size, **options)

    def noise_batch(self, num_clips: int = 2) -> dict[str, np.ndarray]:
        """An evaluation batch of noise, for a model whose clips are not at hand.

        Args:
            num_clips: of the batch.
        """
        spec = factory.clip_spec(self.config.data, self.config.model, train=False)
        draw = np.random.default_rng(0)
        audio = (num_clips, spec.num_samples)
        video = (num_clips, spec.num_frames, *spec.frame_size, 3)
        ones = np.ones(num_clips, "float32")
        return {
            "audio": draw.integers(-8000, 8000, audio, "int16"),
            "audio_samples": np.full(num_clips, audio[1], "int32"),
            "audio_present": ones,
            "video": draw.integers(0, 256, video, "uint8"),
            "video_present": ones,
            "sample_weight": ones,
            "example_index": np.arange(num_clips, dtype="int32"),
        }

    def embed_split(
        self,
        split: ClipSplit,
        labels: Sequence[str] = (),
        indices: Any = None,
        num_views: int = 1,
    ) -> dict[str, np.ndarray]:
        """Embeddings as of `tasks.embedding.embed`.

        Args:
            split: clips.
            labels: names of labels to return as well.
            indices: rows of the split; all by default.
            num_views: frames and windows of a clip whose embeddings are averaged.
        """
        batches = self.batches(split, labels, indices=indices, num_views=num_views)
        with naming_damage():
            return embedding.embed(self.run.model, batches, labels=labels)

    def check_has_classes(self) -> factory.Labels:
        """What the classifier was trained to tell apart.

        Raises:
            UserError: the model is no classifier.
        """
        if self.run.labels is None:
            raise UserError(
                f"{self.run.workdir} holds a model without classes, from `tfavmae "
                "pretrain`; fine-tune it with `tfavmae finetune`, or search with "
                "`tfavmae retrieve`"
            )
        return self.run.labels


def open_run(address: Path, overrides: Sequence[str] = ()) -> runs.Run:
    """`runs.load`, with the names of classes that a data set of ours has in its order.

    Args:
        address, overrides: as of `runs.load`.
    """
    run = runs.load(address, overrides=overrides)
    names = _NAMES_IN_ORDER.get(run.config.data.dataset)
    if names and run.labels is not None and run.labels.names is None:
        labels = dataclasses.replace(run.labels, names=list(names()))
        run = dataclasses.replace(run, labels=labels)
    return run


def load(address: Path, overrides: Sequence[str] = ()) -> Trained:
    """Loads a run, a preset or a file of weights, to ask its model about media files.

    Args:
        address: folder of a run of `tfavmae pretrain` or `tfavmae finetune`; or a
            preset: a folder of `save_preset`, `hf://USER/REPO` or `kaggle://...`; or a
            published file of weights, see `tfavmae weights list`.
        overrides: changes of the config, `"section.key=value"`; of a file also what it
            does not say of its model.

    Raises:
        UserError: there is none of them, or its weights cannot be read.
    """
    address = os.path.expanduser(address)
    run = open_run(address, overrides)
    config = runs.read_config(address, overrides) if overrides else run.config
    return Trained(run, config)
