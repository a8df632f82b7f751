"""The section `model.text`: a text encoder."""

from dataclasses import dataclass, field

from tfavmae.model_garden import Config


@dataclass
class TextConfig(Config):
    """The text encoder of a model that is fine-tuned on `data.captions`.

    Attributes:
        preset: of KerasHub, with a `RobertaBackbone`, its weights and its vocabulary: a
            folder of `save_to_preset`, `hf://...` or `kaggle://...`; `null` starts
            afresh.
        vocabulary: folder with `vocabulary.json` and `merges.txt`, of an encoder that
            starts afresh; by default its tokens are the bytes.
        max_tokens: of a caption, start and end included; 77 in CLAP.
        dropout_rate: of the encoder, in training.
        hidden_dim, num_heads, mlp_dim, num_layers, num_positions: of an encoder that
            starts afresh; by default those of RoBERTa-base.
    """

    preset: str | None = None
    vocabulary: str | None = None
    max_tokens: int = field(default=77, metadata={"minimum": 3, "maximum": 512})
    dropout_rate: float = field(default=0.1, metadata={"minimum": 0.0, "below": 1.0})
    hidden_dim: int | None = field(default=None, metadata={"minimum": 1})
    num_heads: int | None = field(default=None, metadata={"minimum": 1})
    mlp_dim: int | None = field(default=None, metadata={"minimum": 1})
    num_layers: int | None = field(default=None, metadata={"minimum": 1})
    num_positions: int | None = field(default=None, metadata={"minimum": 3})
