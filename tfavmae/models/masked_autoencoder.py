"""The masked autoencoder that the papers share."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from tfavmae.layers.embedding import standardize_patches
from tfavmae.layers.masking import TokenMasking, gather_tokens
from tfavmae.layers.presence import split_tokens
from tfavmae.models.base import VIEW_SUFFIXES, AudioVisualModel
from tfavmae.models.composition import (
    check_composition,
    check_counts,
    check_reconstructs,
)
from tfavmae.models.decoders import AudioVisualDecoder
from tfavmae.models.encoders import AudioVisualEncoder, separate_views
from tfavmae.models.transfer import copy_matching_weights

_TARGET_PARTS = ("target", "target_mean", "target_std")
TARGET_NORMALIZATIONS = (None, "patch", "patch_biased", "patch_channels")


@keras.saving.register_keras_serializable(package="tfavmae")
class MaskedAutoencoder(AudioVisualModel):
    """Masks, encodes what is visible, decodes, and hands named outputs to objectives.

    Args:
        decoder: an `AudioVisualDecoder`, or `None` for contrast alone.
        masking: dict of modality to keyword arguments of `TokenMasking` but `grid`.
        target_normalization: `None` (raw values), `patch` (unbiased variance: MAE,
            CAV-MAE) or `patch_biased` (AV-MAE); each target has mean 0 and variance 1.
            `patch_channels`: each channel of a video patch does, and audio stays raw
            (an option of AV-MAE's code).
        decode_second_view: a second masked view, which some objectives ask for, is
            fused and decoded too, so that reconstruction counts both.
        teacher: an `AudioVisualModel`, frozen; its outputs for all tokens are the
            targets, instead of the patches. `assign_teacher` fills in its weights.
        teacher_output: `fusion` or `unimodal`, the layers whose outputs those are.
        allow_uncoupled: accept parts that make two models side by side, whose
            modalities never meet (AV-MAE, appendix A.3).
        joint_ratio: fraction of the tokens of both modalities together that one mask
            removes (CAV-MAE, section 2.2), instead of a mask for each: how many of a
            modality's tokens stay differs from clip to clip. `None`: a mask for each.
        Others: see `AudioVisualModel`.

    Call arguments:
        inputs: also `audio_noise`, `video_noise` `(batch, tokens)`, which decide what
            is masked; without them they are hashed from the seed, the training step and
            `example_index` `(batch,)`, the examples' rows in their dataset. A second
            view has `audio_noise_2`, `video_noise_2`.
        masked: whether tokens are dropped and predicted. By default they are where the
            call trains, so that `model(x)` and `predict` encode all tokens;
            `masked=True` asks for a masked forward pass by name.

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
        encoder: AudioVisualEncoder,
        hidden_dim: int,
        decoder: AudioVisualDecoder | None = None,
        masking: Mapping[str, Mapping[str, Any]] | None = None,
        target_normalization: str | None = "patch",
        decode_second_view: bool = False,
        teacher: AudioVisualModel | None = None,
        teacher_output: str = "fusion",
        allow_uncoupled: bool = False,
        joint_ratio: float | None = None,
        **kwargs: Any,
    ) -> None:
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
        self.joint_ratio = joint_ratio
        check_composition(self)
        self.build()

    @property
    def new_weights(self) -> tuple[str, ...]:
        """Addresses below which no weights are copied from a pretrained model.

        A student's heads predict features; those of a model that reconstructs predict
        patches, in another number of values.
        """
        if self.teacher is None:
            return ()
        return tuple(f"decoder/{m}_head" for m in self.modalities)

    @property
    def num_views(self) -> int:
        """2 where something is contrasted with, or decoded from, a second masking."""
        asked = any("second_view" in x.requires for x in self.objectives)
        return 2 if asked or self.decode_second_view else 1

    def build(self, input_shape: Any = None) -> None:
        super().build()
        self.build_masking(
            {m: self.masking_options.get(m, {}) for m in self.modalities}
        )
        if self.decoder is not None:
            self.decoder.build((None, None, self.hidden_dim))
        if self.teacher is not None:
            # Built here, so that its variables lie below this model's `teacher`.
            self.teacher.build()
            self.teacher.trainable = False
        check_counts(self)

    @property
    def embedding_names(self) -> list[str]:
        """Names of the outputs that contrastive objectives read."""
        views = VIEW_SUFFIXES[: self.num_views]
        return [f"{m}_embedding{view}" for view in views for m in self.modalities]

    def drops_tokens(self, masked: bool | None, training: bool) -> bool:
        """Whether a call drops tokens: as `masked` says, else where it trains."""
        return training or self.is_evaluating if masked is None else masked

    def forward_for_loss(
        self, batch: dict[str, Any], training: bool
    ) -> dict[str, keras.KerasTensor]:
        """A masked forward pass, also in evaluation."""
        return self(batch, masked=True, training=training)

    def call(
        self,
        inputs: Mapping[str, Any],
        masked: bool | None = None,
        training: bool = False,
    ) -> dict[str, keras.KerasTensor]:
        outputs = self.read(inputs, training)
        patches = self.patchify(outputs)
        if not self.drops_tokens(masked, training):
            return outputs | self.encode(self.tokenize(patches), training)
        if self.joint_ratio is not None:
            return outputs | self._jointly_masked(inputs, patches, training)
        orders = [
            self.draw_order(inputs, patches, training, view)
            for view in range(self.num_views)
        ]
        return outputs | self._masked_views(patches, orders, training)

    def _jointly_masked(
        self,
        inputs: Mapping[str, Any],
        patches: Mapping[str, keras.KerasTensor],
        training: bool,
    ) -> dict[str, keras.KerasTensor]:
        """One sequence of the tokens of both modalities, and one mask for it."""
        noise = [self._noise(inputs, m, x, training) for m, x in patches.items()]
        masking = TokenMasking((sum(x.shape[1] for x in noise),), self.joint_ratio)
        order = masking(ops.concatenate(noise, axis=1))
        tokens = ops.concatenate([*self.tokenize(patches).values()], axis=1)
        visible = gather_tokens(tokens, order[:, : masking.num_kept])
        outputs = self.encode({"joint": visible}, training)
        outputs |= self.decoder.decode_jointly(
            outputs["joint_tokens"], order, training=training
        )
        is_masked = split_tokens(masking.is_masked(order), patches)
        outputs |= {f"{m}_is_masked": x for m, x in is_masked.items()}
        for m, x in self._target_values(patches).items():
            parts = self._normalize_target(m, x)
            named = zip(_TARGET_PARTS, parts, strict=True)
            outputs |= {f"{m}_{name}": part for name, part in named}
        return outputs

    def reconstruct(
        self,
        inputs: Mapping[str, Any],
        maskings: Mapping[str, TokenMasking | None],
    ) -> dict[str, keras.KerasTensor]:
        """Predicts patches under masks other than those of training.

        Args:
            inputs: as of a call; noise decides what is masked, as there.
            maskings: of each modality of the inputs; `None` removes all its tokens, so
                that it is predicted from the other one alone.

        Returns:
            dict of named tensors, for each modality `_input`, `_is_masked`,
            `_prediction`, `_target`, `_target_mean` and `_target_std`; see the class.
            After inpainting alone (AV-MAE, section 3.4), the masked patches are those
            that the decoder has a mask token for.

        Raises:
            ValueError: the model does not predict patches, or not without a token of
                their own modality.
        """
        outputs = self.read(inputs)
        patches = self.patchify(outputs)
        chosen = {m: maskings[m] for m in patches}
        kept = {m: 0 if x is None else x.num_kept for m, x in chosen.items()}
        check_reconstructs(self, kept)
        order = {}
        for m, x in patches.items():
            noise = self._noise(inputs, m, x, training=False)
            # Where nothing is kept, the order is that of the noise.
            masking = chosen[m]
            if masking is None:
                masking = TokenMasking((x.shape[1],), 0.0)
            order[m] = masking(noise)
        seen = {m: x for m, x in patches.items() if kept[m]}
        tokens = self.tokenize(seen, {m: order[m][:, : kept[m]] for m in seen})
        outputs |= self._predicted(tokens, order, kept)
        for m, x in patches.items():
            if f"{m}_is_masked" not in outputs:
                place = ops.argsort(order[m], axis=1)
                outputs[f"{m}_is_masked"] = place >= kept[m]
            parts = self._normalize_target(m, x)
            for name, part in zip(_TARGET_PARTS, parts, strict=True):
                outputs[f"{m}_{name}"] = part
        return outputs

    def _predicted(
        self,
        tokens: Mapping[str, keras.KerasTensor],
        order: Mapping[str, keras.KerasTensor],
        kept: Mapping[str, int],
    ) -> dict[str, keras.KerasTensor]:
        """Predictions from the visible tokens of one modality or both."""
        if self.joint_ratio is not None:
            whole = _joint_order(order, kept)
            visible = {"joint": ops.concatenate(list(tokens.values()), axis=1)}
            encoded = self.encode(visible)["joint_tokens"]
            return self.decoder.decode_jointly(encoded, whole, training=False)
        # A modality alone must be encoded as the decoder's input of both is.
        options = {"joint_alone": True} if self.encoder.multi_stream else {}
        encoded = self.encode(tokens, **options)
        first = next(iter(tokens))
        none = encoded[f"{first}_tokens"][:, :0]
        visible = {m: encoded.get(f"{m}_tokens", none) for m in order}
        if any("reconstruction" in x.requires for x in self.objectives):
            return self.decoder(visible, order, training=False)
        inpainting = [x for x in self.objectives if "inpainting" in x.requires]
        wanted = [m for m in order if any(m in x.modalities for x in inpainting)]
        found = self.decoder.inpaint(visible, order, wanted, training=False)
        outputs = {}
        for m in wanted:
            prediction = found[f"{m}_inpainting"]
            predicted = found[f"{m}_masked_inpainting"].shape[1]
            place = ops.arange(prediction.shape[1], dtype="int32")
            masked = place >= prediction.shape[1] - predicted
            shape = (ops.shape(prediction)[0], prediction.shape[1])
            outputs[f"{m}_is_masked"] = ops.broadcast_to(masked[None], shape)
            outputs[f"{m}_prediction"] = prediction
        return outputs

    def _masked_views(
        self,
        patches: Mapping[str, keras.KerasTensor],
        orders: Sequence[Mapping[str, keras.KerasTensor]],
        training: bool,
    ) -> dict[str, keras.KerasTensor]:
        """Encodes all views as one batch; fuses and decodes the first, or all."""
        kept = [
            {m: x[:, : self.masking(m).num_kept] for m, x in order.items()}
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
            outputs = _separate_views(outputs, whole=views == 1)
        for suffix, order in zip(VIEW_SUFFIXES, orders, strict=False):
            for m in patches:
                outputs[f"{m}_order{suffix}"] = order[m]
                outputs[f"{m}_is_masked{suffix}"] = self.masking(m).is_masked(order[m])
        if self.decoder is not None:
            outputs |= self._targets(self._target_values(patches), decoded)
        return outputs

    def _decode(
        self,
        visible: Mapping[str, keras.KerasTensor],
        order: Mapping[str, keras.KerasTensor],
        training: bool,
    ) -> dict[str, keras.KerasTensor]:
        """Joint reconstruction, inpainting or both, as the objectives require."""
        inpainting = [x for x in self.objectives if "inpainting" in x.requires]
        if not inpainting:
            return self.decoder(visible, order, training=training)
        wanted = [m for m in visible if any(m in x.modalities for x in inpainting)]
        outputs = self.decoder.inpaint(visible, order, wanted, training=training)
        if any("reconstruction" in x.requires for x in self.objectives):
            outputs |= self.decoder(visible, order, training=training)
        return outputs

    def _target_values(
        self, patches: Mapping[str, keras.KerasTensor]
    ) -> dict[str, keras.KerasTensor]:
        """Dict of modality to the targets of its tokens before normalisation."""
        if self.teacher is None:
            return patches
        outputs = self.teacher.encode(self.teacher.tokenize(patches))
        part = "tokens" if self.teacher_output == "fusion" else "unimodal_tokens"
        values = {m: ops.cast(outputs[f"{m}_{part}"], "float32") for m in patches}
        return {m: ops.stop_gradient(x) for m, x in values.items()}

    def _targets(
        self,
        values: Mapping[str, keras.KerasTensor],
        orders: Sequence[Mapping[str, keras.KerasTensor]],
    ) -> dict[str, keras.KerasTensor]:
        targets = {}
        for m, x in values.items():
            whole, mean, deviation = self._normalize_target(m, x)
            targets[f"{m}_target_mean"], targets[f"{m}_target_std"] = mean, deviation
            for suffix, order in zip(VIEW_SUFFIXES, orders, strict=False):
                targets[f"{m}_target{suffix}"] = whole
                masked = gather_tokens(x, order[m][:, self.masking(m).num_kept :])
                masked = self._normalize_target(m, masked)[0]
                targets[f"{m}_masked_target{suffix}"] = masked
        return targets

    def _normalize_target(
        self, modality: str, patches: keras.KerasTensor
    ) -> tuple[keras.KerasTensor, keras.KerasTensor, keras.KerasTensor]:
        by_channel = self.target_normalization == "patch_channels"
        if self.target_normalization is None or (by_channel and modality == "audio"):
            zeros = ops.zeros_like(patches[..., :1])
            return patches, zeros, zeros + 1.0
        unbiased = self.target_normalization == "patch"
        return standardize_patches(patches, unbiased, channels=3 if by_channel else 1)

    def assign_teacher(self, *sources: keras.Model) -> None:
        """Copies trained models' weights into the teacher; later ones win.

        Together they must have every weight: one model, or an audio-only and a
        video-only one for a teacher that does not fuse.

        Raises:
            ValueError: a weight of the teacher is in none of the sources, or has
                another shape there.
        """
        reports = [copy_matching_weights(x, self, into="teacher/") for x in sources]
        missing = set.intersection(*(set(r.missing_in_source) for r in reports))
        if missing:
            raise ValueError(
                f"The teacher needs {len(missing)} weights that none of its sources "
                f"has, such as {min(missing)}; make their settings agree."
            )

    def get_config(self) -> dict[str, Any]:
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
            "joint_ratio": self.joint_ratio,
        }


def _stack(
    views: Sequence[Mapping[str, keras.KerasTensor]],
) -> Mapping[str, keras.KerasTensor]:
    """Dicts of modality to tensor as one, the views of an example side by side."""
    if len(views) == 1:
        return views[0]
    # Not one view after the other: where devices share the batch, each would have to
    # hand half of its tokens on.
    return {
        m: ops.reshape(ops.stack([v[m] for v in views], axis=1), (-1, *x.shape[1:]))
        for m, x in views[0].items()
    }


def _joint_order(
    order: Mapping[str, keras.KerasTensor], kept: Mapping[str, int]
) -> keras.KerasTensor:
    """The order of the tokens of all modalities as one sequence, visible ones first."""
    visible, removed, start = [], [], 0
    for m, x in order.items():
        visible.append(x[:, : kept[m]] + start)
        removed.append(x[:, kept[m] :] + start)
        start += x.shape[1]
    return ops.concatenate([*visible, *removed], axis=1)


def _separate_views(
    outputs: Mapping[str, keras.KerasTensor], whole: bool
) -> dict[str, keras.KerasTensor]:
    """Outputs of two stacked views as `name` and `name_2`; all, or unimodal ones."""
    separated = dict(outputs)
    for name, x in outputs.items():
        if whole or "_unimodal_" in name or name.endswith("_embedding"):
            separated[name], separated[f"{name}_2"] = separate_views(x, 2)
    return separated
