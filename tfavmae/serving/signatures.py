"""Signatures of a served model: what they take, and what they answer."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfavmae.serving import reconstruction
from tfavmae.serving.preprocessing import ClipForm
from tfavmae.serving.refusals import checked
from tfavmae.tasks import heat_maps
from tfavmae.tasks.forward import MODALITIES, Batch

ENCODED = "_encoded"  # ends the names of signatures that take files
# Of a request. On a CPU, TensorFlow ends the process where memory ends.
MAX_CLIPS = 1024
# Pairs of EPIC-Kitchens that `classify` names; there are 29,100 of them.
NUM_ACTIONS = 5
_ACTION = {"verb", "noun"}


@dataclasses.dataclass(frozen=True)
class Signature:
    """An endpoint.

    Attributes:
        name: without `ENCODED`.
        modalities: those that it takes.
        may_lack: whether a clip may lack one of them, as `audio_present` and
            `video_present` say.
        settings: numbers that it takes of each clip besides, with what the warm-up
            requests say: an integer or a real number by name.
    """

    name: str
    modalities: tuple[str, ...]
    may_lack: bool = False
    settings: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def specs(self, form: ClipForm) -> dict[str, tf.TensorSpec]:
        """The inputs that are arrays; see `ClipForm` for what they hold."""
        found = {}
        if "audio" in self.modalities:
            found["audio"] = tf.TensorSpec([None, None], tf.float32, "audio")
            found["audio_samples"] = tf.TensorSpec([None], tf.int32, "audio_samples")
        if "video" in self.modalities:
            shape = [None, None, *form.spec.frame_size, 3]
            found["video"] = tf.TensorSpec(shape, tf.uint8, "video")
        if self.may_lack:
            for name in (f"{m}_present" for m in self.modalities):
                found[name] = tf.TensorSpec([None], tf.float32, name)
        return found | self.setting_specs

    @property
    def setting_specs(self) -> dict[str, tf.TensorSpec]:
        """The settings as inputs `(batch,)`."""
        return {
            name: tf.TensorSpec([None], _setting_dtype(value), name)
            for name, value in self.settings.items()
        }

    def setting_inputs(self, num_clips: int) -> dict[str, np.ndarray]:
        """The settings of warm-up requests, the same for every clip."""
        return {
            name: np.full(num_clips, value, _setting_dtype(value).as_numpy_dtype)
            for name, value in self.settings.items()
        }

    def encoded_specs(self) -> dict[str, tf.TensorSpec]:
        """The inputs that are files: WAV, and JPEG or PNG."""
        ranks = {"audio": [None], "video": [None, None]}
        return {
            f"{m}_bytes": tf.TensorSpec(ranks[m], tf.string, f"{m}_bytes")
            for m in self.modalities
        } | self.setting_specs


def _setting_dtype(value: float) -> tf.DType:
    return tf.int32 if isinstance(value, int) else tf.float32


def signatures_of(
    model: keras.Model, inputs: Batch, with_decoder: bool = False
) -> list[Signature]:
    """The signatures that the model's outputs allow, the default one first.

    Args:
        model: a `MaskedAutoencoder` or `AudioVisualClassifier`.
        inputs: a batch of one clip or more.
        with_decoder: whether `reconstruct` is one of them, if the model can.
    """
    used = tuple(m for m in MODALITIES if m in model.modalities)
    run = lambda names: model({m: inputs[m] for m in names}, training=False)  # noqa: E731
    together, found = run(used), []
    if "logits" in together:
        name = "events" if getattr(model, "num_segments", 0) else "classify"
        found.append(Signature(name, used, may_lack=len(used) > 1))
    # Asked for one modality alone: some models embed only both together.
    alone = {m: run([m]) for m in used}
    embedded = [m for m in used if f"{m}_embedding" in alone[m]]
    if len(embedded) == 2:
        found.append(Signature("embed", used))
    found += [Signature(f"embed_{m}", (m,)) for m in embedded]
    rows = {m: len(inputs[m]) for m in used}
    has_maps = all(heat_maps.has_map(model, alone[m], m, rows[m]) for m in embedded)
    if len(embedded) == 2 and has_maps:
        found.append(Signature("similarity", used))
    if with_decoder and reconstruction.can_reconstruct(model):
        settings = {"seed": 0, **reconstruction.trained_ratios(model)}
        found.append(Signature("reconstruct", used, settings=settings))
    return found


def answer(
    model: keras.Model, signature: Signature, batch: Batch
) -> dict[str, tf.Tensor]:
    """The outputs of a signature, float32 but for flags.

    Args:
        model: see `signatures_of`.
        signature: one of `signatures_of`.
        batch: arrays or tensors as of the pipeline; what the signature does not take
            is ignored.
    """
    names = list(signature.modalities)
    names += [f"{m}_present" for m in signature.modalities if signature.may_lack]
    names += ["audio_samples"] if "audio" in signature.modalities else []
    names += signature.settings
    if signature.name == "reconstruct":
        asked = {k: batch[k] for k in names if k in batch}
        return reconstruction.reconstruct(model, asked)
    named = model({k: batch[k] for k in names if k in batch}, training=False)
    if "logits" in named and signature.name in ("classify", "events"):
        return _classes(model, named["logits"])
    if signature.name == "similarity":
        return heat_maps.similarity(model, named)
    return {
        f"{m}_embedding": _unit(named[f"{m}_embedding"]) for m in signature.modalities
    }


def _unit(x: Any) -> tf.Tensor:
    return tf.math.l2_normalize(tf.cast(x, "float32"), -1)


def _classes(model, logits):
    """Logits and probabilities; of several heads under their names."""
    activation = getattr(tf.nn, model.activation)
    if not isinstance(logits, dict):
        logits = tf.cast(logits, "float32")
        return {"logits": logits, "probabilities": activation(logits)}
    found = {}
    for head, values in logits.items():
        found[f"{head}_logits"] = tf.cast(values, "float32")
        found[f"{head}_probabilities"] = activation(found[f"{head}_logits"])
    if set(logits) == _ACTION:
        verb, noun = (found[f"{x}_probabilities"] for x in ("verb", "noun"))
        width = noun.shape[-1]
        pairs = tf.reshape(
            verb[:, :, None] * noun[:, None], [-1, verb.shape[-1] * width]
        )
        top = tf.math.top_k(pairs, min(NUM_ACTIONS, pairs.shape[-1]))
        found["action_probabilities"] = top.values
        found["action_verb"] = top.indices // width
        found["action_noun"] = top.indices % width
    return found


def example_inputs(batch: Batch, num_clips: int = 1) -> dict[str, np.ndarray]:
    """The first clips of a batch in the form that the signatures take."""
    rows = {k: np.asarray(x)[:num_clips] for k, x in batch.items()}
    found: dict[str, np.ndarray] = {}
    if "audio" in rows:
        audio = rows["audio"]
        if audio.dtype == np.int16:
            audio = audio / np.float32(32768)
        found["audio"] = audio.astype("float32")
        whole = np.full(len(audio), audio.shape[1])
        found["audio_samples"] = rows.get("audio_samples", whole).astype("int32")
    if "video" in rows:
        found["video"] = rows["video"].astype("uint8")
    for m in (m for m in MODALITIES if m in rows):
        present = rows.get(f"{m}_present", np.ones(len(rows[m])))
        found[f"{m}_present"] = present.astype("float32")
    return found


def blank_inputs(model: keras.Model, form: ClipForm) -> dict[str, np.ndarray]:
    """One silent, black clip."""
    clip = {}
    if "audio" in model.modalities:
        clip["audio"] = np.zeros((1, form.spec.num_samples), "float32")
    if "video" in model.modalities:
        shape = (1, form.spec.num_frames, *form.spec.frame_size, 3)
        clip["video"] = np.zeros(shape, "uint8")
    return example_inputs(clip)


class Endpoints:
    """The functions of a SavedModel.

    What signatures share is traced once, and called by them: a signature's model by its
    two forms, spectrogram and decoders by all. They are concrete functions, because
    TensorFlow traces any other function a second time when it saves it.

    Args:
        model: see `signatures_of`.
        form: how clips become its inputs.
        scope: makes the context in which the model is traced.
    """

    def __init__(self, model: keras.Model, form: ClipForm, scope: Any) -> None:
        self.model, self.form, self.scope = model, form, scope

    def make(self, signature: Signature) -> dict[str, Any]:
        """The traced functions of a signature, by name."""

        def answer_batch(batch: Batch) -> dict[str, tf.Tensor]:
            batch = dict(batch)
            if "audio" in signature.modalities:
                samples = batch.pop("audio_samples")
                batch["audio"] = self._spectrogram(batch["audio"], samples)
            with self.scope():
                return answer(self.model, signature, batch)

        found = [x for m in signature.modalities for x in self._batch_specs[m].items()]
        specs = {**dict(found), **signature.setting_specs}
        answered = _concrete(answer_batch, specs)
        if signature.may_lack:
            answered = _with_whole_clips(answered, answer_batch, specs)

        fill = signature.settings

        def of_arrays(inputs: Batch) -> dict[str, tf.Tensor]:
            return _of_any_size(answered, self._from_arrays(signature, inputs), fill)

        def of_files(inputs: Batch) -> dict[str, tf.Tensor]:
            return _of_any_size(answered, self._from_files(signature, inputs), fill)

        specs = {
            signature.name: (of_arrays, signature.specs(self.form)),
            signature.name + ENCODED: (of_files, signature.encoded_specs()),
        }
        made = {}
        for name, (function, inputs) in specs.items():
            checked_first = functools.partial(_of_one_size, function)
            made[name] = tf.function(checked_first, autograph=False)
            made[name].get_concrete_function(inputs)
        return made

    @functools.cached_property
    def _batch_specs(self) -> dict[str, dict[str, tf.TensorSpec]]:
        """By modality what the pipeline says of it in a batch."""
        spec = self.form.spec
        shape = [None, spec.num_frames, *spec.frame_size, 3]
        return {
            "audio": {
                "audio": tf.TensorSpec([None, spec.num_samples], tf.float32),
                "audio_samples": tf.TensorSpec([None], tf.int32),
                "audio_present": tf.TensorSpec([None], tf.float32),
            },
            "video": {
                "video": tf.TensorSpec(shape, tf.uint8),
                "video_present": tf.TensorSpec([None], tf.float32),
            },
        }

    @functools.cached_property
    def _spectrogram(self) -> Any:
        def read(audio: tf.Tensor, audio_samples: tf.Tensor) -> tf.Tensor:
            return self.model.audio_front_end(audio, num_samples=audio_samples)

        specs = self._batch_specs["audio"]
        return _concrete(read, specs["audio"], specs["audio_samples"])

    @functools.cached_property
    def _read_audio(self) -> Any:
        return _concrete(self.form.read_audio, tf.TensorSpec([None], tf.string))

    @functools.cached_property
    def _read_frames(self) -> Any:
        return _concrete(self.form.read_frames, tf.TensorSpec([None, None], tf.string))

    def _from_arrays(self, signature, inputs):
        batch = {}
        if "audio" in signature.modalities:
            audio, samples = self.form.fit_audio(
                inputs["audio"], inputs["audio_samples"]
            )
            batch |= {"audio": audio, "audio_samples": samples}
            batch["audio_present"] = tf.cast(samples > 0, "float32")
        if "video" in signature.modalities:
            batch["video"] = self.form.fit_video(inputs["video"])
            has_frames = tf.fill(
                [tf.shape(inputs["video"])[0]], tf.shape(inputs["video"])[1] > 0
            )
            batch["video_present"] = tf.cast(has_frames, "float32")
        for name in (f"{m}_present" for m in signature.modalities):
            if name in inputs:
                batch[name] = batch[name] * inputs[name]
        batch |= {name: inputs[name] for name in signature.settings}
        return _checked_presence(signature, batch)

    def _from_files(self, signature, inputs):
        batch = {}
        if "audio" in signature.modalities:
            audio, samples = self._read_audio(inputs["audio_bytes"])
            audio, samples = self.form.fit_audio(audio, samples)
            batch |= {"audio": audio, "audio_samples": samples}
            batch["audio_present"] = tf.cast(samples > 0, "float32")
        if "video" in signature.modalities:
            batch["video"], batch["video_present"] = self._read_frames(
                inputs["video_bytes"]
            )
        batch |= {name: inputs[name] for name in signature.settings}
        return _checked_presence(signature, batch)


def _concrete(function, *specs):
    return tf.function(function, autograph=False).get_concrete_function(*specs)


def _with_whole_clips(answered, answer_batch, specs):
    """`answered`, with a way for batches of clips that lack nothing.

    What stands for a modality that is not there takes time: in CAV-MAE, two more passes
    of the joint layer.
    """

    def is_there(name: str) -> bool:
        return not name.endswith("_present")

    whole = _concrete(answer_batch, {k: x for k, x in specs.items() if is_there(k)})

    def choose(batch: Batch) -> dict[str, tf.Tensor]:
        present = tf.stack([x for k, x in batch.items() if not is_there(k)])
        return tf.cond(
            tf.reduce_all(present > 0),
            lambda: whole({k: x for k, x in batch.items() if is_there(k)}),
            lambda: answered(batch),
        )

    return _concrete(choose, specs)


def _checked_presence(signature, batch):
    """The batch, of clips that have what the signature needs."""
    present = tf.stack([batch[f"{m}_present"] > 0 for m in signature.modalities])
    which = " or " if signature.may_lack else " and "
    enough = tf.reduce_any if signature.may_lack else tf.reduce_all
    problem = f"A clip must have {which.join(signature.modalities)}; one is empty."
    return checked(batch, tf.reduce_all(enough(present, axis=0)), problem)


def _of_one_size(function, inputs):
    """Calls a function of inputs that all have the same number of clips, up to a limit.

    Not in parts: TensorFlow (2.20) takes long to optimise a loop around a model, when a
    signature is first asked.
    """
    counts = tf.stack([tf.shape(x)[0] for x in inputs.values()])
    problem = "All inputs must have the same number of clips."
    inputs = checked(inputs, tf.reduce_all(counts == counts[0]), problem)
    problem = f"A request may hold at most {MAX_CLIPS} clips; send several."
    return function(checked(inputs, counts[0] <= MAX_CLIPS, problem))


def _of_any_size(function, batch, fill):
    """Calls a function of batches that are not empty; none gives empty answers.

    `fill` has what stands for an input where a clip has to be made up; else it is 0.
    """
    count = tf.shape(next(iter(batch.values())))[0]
    missing = tf.maximum(1 - count, 0)
    padded = {}
    for name, x in batch.items():
        padding = [[0, missing]] + [[0, 0]] * (x.shape.rank - 1)
        value = tf.cast(fill.get(name, 0), x.dtype)
        padded[name] = tf.pad(x, padding, constant_values=value)
    return {name: x[:count] for name, x in function(padded).items()}
