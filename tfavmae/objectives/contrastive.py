"""Contrastive objectives on the embeddings of paired views."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import KerasTensor, ops

from tfavmae.objectives.base import Objective, Term, presence


def identity(x: KerasTensor) -> KerasTensor:
    """The `all_gather` of a single replica."""
    return x


def info_nce(
    query: KerasTensor,
    key: KerasTensor,
    keys_valid: KerasTensor,
    temperature: float,
    first_label: KerasTensor | int = 0,
) -> tuple[KerasTensor, KerasTensor]:
    """InfoNCE of each query against all keys (CAV-MAE equation (7), MAViL (2)).

    Args:
        query: `(..., n, dim)`; the partner of row i is row `first_label + i` of the
            keys.
        key: `(..., m, dim)`, m >= n.
        keys_valid: float `(..., m)`, 0 for keys that are no candidates.
        temperature: divisor of the cosine similarities.
        first_label: row of the first query's partner.

    Returns:
        Losses in nats, and hits: 1 where the partner is the nearest key, else 0; both
        float32 `(..., n)`.
    """
    # float32 whatever the policy: cosines over a temperature of 0.05 reach 20, where
    # bfloat16, with its 8 significant bits, has steps of 0.125.
    query = ops.normalize(ops.cast(query, "float32"), axis=-1, epsilon=1e-12)
    key = ops.normalize(ops.cast(key, "float32"), axis=-1, epsilon=1e-12)
    logits = ops.matmul(query, ops.swapaxes(key, -1, -2)) / temperature
    # Not minus infinity: of a batch without any valid key, the softmax would be NaN,
    # and NaN times a weight of 0 stays NaN.
    logits = ops.where(keys_valid[..., None, :] > 0, logits, -1e9)
    labels = ops.arange(ops.shape(query)[-2], dtype="int32") + first_label
    labels = ops.broadcast_to(labels, ops.shape(query)[:-1])
    losses = ops.sparse_categorical_crossentropy(labels, logits, from_logits=True)
    hits = ops.equal(ops.cast(ops.argmax(logits, axis=-1), "int32"), labels)
    return losses, ops.cast(hits, "float32")


class Contrast(Objective):
    """Base of the contrastive objectives.

    Args:
        weight: factor in the loss.
        temperature: divisor of the cosine similarities.

    Attributes:
        all_gather: maps `(n, ...)` to the rows of all replicas, `(replicas * n, ...)`;
            by default the identity. `training/distribution.py` replaces it under a
            strategy.
        first_row: maps the number of rows per replica to the first row of this replica
            among the gathered ones; replaced together with `all_gather`.
        num_parts: equal parts of the batch, each of which is compared by itself. More
            than 1 where a tensor spans several devices (JAX) and each keeps to its own
            clips.

    Raises:
        ValueError: the temperature is not positive.
    """

    requires: tuple[str, ...] = ("embedding",)
    couples_examples = True

    def __init__(self, weight: float = 1.0, temperature: float = 0.1) -> None:
        super().__init__(weight)
        if temperature <= 0:
            raise ValueError(
                f"`temperature` must be positive. Received: {temperature}."
            )
        self.temperature = temperature
        # Attributes and no arguments: they belong to the replicas of a run and must not
        # end up in a saved config.
        self.all_gather: Callable[[KerasTensor], KerasTensor] = identity
        self.first_row: Callable[[Any], KerasTensor | int] = lambda num_rows: 0
        self.num_parts = 1

    def direction(
        self, query: KerasTensor, key: KerasTensor, valid: KerasTensor
    ) -> tuple[KerasTensor, KerasTensor]:
        """Sums of loss and hits of this replica's queries against all replicas' keys.

        Args:
            query, key: `(n, dim)`, this replica's.
            valid: float `(n,)`, 0 for examples that do not take part.
        """
        if self.num_parts > 1:
            query, key, valid = (
                ops.reshape(x, (self.num_parts, -1, *x.shape[1:]))
                for x in (query, key, valid)
            )
        losses, hits = info_nce(
            query,
            self.all_gather(key),
            self.all_gather(valid),
            self.temperature,
            self.first_row(ops.shape(query)[-2]),
        )
        return ops.sum(losses * valid), ops.sum(hits * valid)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "temperature": self.temperature}


@keras.saving.register_keras_serializable(package="tfavmae")
class InterModalContrast(Contrast):
    """Audio against video of the same clip (CAV-MAE equation (7), MAViL equation (2)).

    Reads `audio_embedding` and `video_embedding` `(batch, dim)`. Terms: `contrast`, and
    the accuracy of both directions. Clips that lack a modality do not take part.

    Args:
        weight: lambda_c in CAV-MAE (0.01), alpha in MAViL (0.1).
        temperature: 0.05 in CAV-MAE, 0.1 in MAViL.
        bidirectional: mean of both directions (MAViL). `False`: only that of each video
            against the audio of the batch (CAV-MAE, paper and code).
    """

    requires = ("embedding", "both_modalities")

    def __init__(
        self,
        weight: float = 0.01,
        temperature: float = 0.05,
        bidirectional: bool = False,
    ) -> None:
        super().__init__(weight, temperature)
        self.bidirectional = bidirectional

    def term_names(self, modalities: Sequence[str]) -> list[str]:
        directions = ("video_to_audio", "audio_to_video")
        return ["contrast", *(f"contrast_accuracy_{d}" for d in directions)]

    def terms(
        self, batch: dict[str, KerasTensor], outputs: dict[str, KerasTensor]
    ) -> dict[str, Term]:
        audio, video = outputs["audio_embedding"], outputs["video_embedding"]
        valid = self._valid(batch, audio)
        count = ops.sum(valid)
        # Both directions, even if one trains: the accuracy of both is reported.
        video_loss, video_hits = self.direction(video, audio, valid)
        audio_loss, audio_hits = self.direction(audio, video, valid)
        loss = (video_loss + audio_loss) / 2 if self.bidirectional else video_loss
        return {
            "contrast": Term(loss, count, self.weight),
            "contrast_accuracy_video_to_audio": Term(video_hits, count),
            "contrast_accuracy_audio_to_video": Term(audio_hits, count),
        }

    def counts(self, batch: dict[str, KerasTensor]) -> dict[str, KerasTensor]:
        return dict.fromkeys(self.term_names(()), ops.sum(self._valid(batch)))

    def _valid(
        self, batch: dict[str, KerasTensor], like: KerasTensor | None = None
    ) -> KerasTensor:
        """float32 `(batch,)`: 1 for examples with both modalities, else 0."""
        valid = presence(batch, "audio", like) * presence(batch, "video", like)
        return ops.cast(valid > 0, "float32")

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "bidirectional": self.bidirectional}


@keras.saving.register_keras_serializable(package="tfavmae")
class IntraModalContrast(Contrast):
    """Two masked views of the same audio, and of the same video (MAViL equation (3)).

    Reads `{modality}_embedding` and `{modality}_embedding_2` `(batch, dim)`. Terms:
    `intra_contrast` and its accuracy, per modality.

    Args:
        weight: beta in MAViL (0.01); each modality gets an equal share of it.
        temperature: 1.0 in MAViL.
        bidirectional: mean of both directions. `False`: only that of each first view
            against all second views, as the equation says.
    """

    requires = ("embedding", "second_view")

    def __init__(
        self,
        weight: float = 0.01,
        temperature: float = 1.0,
        bidirectional: bool = False,
    ) -> None:
        super().__init__(weight, temperature)
        self.bidirectional = bidirectional

    def term_names(self, modalities: Sequence[str]) -> list[str]:
        names = ("intra_contrast", "intra_contrast_accuracy")
        return [f"{name}_{m}" for m in modalities for name in names]

    def terms(
        self, batch: dict[str, KerasTensor], outputs: dict[str, KerasTensor]
    ) -> dict[str, Term]:
        terms = {}
        modalities = [m for m in ("audio", "video") if f"{m}_embedding_2" in outputs]
        for m in modalities:
            view, other = outputs[f"{m}_embedding"], outputs[f"{m}_embedding_2"]
            valid = ops.cast(presence(batch, m, view) > 0, "float32")
            count = ops.sum(valid)
            loss, hits = self.direction(view, other, valid)
            if self.bidirectional:
                loss = (loss + self.direction(other, view, valid)[0]) / 2
            share = self.weight / len(modalities)
            terms[f"intra_contrast_{m}"] = Term(loss, count, share)
            terms[f"intra_contrast_accuracy_{m}"] = Term(hits, count)
        return terms

    def counts(self, batch: dict[str, KerasTensor]) -> dict[str, KerasTensor]:
        counts: dict[str, KerasTensor] = {}
        for m in ("audio", "video"):
            valid = ops.cast(presence(batch, m) > 0, "float32")
            counts |= dict.fromkeys(self.term_names((m,)), ops.sum(valid))
        return counts

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "bidirectional": self.bidirectional}
