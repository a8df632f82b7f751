"""Contrast between embeddings of paired views."""

import keras
from keras import ops

from tfavmae.objectives.base import Objective, Term, presence


def identity(x):
    return x


def info_nce(query, key, keys_valid, temperature, first_label=0):
    """InfoNCE of each query against all keys (CAV-MAE equation (7), MAViL (2)).

    Args:
        query: `(n, dim)`; its partner is row `first_label + i` of the keys.
        key: `(m, dim)`, m >= n.
        keys_valid: float `(m,)`, 0 for keys that are no candidates.
        temperature: divisor of the cosine similarities.
        first_label: index of the first query's partner.

    Returns:
        Loss and whether the partner is nearest (1 or 0), each float32 `(n,)`.
    """
    query = ops.normalize(ops.cast(query, "float32"), axis=-1, epsilon=1e-12)
    key = ops.normalize(ops.cast(key, "float32"), axis=-1, epsilon=1e-12)
    logits = ops.matmul(query, ops.transpose(key)) / temperature
    logits = ops.where(keys_valid[None, :] > 0, logits, -1e9)
    labels = ops.arange(ops.shape(query)[0], dtype="int32") + first_label
    losses = ops.sparse_categorical_crossentropy(labels, logits, from_logits=True)
    hits = ops.equal(ops.cast(ops.argmax(logits, axis=1), "int32"), labels)
    return losses, ops.cast(hits, "float32")


class Contrast(Objective):
    """Contrast of two named embeddings; see the subclasses.

    Args:
        weight: factor in the loss.
        temperature: divisor of the cosine similarities.

    Attributes:
        all_gather: maps `(n, dim)` to the rows of all replicas; by default the
            identity. `training/distribution.py` replaces it under a strategy.
    """

    requires = ("embedding",)
    couples_examples = True

    def __init__(self, weight=1.0, temperature=0.1):
        super().__init__(weight)
        if temperature <= 0:
            raise ValueError(
                f"`temperature` must be positive. Received: {temperature}."
            )
        self.temperature = temperature
        self.all_gather = identity
        self.first_row = lambda num_rows: 0

    def direction(self, query, key, valid):
        """Sums of loss and hits of valid queries against the keys of all replicas."""
        losses, hits = info_nce(
            query,
            self.all_gather(key),
            self.all_gather(valid),
            self.temperature,
            self.first_row(ops.shape(query)[0]),
        )
        return ops.sum(losses * valid), ops.sum(hits * valid)

    def get_config(self):
        return {**super().get_config(), "temperature": self.temperature}


@keras.saving.register_keras_serializable(package="tfavmae")
class InterModalContrast(Contrast):
    """Audio against video of the same clip.

    Args:
        weight: lambda_c in CAV-MAE (0.01), alpha in MAViL (0.1).
        temperature: 0.05 in CAV-MAE, 0.1 in MAViL.
        bidirectional: mean of both directions (MAViL). `False`: for each video, a
            soft-max over the audios of the batch (CAV-MAE, paper and code).
    """

    requires = ("embedding", "both_modalities")

    def __init__(self, weight=0.01, temperature=0.05, bidirectional=False):
        super().__init__(weight, temperature)
        self.bidirectional = bidirectional

    def term_names(self, modalities):
        directions = ("video_to_audio", "audio_to_video")
        return ["contrast", *(f"contrast_accuracy_{d}" for d in directions)]

    def terms(self, batch, outputs):
        audio, video = outputs["audio_embedding"], outputs["video_embedding"]
        valid = self._valid(batch, audio)
        count = ops.sum(valid)
        video_loss, video_hits = self.direction(video, audio, valid)
        audio_loss, audio_hits = self.direction(audio, video, valid)
        loss = (video_loss + audio_loss) / 2 if self.bidirectional else video_loss
        return {
            "contrast": Term(loss, count, self.weight),
            "contrast_accuracy_video_to_audio": Term(video_hits, count),
            "contrast_accuracy_audio_to_video": Term(audio_hits, count),
        }

    def counts(self, batch):
        return dict.fromkeys(self.term_names(()), ops.sum(self._valid(batch)))

    def _valid(self, batch, like=None):
        valid = presence(batch, "audio", like) * presence(batch, "video", like)
        return ops.cast(valid > 0, "float32")

    def get_config(self):
        return {**super().get_config(), "bidirectional": self.bidirectional}


@keras.saving.register_keras_serializable(package="tfavmae")
class IntraModalContrast(Contrast):
    """Two masked views of the same audio, and of the same video (MAViL equation (3)).

    Args:
        weight: beta in MAViL (0.01); each modality has an equal share of it.
        temperature: 1.0 in MAViL.
        bidirectional: mean of both directions. `False`: each first view against all
            second views, which is what the equation says.
    """

    requires = ("embedding", "second_view")

    def __init__(self, weight=0.01, temperature=1.0, bidirectional=False):
        super().__init__(weight, temperature)
        self.bidirectional = bidirectional

    def term_names(self, modalities):
        names = ("intra_contrast", "intra_contrast_accuracy")
        return [f"{name}_{m}" for m in modalities for name in names]

    def terms(self, batch, outputs):
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

    def counts(self, batch):
        counts = {}
        for m in ("audio", "video"):
            valid = ops.cast(presence(batch, m) > 0, "float32")
            counts |= dict.fromkeys(self.term_names((m,)), ops.sum(valid))
        return counts

    def get_config(self):
        return {**super().get_config(), "bidirectional": self.bidirectional}
