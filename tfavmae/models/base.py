"""The base of every model: inputs, tokens and encoder."""

import dataclasses
import functools
import math
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from tfavmae.layers.augment import DeviceAugmentation
from tfavmae.layers.embedding import Tokenizer
from tfavmae.layers.masking import TokenMasking, hash_noise
from tfavmae.models.encoders import (
    MODALITIES,
    AudioVisualEncoder,
    separate_class_tokens,
)
from tfavmae.models.inputs import AudioInput, VideoInput, as_input
from tfavmae.models.keras_file import load_model
from tfavmae.models.preset_methods import PresetMethods
from tfavmae.models.train_step import train_step_for
from tfavmae.models.transfer import TransferReport, copy_matching_weights
from tfavmae.objectives.base import Objective, Term

VIEW_SUFFIXES = ("", "_2")
_Step = train_step_for(keras.backend.backend())
_INPUT_KEY = re.compile(
    r"audio|video|audio_samples|(audio|video)_(noise(_2)?|present)|example_index"
    r"|sample_weight|text_(ids|mask|present)"
)


@keras.saving.register_keras_serializable(package="tfavmae")
class AudioVisualModel(PresetMethods, _Step, keras.Model):
    """Front ends, tokenizers and an encoder; built as soon as it is constructed.

    Args:
        encoder: an `AudioVisualEncoder`.
        audio: an `AudioInput`, a dict of its fields, or `None` for a video-only model.
        video: likewise.
        hidden_dim: width of the tokens.
        objectives: list of `Objective`s, whose weighted sum is the loss.
        positions: keyword arguments of `PositionEmbedding`, for both modalities.
        modality_embedding, modality_stddev, projection_initializer: see `Tokenizer`.
        seed: of all masks, and of the augmentation.
        augmentation: a dict of `DeviceAugmentation`'s arguments: mix-up, SpecAugment
            and noise, in training only.

    Call arguments:
        inputs: dict with `audio` (`(batch, samples)` int16 or float in [-1, 1], or a
            normalised spectrogram `(batch, time, frequency)`) and `video`
            (`(batch, frames, height, width, 3)`, uint8 or normalised float). See the
            subclasses for what else they read.
    """

    # What only models of both modalities have, or of several times: a transformer of
    # images cannot give it.
    expected_new: tuple[str, ...] = (
        r"\w+_tokenizer/modality",
        r"decoder/\w+_modality",
        r"encoder/joint/bottleneck",
        r"(\w+_tokenizer/|decoder/\w+_)positions/time_table",
    )

    def __init__(
        self,
        encoder: AudioVisualEncoder,
        hidden_dim: int,
        audio: AudioInput | Mapping[str, Any] | None = None,
        video: VideoInput | Mapping[str, Any] | None = None,
        objectives: Sequence[Objective] = (),
        positions: Mapping[str, Any] | None = None,
        modality_embedding: bool = False,
        modality_stddev: float = 0.02,
        projection_initializer: str = "glorot_uniform",
        seed: int = 0,
        augmentation: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        # A waveform must reach the front end in float32 whatever the policy.
        self.autocast = False
        self.encoder = encoder
        self.hidden_dim = hidden_dim
        given = {"audio": as_input("audio", audio), "video": as_input("video", video)}
        self.inputs_by_modality = {m: x for m, x in given.items() if x is not None}
        self.objectives = list(objectives)
        self.positions = dict(positions or {})
        self.modality_embedding = modality_embedding
        self.modality_stddev = modality_stddev
        self.projection_initializer = projection_initializer
        self.seed = seed
        self.augmentation = DeviceAugmentation(**augmentation) if augmentation else None
        heard = self.inputs_by_modality.get("audio")
        if self.augmentation and heard:
            self.augmentation.check_size(heard.num_frames, heard.num_mel_bins)

    @property
    def modalities(self) -> tuple[str, ...]:
        """Modalities that the model reads."""
        return tuple(self.inputs_by_modality)

    @property
    def embedding_dim(self) -> int:
        """Width of `{modality}_embedding`."""
        return self.hidden_dim

    def build(self, input_shape: Any = None) -> None:
        """Builds all parts; shapes are known from the constructor's arguments."""
        for modality, spec in self.inputs_by_modality.items():
            front_end = spec.front_end()
            front_end.build(spec.input_shape)
            setattr(self, f"{modality}_front_end", front_end)
            tokenizer = Tokenizer(
                self.hidden_dim,
                spec.grid,
                positions={**spec.positions, **self.positions},
                modality_embedding=self.modality_embedding,
                modality_stddev=self.modality_stddev,
                projection_initializer=self.projection_initializer,
                dtype=self.dtype_policy,
                name=f"{modality}_tokenizer",
            )
            tokenizer.build((None, math.prod(spec.grid), spec.patch_values))
            setattr(self, f"{modality}_tokenizer", tokenizer)
        self.encoder.build((None, None, self.hidden_dim))
        self._init_trackers()

    def read(
        self, inputs: Mapping[str, Any], training: bool = False
    ) -> dict[str, keras.KerasTensor]:
        """Dict of `{modality}_input`: the normalised spectrogram and frames.

        Raises:
            ValueError: none of the model's modalities is there, one has another shape
                than the model reads, or one is missing and an unknown key may be it.
        """
        self._check_inputs(inputs)
        if not training or self.augmentation is None:
            return self._read(inputs)
        audio = self.inputs_by_modality.get("audio")
        return self.augmentation.apply(
            inputs,
            self._read,
            seed=self.seed,
            step=self.training_step,
            zero=-audio.mean / audio.std if audio else 0.0,
        )

    def _check_inputs(self, inputs: Mapping[str, Any]) -> None:
        given = [m for m in self.modalities if inputs.get(m) is not None]
        labels = {x.label for x in self.objectives if hasattr(x, "label")}
        unknown = [k for k in inputs if not _INPUT_KEY.fullmatch(k) and k not in labels]
        # Keys that nothing reads are welcome where nothing is missing: a data set's
        # other labels, say.
        if not given or (unknown and len(given) < len(self.modalities)):
            missing = [m for m in self.modalities if m not in given]
            raise ValueError(
                f"The inputs must be a dict with {' and '.join(self.modalities)}. "
                f"Missing: {', '.join(missing)}; received: {sorted(inputs)}."
            )
        for m in given:
            self.inputs_by_modality[m].check(inputs[m])

    def load_pretrained(
        self, source: keras.Model | str | os.PathLike
    ) -> TransferReport:
        """Warm start: copies the weights that a pretrained model has in common.

        Args:
            source: a model, or the path of a `.keras` file.

        Returns:
            Addresses of the weights that were copied, that the source lacks, and that
            this model does not have.

        Raises:
            ValueError: nothing matches, or a weight has another shape in the source.
            UserError: the file cannot be loaded; see `keras_file.load_model`.
        """
        if not isinstance(source, keras.Model):
            source = load_model(source)
        report = copy_matching_weights(source, self)
        if not report.copied:
            raise ValueError(
                f"`source` must share weights with this model; {source.name} shares "
                "none. Build both from the same preset and size."
            )
        return report

    def _read(self, inputs: Mapping[str, Any]) -> dict[str, keras.KerasTensor]:
        return {
            f"{m}_input": spec.read(getattr(self, f"{m}_front_end"), inputs)
            for m, spec in self.inputs_by_modality.items()
            if inputs.get(m) is not None
        }

    def tokenize(
        self,
        patches: Mapping[str, keras.KerasTensor],
        indices: Mapping[str, keras.KerasTensor] | None = None,
    ) -> dict[str, keras.KerasTensor]:
        """Dict of modality to tokens `(batch, tokens, hidden_dim)`.

        Args:
            patches: dict of modality to `(batch, tokens, values)`.
            indices: dict of modality to int `(batch, n)`, the patches to take; `None`
                takes all.
        """
        return {
            m: getattr(self, f"{m}_tokenizer")(x, indices and indices[m])
            for m, x in patches.items()
        }

    def build_masking(self, options: Mapping[str, Mapping[str, Any]]) -> None:
        """Makes the `TokenMasking` of each modality that `options` has.

        Args:
            options: dict of modality to keyword arguments of `TokenMasking` but `grid`.
        """
        for modality, own in options.items():
            grid = self.inputs_by_modality[modality].grid
            masking = TokenMasking(grid, **own, name=f"{modality}_masking")
            masking.build((None, masking.num_tokens))
            setattr(self, f"{modality}_masking", masking)

    def masking(self, modality: str) -> TokenMasking:
        """The masking of a modality."""
        return getattr(self, f"{modality}_masking")

    def draw_order(
        self,
        inputs: Mapping[str, Any],
        patches: Mapping[str, keras.KerasTensor],
        training: bool,
        view: int = 0,
    ) -> dict[str, keras.KerasTensor]:
        """Dict of modality to int32 `(batch, tokens)`, tokens to keep first.

        Args:
            inputs: of the model; their noise decides where it is given.
            patches: dict of modality to `(batch, tokens, values)`.
            training: evaluation masks as step 0 does, so that it can be repeated.
            view: which of the masked views.
        """
        return {
            m: self.masking(m)(self._noise(inputs, m, x, training, view))
            for m, x in patches.items()
        }

    def _noise(
        self,
        inputs: Mapping[str, Any],
        modality: str,
        patches: keras.KerasTensor,
        training: bool,
        view: int = 0,
    ) -> keras.KerasTensor:
        """`(batch, tokens)`: the inputs', or drawn; see `draw_order`."""
        noise = inputs.get(f"{modality}_noise{VIEW_SUFFIXES[view]}")
        if noise is not None:
            return ops.cast(noise, "float32")
        stream = 2 * view + MODALITIES.index(modality)
        return self.draw_noise(inputs, patches, training, stream, patches.shape[1])

    def draw_noise(
        self,
        inputs: Mapping[str, Any],
        patches: keras.KerasTensor,
        training: bool,
        stream: int,
        count: int,
    ) -> keras.KerasTensor:
        """Uniform noise `(batch, count)` from seed, step and example; see `hash_noise`.

        Args:
            inputs: of the model, with `example_index` or without.
            patches: `(batch, ...)`.
            training: see `draw_order`.
            stream: tells draws apart; two views of two modalities have 0 to 3.
            count: numbers for each example.
        """
        rows = inputs.get("example_index")
        if rows is None:
            rows = ops.arange(ops.shape(patches)[0], dtype="int32")
        step = self.training_step if training else 0
        return hash_noise(self.seed, step, rows, stream, count)

    def patchify(
        self, outputs: Mapping[str, keras.KerasTensor]
    ) -> dict[str, keras.KerasTensor]:
        """Dict of modality to patches `(batch, tokens, values)` of what was read."""
        return {
            m: spec.patchify(outputs[f"{m}_input"])
            for m, spec in self.inputs_by_modality.items()
            if f"{m}_input" in outputs
        }

    def encode(
        self,
        tokens: Mapping[str, keras.KerasTensor],
        training: bool = False,
        views: int = 1,
        **options: Any,
    ) -> dict[str, keras.KerasTensor]:
        """The encoder's outputs and their means over tokens, `{modality}_embedding`.

        Args:
            tokens: dict of modality to `(batch, tokens, hidden_dim)`.
            training, views, **options: see `AudioVisualEncoder`.
        """
        outputs = self.encoder(tokens, training=training, views=views, **options)
        if self.positions.get("class_token"):
            outputs = separate_class_tokens(outputs)
        for m in tokens:
            own = outputs.get(f"{m}_unimodal_tokens", outputs[f"{m}_tokens"])
            outputs[f"{m}_embedding"] = ops.mean(ops.cast(own, "float32"), axis=1)
        return outputs

    def compute_terms(
        self,
        batch: Mapping[str, Any],
        outputs: Mapping[str, Any],
        objectives: Sequence[Objective] | None = None,
    ) -> dict[str, Term]:
        """Dict of name to `Term` of all objectives, or of the given ones."""
        terms = {}
        for objective in self.objectives if objectives is None else objectives:
            terms.update(objective.terms(batch, outputs))
        return terms

    def layer_index(self, variable: keras.Variable) -> int:
        """Depth of a weight, for learning rates that fall with it (BEiT, MAE).

        0 for what makes tokens, i + 1 in block i, and one more for all the rest: norms
        that end a stack, bottleneck, decoder, head.
        """
        return self._depths.get(variable.path, self._depths["rest"])

    @functools.cached_property
    def _depths(self) -> dict[str, int]:
        blocks = self.encoder.blocks_by_depth()
        embedding = [getattr(self, f"{m}_tokenizer") for m in self.modalities]
        depths = {
            v.path: depth
            for depth, layers in enumerate([embedding, *blocks])
            for layer in layers
            for v in layer.weights
        }
        if self.encoder.class_token:
            tokens = self.encoder.class_tokens.values()
            depths |= {v.path: 0 for v in tokens}
        return depths | {"rest": len(blocks) + 1}

    def get_config(self) -> dict[str, Any]:
        serialize = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            **{m: dataclasses.asdict(x) for m, x in self.inputs_by_modality.items()},
            "encoder": serialize(self.encoder),
            "hidden_dim": self.hidden_dim,
            "objectives": [serialize(x) for x in self.objectives],
            "positions": self.positions,
            "modality_embedding": self.modality_embedding,
            "modality_stddev": self.modality_stddev,
            "projection_initializer": self.projection_initializer,
            "seed": self.seed,
            "augmentation": self.augmentation and dataclasses.asdict(self.augmentation),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "AudioVisualModel":
        deserialize = keras.saving.deserialize_keras_object
        config = dict(config)
        for key in ("encoder", "decoder", "teacher", "text_encoder"):
            if isinstance(config.get(key), dict):
                # Built by this model, so that its variables lie below this model.
                unbuilt = {k: v for k, v in config[key].items() if k != "build_config"}
                config[key] = deserialize(unbuilt)
        if config.get("objectives"):
            config["objectives"] = [deserialize(x) for x in config["objectives"]]
        return cls(**config)
