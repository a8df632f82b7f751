"""Captions as tokens: vocabularies of RoBERTa's form, and the text of a data set.

Strings cannot be in a batch under a strategy: a caption becomes a row of token ids in
the pipeline, on the host.
"""

import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from tfavmae import extras
from tfavmae.data.index import RecordReader, naming_damage
from tfavmae.data.splits import Split
from tfavmae.errors import UserError, shown

VOCABULARY, MERGES = "vocabulary.json", "merges.txt"
# RoBERTa's special tokens, and their ids there.
START, PADDING, END, UNKNOWN, MASK = "<s>", "<pad>", "</s>", "<unk>", "<mask>"
SPECIAL = (START, PADDING, END, UNKNOWN, MASK)
_NEEDED = (START, PADDING, END, MASK)


def _byte_symbols() -> tuple[str, ...]:
    """The character that stands for each byte in a byte-level vocabulary.

    Printable ones stand for themselves, the others for those from U+0100 on (Radford et
    al., 2019, section 2.2).
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in printable]
    symbols = {b: chr(b) for b in printable}
    symbols |= {b: chr(0x100 + i) for i, b in enumerate(others)}
    return tuple(symbols[b] for b in range(256))


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """A byte-level vocabulary with merges, as RoBERTa's.

    Attributes:
        tokens: by id.
        merges: pairs of tokens with a space between, the first to be merged first.

    Raises:
        ValueError: a special token or a byte is missing, or a merge is of or into what
            is no token.
    """

    tokens: tuple[str, ...]
    merges: tuple[str, ...]

    def __post_init__(self) -> None:
        known = set(self.tokens)
        if len(known) != len(self.tokens):
            raise ValueError("a token occurs twice")
        # Without the byte, a word that has it would become an id that is no token's.
        missing = [x for x in (*_NEEDED, *_byte_symbols()) if x not in known]
        if missing:
            raise ValueError(f"lacks {len(missing)} tokens, such as {missing[0]!r}")
        if not self.merges:
            raise ValueError("has no merges")
        for merge in self.merges:
            pair = merge.split(" ")
            if len(pair) != 2 or not {*pair, "".join(pair)} <= known:
                raise ValueError(f"the merge {shown(merge)} is not of tokens")

    @classmethod
    def read(cls, folder: str | pathlib.Path) -> "Vocabulary":
        """Reads `vocabulary.json` and `merges.txt` of a folder.

        Args:
            folder: with the two files, or a preset of KerasHub that has them in
                `assets/tokenizer`.

        Raises:
            UserError: they are missing or damaged.
        """
        folder = pathlib.Path(folder).expanduser()
        inner = folder / "assets" / "tokenizer"
        folder = inner if inner.is_dir() else folder
        try:
            ids = json.loads((folder / VOCABULARY).read_text(encoding="utf-8"))
            lines = (folder / MERGES).read_text(encoding="utf-8").splitlines()
            if not isinstance(ids, dict) or sorted(ids.values()) != [*range(len(ids))]:
                raise ValueError("the ids do not count from 0 without a gap")
            merges = [x for x in lines if x and not x.startswith("#version")]
            return cls(tuple(sorted(ids, key=ids.__getitem__)), tuple(merges))
        except FileNotFoundError as error:
            raise UserError(
                f"{folder}: must hold {VOCABULARY} and {MERGES}, as a preset of "
                "KerasHub does"
            ) from error
        except (OSError, ValueError, TypeError) as error:
            raise UserError(f"{folder}: no vocabulary of RoBERTa: {error}") from error

    @classmethod
    def byte_level(cls) -> "Vocabulary":
        """The special tokens and the bytes, for a text encoder that starts afresh."""
        # KerasHub makes no tokenizer without any merge (0.32).
        space = _byte_symbols()[ord(" ")]
        return cls((*SPECIAL, *_byte_symbols(), f"{space}a"), (f"{space} a",))

    # No token holds a line feed: its byte has another symbol.

    def to_text(self) -> tuple[str, str]:
        """Tokens and merges, one a line."""
        return "\n".join(self.tokens), "\n".join(self.merges)

    @classmethod
    def of_text(cls, tokens: str, merges: str) -> "Vocabulary":
        """The inverse of `to_text`."""
        return cls(tuple(tokens.split("\n")), tuple(merges.split("\n")))


class Tokenizer:
    """Turns texts into rows of token ids: start, the text, end, padding.

    Args:
        vocabulary: of the tokens.
        max_tokens: length of a row; a longer text is cut off, and still has its end.

    Raises:
        UserError: `keras-hub` is not installed.
    """

    def __init__(self, vocabulary: Vocabulary, max_tokens: int) -> None:
        hub = extras.load("keras_hub", "text", "text")
        ids = {token: i for i, token in enumerate(vocabulary.tokens)}
        self.max_tokens = max_tokens
        self._split = hub.tokenizers.RobertaTokenizer(
            vocabulary=ids, merges=list(vocabulary.merges)
        )
        self._start, self._padding, self._end = (ids[x] for x in (START, PADDING, END))
        # As a graph: KerasHub splits numbers otherwise outside of one (0.32).
        text = tf.TensorSpec([None], tf.string)
        self._encode = tf.function(self._rows, input_signature=[text])

    def __call__(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
        """Tokens of texts.

        Returns:
            `text_ids` and `text_mask`, 1 for tokens and 0 for padding; both int32
            `(texts, max_tokens)`.
        """
        rows = self._encode(tf.constant(list(texts), tf.string, [len(texts)]))
        return {name: values.numpy() for name, values in rows.items()}

    def in_graph(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
        """The same of one text, a string scalar, in a pipeline."""
        return {name: row[0] for name, row in self._encode(text[None]).items()}

    def _rows(self, texts: tf.Tensor) -> dict[str, tf.Tensor]:
        words = self._split(texts)[:, : self.max_tokens - 2]
        count = tf.shape(texts)[0]
        start, end = (tf.fill([count, 1], x) for x in (self._start, self._end))
        words = tf.concat([start, tf.cast(words, tf.int32), end], axis=1)
        shape = [None, self.max_tokens]
        return {
            "text_ids": words.to_tensor(self._padding, shape=shape),
            "text_mask": tf.ones_like(words).to_tensor(0, shape=shape),
        }


@dataclasses.dataclass(frozen=True)
class CaptionSpec:
    """Which captions of a clip become text, and how.

    Args:
        feature: of the data set: a text, or several, of which training draws one and
            evaluation takes the first.
        tokenizer: of the model.
    """

    feature: str
    tokenizer: Tokenizer

    def cut(
        self, example: Mapping[str, tf.Tensor], key: tf.Tensor, train: bool
    ) -> dict[str, Any]:
        """The caption of a clip in a batch.

        Args:
            example: parsed, with the feature.
            key: int64 `(2,)`, seed of the draw.
            train: whether one is drawn.

        Returns:
            `text_ids`, `text_mask` int32 `(max_tokens,)`; `text_present` float32, 0
            where the clip has no caption.
        """
        captions = _texts(example[self.feature])
        count = tf.size(captions)
        last = tf.maximum(count, 1)
        chosen = tf.constant(0)
        if train:
            chosen = tf.random.stateless_uniform([], key, 0, last, tf.int32)
        caption = tf.concat([captions, [""]], axis=0)[chosen]
        present = tf.cast(count > 0, tf.float32)
        return {**self.tokenizer.in_graph(caption), "text_present": present}


def check_captions(split: Split, feature: str) -> None:
    """Checks that a feature of a data set is text.

    Raises:
        UserError: it is not; names those that are.
    """
    found = sorted(
        name
        for name, x in split.info.features.items()
        if isinstance(getattr(x, "feature", x), tfds.features.Text) and name != "id"
    )
    if feature not in found:
        raise UserError(
            f"{split.info.data_dir}: has no captions {feature!r}; texts that it has: "
            f"{', '.join(found) or 'none'}"
        )


def captions_of(
    split: Split, feature: str, rows: Sequence[int] | np.ndarray
) -> list[list[str]]:
    """All captions of each clip, without empty ones.

    Args:
        split: clips.
        feature: a text of the data set, or several a clip.
        rows: of the split.

    Raises:
        UserError: there is no such text, or a file is damaged.
    """
    check_captions(split, feature)
    specs = {feature: split.info.features.tf_example_spec[feature]}
    reader = RecordReader(split.index)

    def read(row: tf.Tensor) -> tf.Tensor:
        return _texts(tf.io.parse_single_example(reader.read(row), specs)[feature])

    found = tf.data.Dataset.from_tensor_slices(np.asarray(rows, "int64")).map(
        read, tf.data.AUTOTUNE, deterministic=True
    )
    with naming_damage():
        return [
            [x.decode("utf-8", "replace") for x in texts.tolist()]
            for texts in found.as_numpy_iterator()
        ]


def _texts(feature: tf.Tensor) -> tf.Tensor:
    """The texts of a parsed feature as string `(texts,)`, without empty ones."""
    texts = tf.reshape(feature, [-1])
    return tf.boolean_mask(texts, tf.strings.length(tf.strings.strip(texts)) > 0)
