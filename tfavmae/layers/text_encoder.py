"""A text encoder of RoBERTa's form, KerasHub's."""

from typing import Any

import keras

from tfavmae import extras


@keras.saving.register_keras_serializable(package="tfavmae")
class TextEncoder(keras.layers.Layer):
    """RoBERTa (Liu et al., 2019): the output at the start token stands for the text.

    It carries its vocabulary, so that a saved model reads text by itself. Needs
    `keras-hub`, the extra `text`.

    Args:
        vocabulary: tokens by id, one a line.
        merges: pairs of tokens, one a line; see `tfavmae.data.text.Vocabulary`.
        hidden_dim, num_heads, mlp_dim, num_layers: of the transformer.
        num_positions: length of the position table, 512 in RoBERTa.
        max_tokens: of a text, start and end included; longer ones are cut off.
        dropout_rate: in training.

    Call arguments:
        token_ids: int `(batch, tokens)`.
        padding_mask: int `(batch, tokens)`, 0 for padding.

    Returns:
        `(batch, hidden_dim)`.

    Raises:
        ValueError: a text is to have more tokens than there are positions, or fewer
            than three.
        UserError: when built, if `keras-hub` is not installed.
    """

    def __init__(
        self,
        vocabulary: str,
        merges: str,
        hidden_dim: int = 768,
        num_heads: int = 12,
        mlp_dim: int = 3072,
        num_layers: int = 12,
        num_positions: int = 512,
        max_tokens: int = 77,
        dropout_rate: float = 0.1,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not 3 <= max_tokens <= num_positions:
            raise ValueError(
                f"`max_tokens` must be 3 to `num_positions`={num_positions}. "
                f"Received: {max_tokens}."
            )
        self.vocabulary = vocabulary
        self.merges = merges
        self.hidden_dim = hidden_dim
        self.num_heads = num_heads
        self.mlp_dim = mlp_dim
        self.num_layers = num_layers
        self.num_positions = num_positions
        self.max_tokens = max_tokens
        self.dropout_rate = dropout_rate

    def build(self, input_shape: Any = None) -> None:
        hub = extras.load("keras_hub", "text", "a text encoder")
        self.backbone = hub.models.RobertaBackbone(
            vocabulary_size=self.vocabulary.count("\n") + 1,
            num_layers=self.num_layers,
            num_heads=self.num_heads,
            hidden_dim=self.hidden_dim,
            intermediate_dim=self.mlp_dim,
            dropout=self.dropout_rate,
            max_sequence_length=self.num_positions,
            dtype=self.dtype_policy,
            name="roberta",
        )
        self.built = True

    def call(
        self,
        token_ids: keras.KerasTensor,
        padding_mask: keras.KerasTensor,
        training: bool = False,
    ) -> keras.KerasTensor:
        inputs = {"token_ids": token_ids, "padding_mask": padding_mask}
        return self.backbone(inputs, training=training)[:, 0]

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "vocabulary": self.vocabulary,
            "merges": self.merges,
            "hidden_dim": self.hidden_dim,
            "num_heads": self.num_heads,
            "mlp_dim": self.mlp_dim,
            "num_layers": self.num_layers,
            "num_positions": self.num_positions,
            "max_tokens": self.max_tokens,
            "dropout_rate": self.dropout_rate,
        }
