"""The base of every model, and the masked autoencoder that the three papers share."""

import dataclasses
from typing import NamedTuple

import keras
from keras import ops

from tfavmae.layers.embedding import Tokenizer, standardize_patches
from tfavmae.layers.masking import TokenMasking, gather_tokens, hash_noise
from tfavmae.models.composition import check_composition, check_counts
from tfavmae.models.encoders import MODALITIES
from tfavmae.models.inputs import as_input
from tfavmae.models.train_step import train_step_for

VIEW_SUFFIXES = ("", "_2")
TARGET_NORMALIZATIONS = (None, "patch", "patch_biased", "patch_channels")

_Step = train_step_for(keras.backend.backend())


@keras.saving.register_keras_serializable(package="tfavmae")
class AudioVisualModel(_Step, keras.Model):
    """Front ends, tokenizers and an encoder; built as soon as it is constructed.

    Args:
        encoder: an `AudioVisualEncoder`.
        audio: an `AudioInput`, a dict of its fields, or `None` for a video-only model.
        video: likewise.
        hidden_dim: width of the tokens.
        objectives: list of `Objective`s, whose weighted sum is the loss.
        positions: keyword arguments of `PositionEmbedding`, for both modalities.
        modality_embedding, projection_initializer: see `Tokenizer`.
        seed: of all masks.

    Call arguments:
        inputs: dict with `audio` (`(batch, samples)` int16 or float in [-1, 1], or a
            normalised spectrogram `(batch, time, frequency)`) and `video`
            (`(batch, frames, height, width, 3)`, uint8 or normalised float). See the
            subclasses for what else they read.
    """

    def __init__(
        self,
        encoder,
        hidden_dim,
        audio=None,
        video=None,
        objectives=(),
        positions=None,
        modality_embedding=False,
        projection_initializer="glorot_uniform",
        seed=0,
        **kwargs,
    ):
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
        self.projection_initializer = projection_initializer
        self.seed = seed

    @property
    def modalities(self):
        return tuple(self.inputs_by_modality)

    def build(self, input_shape=None):
        """Builds all parts; shapes are known from the constructor's arguments."""
        for modality, spec in self.inputs_by_modality.items():
            setattr(self, f"{modality}_front_end", spec.front_end())
            tokenizer = Tokenizer(
                self.hidden_dim,
                spec.grid,
                positions={**spec.positions, **self.positions},
                modality_embedding=self.modality_embedding,
                projection_initializer=self.projection_initializer,
                dtype=self.dtype_policy,
                name=f"{modality}_tokenizer",
            )
            tokenizer.build((None, None, spec.patch_values))
            setattr(self, f"{modality}_tokenizer", tokenizer)
        self.encoder.build((None, None, self.hidden_dim))
        self._init_trackers()

    def read(self, inputs):
        """Dict of `{modality}_input`: the normalised spectrogram and frames."""
        return {
            f"{m}_input": spec.read(getattr(self, f"{m}_front_end"), inputs)
            for m, spec in self.inputs_by_modality.items()
            if inputs.get(m) is not None
        }

    def tokenize(self, patches, indices=None):
        """Dict of modality to tokens, of all patches or of `indices[modality]`."""
        return {
            m: getattr(self, f"{m}_tokenizer")(x, indices and indices[m])
            for m, x in patches.items()
        }

    def patchify(self, outputs):
        return {
            m: spec.patchify(outputs[f"{m}_input"])
            for m, spec in self.inputs_by_modality.items()
            if f"{m}_input" in outputs
        }

    def encode(self, tokens, training=False, views=1):
        """The encoder's outputs and their means over tokens, `{modality}_embedding`."""
        outputs = self.encoder(tokens, training=training, views=views)
        for m in tokens:
            own = outputs.get(f"{m}_unimodal_tokens", outputs[f"{m}_tokens"])
            outputs[f"{m}_embedding"] = ops.mean(ops.cast(own, "float32"), axis=1)
        return outputs

    def compute_terms(self, batch, outputs):
        """Dict of name to `Term` of all objectives."""
        terms = {}
        for objective in self.objectives:
            terms.update(objective.terms(batch, outputs))
        return terms

    def get_config(self):
        serialize = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            **{m: dataclasses.asdict(x) for m, x in self.inputs_by_modality.items()},
            "encoder": serialize(self.encoder),
            "hidden_dim": self.hidden_dim,
            "objectives": [serialize(x) for x in self.objectives],
            "positions": self.positions,
            "modality_embedding": self.modality_embedding,
            "projection_initializer": self.projection_initializer,
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config):
        deserialize = keras.saving.deserialize_keras_object
        config = dict(config)
        for key in ("encoder", "decoder", "teacher"):
            if isinstance(config.get(key), dict):
                # Built by this model, so that its variables lie below this model.
                unbuilt = {k: v for k, v in config[key].items() if k != "build_config"}
                config[key] = deserialize(unbuilt)
        if config.get("objectives"):
            config["objectives"] = [deserialize(x) for x in config["objectives"]]
        return cls(**config)


@keras.saving.register_keras_serializable(package="tfavmae")
class MaskedAutoencoder(AudioVisualModel):
    """Masks, encodes what is visible, decodes, and hands named outputs to objectives.

    Args:
        decoder: an `AudioVisualDecoder`, or `None` for contrast alone.
        masking: dict of modality to keyword arguments of `TokenMasking` but `grid`.
        target_normalization: `None` (raw values), `patch` (unbiased variance: MAE,
            CAV-MAE) or `patch_biased` (AV-MAE); each target has mean 0 and variance 1.
            `patch_channels`: each colour of a video's has, and audio stays raw (an
            option of AV-MAE's code).
        decode_second_view: a second masked view, which some objectives ask for, is
            fused and decoded too, so that reconstruction counts both.
        teacher: an `AudioVisualModel`, frozen; what it makes of all tokens is the
            target, instead of the patches. `assign_teacher` fills in its weights.
        teacher_output: `fusion` or `unimodal`, the layers whose outputs those are.
        allow_uncoupled: accept parts that make two models side by side, whose
            modalities never meet (AV-MAE, appendix A.3).
        Others: see `AudioVisualModel`.

    Call arguments:
        inputs: also `audio_noise`, `video_noise` `(batch, tokens)`, which decide what
            is masked; without them they are hashed from the seed, the training step and
            `example_index` `(batch,)`, the examples' rows in their dataset. A second
            view has `audio_noise_2`, `video_noise_2`.
        masked: whether tokens are dropped and predicted. `False` encodes all.

    Returns:
        dict of named tensors; for each modality `_input`, `_tokens`,
        `_unimodal_tokens`, `_embedding` and, if masked, `_order`, `_is_masked`,
        `_prediction`, `_target`, `_target_mean`, `_target_std`, `_masked_prediction`,
        `_masked_target`; those of a second view end in `_2`. With `Inpainting` also
        `_inpainting` and `_masked_inpainting`; without `Reconstruction` beside it, no
        `_prediction`.
    """

    def __init__(
        self,
        encoder,
        hidden_dim,
        decoder=None,
        masking=None,
        target_normalization="patch",
        decode_second_view=False,
        teacher=None,
        teacher_output="fusion",
        allow_uncoupled=False,
        **kwargs,
    ):
        super().__init__(encoder, hidden_dim, **kwargs)
        if target_normalization not in TARGET_NORMALIZATIONS:
            raise ValueError(
                f"`target_normalization` must be one of {TARGET_NORMALIZATIONS}. "
                f"Received: {target_normalization!r}."
            )
        self.decoder = decoder
        self.masking_options = {m: dict(x) for m, x in (masking or {}).items()}
        self.target_normalization = target_normalization
        self.decode_second_view = decode_second_view
        self.teacher = teacher
        self.teacher_output = teacher_output
        self.allow_uncoupled = allow_uncoupled
        check_composition(self)
        self.build()

    @property
    def num_views(self):
        """2 where something is contrasted with, or decoded from, a second masking."""
        asked = any("second_view" in x.requires for x in self.objectives)
        return 2 if asked or self.decode_second_view else 1

    def build(self, input_shape=None):
        super().build()
        for modality, spec in self.inputs_by_modality.items():
            options = self.masking_options.get(modality, {})
            masking = TokenMasking(spec.grid, **options, name=f"{modality}_masking")
            setattr(self, f"{modality}_masking", masking)
        if self.decoder is not None:
            self.decoder.build((None, None, self.hidden_dim))
        if self.teacher is not None:
            # Built here, so that its variables lie below this model's `teacher`.
            self.teacher.build()
            self.teacher.trainable = False
        check_counts(self)

    def call(self, inputs, masked=True, training=False):
        outputs = self.read(inputs)
        patches = self.patchify(outputs)
        if not masked:
            return outputs | self.encode(self.tokenize(patches), training)
        orders = [
            self.draw_order(inputs, patches, training, view)
            for view in range(self.num_views)
        ]
        return outputs | self._masked_views(patches, orders, training)

    def draw_order(self, inputs, patches, training, view=0):
        """Dict of modality to int32 `(batch, tokens)`, tokens to keep first."""
        step = self.training_step if training else 0
        order = {}
        for m, x in patches.items():
            noise = inputs.get(f"{m}_noise{VIEW_SUFFIXES[view]}")
            if noise is None:
                rows = inputs.get("example_index")
                if rows is None:
                    rows = ops.arange(ops.shape(x)[0], dtype="int32")
                stream = 2 * view + MODALITIES.index(m)
                noise = hash_noise(self.seed, step, rows, stream, x.shape[1])
            order[m] = getattr(self, f"{m}_masking")(noise)
        return order

    def _masked_views(self, patches, orders, training):
        """Encodes all views as one batch; fuses and decodes the first, or all."""
        kept = [
            {m: x[:, : self._masking(m).num_kept] for m, x in order.items()}
            for order in orders
        ]
        tokens = _stack([self.tokenize(patches, x) for x in kept])
        decoded = orders if self.decode_second_view else orders[:1]
        views = len(orders) // len(decoded)
        outputs = self.encode(tokens, training, views)
        if self.decoder is not None:
            visible = {m: outputs[f"{m}_tokens"] for m in patches}
            outputs |= self._decode(visible, _stack(decoded), training)
        if len(orders) > 1:
            outputs = _part_views(outputs, whole=views == 1)
        for suffix, order in zip(VIEW_SUFFIXES, orders, strict=False):
            for m in patches:
                outputs[f"{m}_order{suffix}"] = order[m]
                outputs[f"{m}_is_masked{suffix}"] = self._masking(m).is_masked(order[m])
        if self.decoder is not None:
            outputs |= self._targets(self._target_values(patches), decoded)
        return outputs

    def _decode(self, visible, order, training):
        """What the objectives ask for: joint reconstruction, inpainting or both."""
        inpainting = [x for x in self.objectives if "inpainting" in x.requires]
        if not inpainting:
            return self.decoder(visible, order, training=training)
        wanted = [m for m in visible if any(m in x.modalities for x in inpainting)]
        outputs = self.decoder.inpaint(visible, order, wanted, training=training)
        if any("reconstruction" in x.requires for x in self.objectives):
            outputs |= self.decoder(visible, order, training=training)
        return outputs

    def _masking(self, modality):
        return getattr(self, f"{modality}_masking")

    def _target_values(self, patches):
        """Dict of modality to what its tokens have to predict, before normalisation."""
        if self.teacher is None:
            return patches
        outputs = self.teacher.encode(self.teacher.tokenize(patches))
        part = "tokens" if self.teacher_output == "fusion" else "unimodal_tokens"
        values = {m: ops.cast(outputs[f"{m}_{part}"], "float32") for m in patches}
        return {m: ops.stop_gradient(x) for m, x in values.items()}

    def _targets(self, values, orders):
        targets = {}
        for m, x in values.items():
            whole, mean, deviation = self._normalize_target(m, x)
            targets[f"{m}_target_mean"], targets[f"{m}_target_std"] = mean, deviation
            for suffix, order in zip(VIEW_SUFFIXES, orders, strict=False):
                targets[f"{m}_target{suffix}"] = whole
                masked = gather_tokens(x, order[m][:, self._masking(m).num_kept :])
                masked = self._normalize_target(m, masked)[0]
                targets[f"{m}_masked_target{suffix}"] = masked
        return targets

    def _normalize_target(self, modality, patches):
        by_channel = self.target_normalization == "patch_channels"
        if self.target_normalization is None or (by_channel and modality == "audio"):
            zeros = ops.zeros_like(patches[..., :1])
            return patches, zeros, zeros + 1.0
        unbiased = self.target_normalization == "patch"
        return standardize_patches(patches, unbiased, channels=3 if by_channel else 1)

    def assign_teacher(self, *sources):
        """Copies trained models' weights into the teacher; later ones win.

        Together they must have every weight: one model, or an audio-only and a
        video-only one for a teacher that does not fuse.
        """
        reports = [copy_matching_weights(x, self, into="teacher/") for x in sources]
        missing = set.intersection(*(set(r.missing_in_source) for r in reports))
        if missing:
            raise ValueError(
                f"The teacher needs {len(missing)} weights that none of its sources "
                f"has, such as {min(missing)}; make their settings agree."
            )

    def get_config(self):
        config = super().get_config()
        if self.decoder is not None:
            config["decoder"] = keras.saving.serialize_keras_object(self.decoder)
        if self.teacher is not None:
            config["teacher"] = keras.saving.serialize_keras_object(self.teacher)
        return {
            **config,
            "masking": self.masking_options,
            "target_normalization": self.target_normalization,
            "decode_second_view": self.decode_second_view,
            "teacher_output": self.teacher_output,
            "allow_uncoupled": self.allow_uncoupled,
        }


def _stack(views):
    """Dicts of modality to tensor as one, stacked on the batch axis."""
    if len(views) == 1:
        return views[0]
    return {m: ops.concatenate([v[m] for v in views], axis=0) for m in views[0]}


def _part_views(outputs, whole):
    """Outputs of two stacked views as `name` and `name_2`; all, or unimodal ones."""
    parted = dict(outputs)
    for name, x in outputs.items():
        if whole or "_unimodal_" in name or name.endswith("_embedding"):
            parted[name], parted[f"{name}_2"] = ops.split(x, 2, axis=0)
    return parted


class TransferReport(NamedTuple):
    """What `copy_matching_weights` did; lists of weight addresses."""

    copied: list[str]
    missing_in_source: list[str]
    unused_in_source: list[str]


def address(variable):
    """Path of a variable below its model: `encoder/audio/block_3/mlp/expand/kernel`."""
    return variable.path.split("/", 1)[1]


def copy_matching_weights(source, target, into=""):
    """Copies the weights whose addresses and shapes agree.

    Args:
        source, target: models.
        into: only the target's weights below this address, e.g. `teacher/`.

    Raises:
        ValueError: an address agrees and its shape does not; names both shapes.
    """
    given = {address(v): v for v in source.weights}
    wanted = {address(v): v for v in target.weights if address(v).startswith(into)}
    wanted = {a.removeprefix(into): v for a, v in wanted.items()}
    copied = [a for a in wanted if a in given and a != "training_step"]
    for a in copied:
        if given[a].shape != wanted[a].shape:
            raise ValueError(
                f"Weight {a} has shape {tuple(given[a].shape)} in the checkpoint and "
                f"{tuple(wanted[a].shape)} in the model; make their settings agree."
            )
        wanted[a].assign(given[a])
    return TransferReport(
        copied,
        [a for a in wanted if a not in given],
        [a for a in given if a not in wanted],
    )
