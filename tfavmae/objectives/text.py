"""Contrast of audio and video with text."""

from collections.abc import Sequence

import keras
from keras import KerasTensor, ops

from tfavmae.objectives.base import Term, presence
from tfavmae.objectives.contrastive import Contrast


@keras.saving.register_keras_serializable(package="tfavmae")
class TextContrast(Contrast):
    """Text against each modality of the same clip (MAViL, equation (2) and C.4).

    Reads `text_embedding` and `{modality}_embedding` `(batch, dim)`. Terms, per
    modality: `text_contrast`, the mean of both directions, and the accuracy of either.
    Clips without the modality or a caption do not take part.

    Args:
        weight: factor in the loss; each modality gets an equal share of it.
        temperature: 0.1 in MAViL's inter-modal contrast.
    """

    def term_names(self, modalities: Sequence[str]) -> list[str]:
        return [
            name
            for m in modalities
            for name in (
                f"text_contrast_{m}",
                f"text_contrast_accuracy_text_to_{m}",
                f"text_contrast_accuracy_{m}_to_text",
            )
        ]

    def terms(
        self, batch: dict[str, KerasTensor], outputs: dict[str, KerasTensor]
    ) -> dict[str, Term]:
        text, terms = outputs["text_embedding"], {}
        modalities = [m for m in ("audio", "video") if f"{m}_embedding" in outputs]
        for m in modalities:
            other = outputs[f"{m}_embedding"]
            valid = self._valid(batch, m, text)
            count = ops.sum(valid)
            text_loss, text_hits = self.direction(text, other, valid)
            other_loss, other_hits = self.direction(other, text, valid)
            values = (
                Term(
                    (text_loss + other_loss) / 2, count, self.weight / len(modalities)
                ),
                Term(text_hits, count),
                Term(other_hits, count),
            )
            terms |= dict(zip(self.term_names((m,)), values, strict=True))
        return terms

    def counts(self, batch: dict[str, KerasTensor]) -> dict[str, KerasTensor]:
        counts: dict[str, KerasTensor] = {}
        for m in ("audio", "video"):
            count = ops.sum(self._valid(batch, m))
            counts |= dict.fromkeys(self.term_names((m,)), count)
        return counts

    def _valid(
        self,
        batch: dict[str, KerasTensor],
        modality: str,
        like: KerasTensor | None = None,
    ) -> KerasTensor:
        """float32 `(batch,)`: 1 for examples with the modality and text, else 0."""
        valid = presence(batch, modality, like) * presence(batch, "text", like)
        return ops.cast(valid > 0, "float32")
