"""Workers' answers and kept clips are plain data: a hostile one is refused, not run."""

import contextlib
import dataclasses
import io
import json
import os
import pickle
import struct
import zlib

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from tfavmae.building import decoding, messages
from tfavmae.building.clip_cache import PreparedClips
from tfavmae.building.messages import BadMessage, pack, typed, unpack
from tfavmae.building.worker_pool import WorkerPool
from tfavmae.media.decode import Clip

CLIP = Clip(np.arange(-3, 4, dtype=np.int16), [b"\xff\xd8", b""], 8.0, 1.5)

plain_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(max_size=40),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@hypothesis.given(plain_values)
def test_plain_values_come_back(value):
    assert unpack(pack(value)) == value


@pytest.mark.parametrize("dtype", ["int16", ">i2", "uint8", "bool", "float32", "<f8"])
@pytest.mark.parametrize("shape", [(), (0,), (7,), (2, 0, 3), (2, 3)])
def test_arrays_come_back(dtype, shape):
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)
    found = unpack(pack({"a": [array.T, array]}))["a"]
    np.testing.assert_array_equal(found[0], array.T)
    np.testing.assert_array_equal(found[1], array)
    assert found[1].shape == shape and found[1].dtype == np.dtype(dtype).newbyteorder(
        "<"
    )


def test_a_clip_comes_back():
    found = typed(Clip, unpack(pack(CLIP)))
    np.testing.assert_array_equal(found.audio, CLIP.audio)
    assert found.audio.dtype == np.int16 and found.audio.flags.writeable
    fields = ("frames", "frame_rate", "duration_seconds")
    assert all(getattr(found, name) == getattr(CLIP, name) for name in fields)


@pytest.mark.parametrize(
    "value", [object(), {1: 2}, np.array([object()]), np.array(["a"]), {1, 2}, len]
)
def test_other_values_are_an_error_of_the_program(value):
    with pytest.raises(TypeError):
        pack([value])


def message_of(tree, parts=b"", claims=None):
    text = json.dumps(tree).encode()
    claims = len(parts) if claims is None else claims
    return struct.pack("<QQ", len(text), claims) + text + parts


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\x80\x05K\x01.",
        pickle.dumps(CLIP),
        message_of(1)[:-1],
        message_of(1) + b"x",
        message_of({"bytes": 4}, b"abc"),
        message_of({"bytes": -1}, b"abc"),
        message_of({"bytes": 1.0}, b"a"),
        message_of({"bytes": 2}, b"abc"),
        message_of({"array": ["|O", [1]]}, bytes(8)),
        message_of({"array": ["<i2", [-1]]}, bytes(8)),
        message_of({"array": ["<i2", [2**40, 2**40]]}, bytes(8)),
        message_of({"array": ["<i2", 4]}, bytes(8)),
        message_of({"array": ["V8", [1]]}, bytes(8)),
        message_of({"call": ["os", "system"]}),
        message_of({"dict": [1]}),
        message_of({}),
        message_of({"dict": {}, "bytes": 0}),
        struct.pack("<QQ", 100_000, 0) + b"[" * 100_000,
        struct.pack("<QQ", 5000, 0) + b"9" * 5000,
        struct.pack("<QQ", 2**63, 2**63),
    ],
)
def test_what_is_no_message_is_refused(message):
    with pytest.raises(BadMessage):
        unpack(message)


@hypothesis.given(st.data())
def test_damaged_messages_are_refused_or_plain(data):
    message = bytearray(pack({"clip": CLIP, "more": [1, 2.5, "text", None]}))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(message) - 1))
        message[place] = data.draw(st.integers(0, 255))
    with contextlib.suppress(BadMessage):
        typed(Clip, unpack(message))


def test_a_message_without_end_is_not_waited_for():
    for sizes in ((2**29, 1), (2**63, 2**63)):
        with pytest.raises(BadMessage, match="more than 512 MiB"):
            messages.read(io.BufferedReader(io.BytesIO(struct.pack("<QQ", *sizes))))
    with pytest.raises(EOFError):
        messages.read(io.BufferedReader(io.BytesIO(pack([1, 2])[:-1])))


@dataclasses.dataclass(frozen=True)
class Told:
    number: float
    names: tuple[str, ...]
    count: int | None


def test_types_are_those_of_the_reader():
    good = {"number": 1, "names": ["a"], "count": None}
    told = typed(Told, good)
    assert told == Told(1.0, ("a",), None) and type(told.number) is float
    for change in (
        {"number": float("nan")},
        {"number": float("inf")},
        {"number": 10**400},
        {"number": True},
        {"number": "1"},
        {"names": "a"},
        {"names": [1]},
        {"count": 1.0},
        {"count": True},
        {"more": 1},
    ):
        with pytest.raises(BadMessage):
            typed(Told, good | change)
    with pytest.raises(BadMessage):
        typed(Told, [1.0, ["a"], None])
    for audio in (np.zeros(3, np.float32), np.zeros((2, 2), np.int16), b"", [1]):
        with pytest.raises(BadMessage):
            typed(Clip, {**vars(CLIP), "audio": audio})


def test_a_reason_is_one_printable_line():
    assert messages.one_line("a\nb\x1b[31m\u2028c\x85d\x00 e") == "a b [31m c d e"


# --- Hostile files and workers ---


class Bomb:
    """A pickle that runs a command when it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def record(content: bytes) -> bytes:
    """A record of a file of kept clips, with the checksum that it should have."""
    return struct.pack("<QL", len(content), zlib.crc32(content)) + content


@pytest.mark.parametrize("kind", ["pickle", "other outcome", "other clip", "text"])
def test_a_planted_file_of_kept_clips_is_not_believed(tmp_path, kind):
    proof = tmp_path / "proof"
    outcome = {"value": None, "reason": None, "is_past_end": False}
    content = {
        "pickle": pickle.dumps(("0", Bomb(proof))),
        "other outcome": pack(["0", [CLIP, None]]),
        "other clip": pack(["0", {**outcome, "value": {"audio": b"x"}}]),
        "text": b"import os",
    }[kind]
    path = tmp_path / "rows.clips"
    path.write_bytes(record(content))
    rows = [decoding.Row(str(i), "one.mp4") for i in range(3)]
    decoded = decoding.decode_rows(
        rows,
        num_workers=1,
        prepared=PreparedClips(path, Clip),
        function="pretended_media:decode",
    )
    assert [key for key, _ in decoded] == ["0", "1", "2"]
    assert decoded.num_taken_over == 0 and not proof.exists()
    assert not path.read_bytes().startswith(record(content))


@pytest.mark.parametrize(
    "kind, reason",
    [
        ("pickle", "the decoder gave a wrong answer: "),
        ("endless", "the decoder gave a wrong answer: holds more than 512 MiB"),
        ("other value", "the decoder gave a wrong answer: it is not a Clip"),
        ("other reason", "the decoder gave a wrong answer: "),
        ("float audio", "the decoder gave a wrong answer: `audio` must be int16"),
        ("escapes", "RuntimeError: two lines [31m"),
        ("silent end", "the decoder ended by itself (exit status 0)"),
    ],
)
def test_a_hostile_worker_costs_only_its_item(tmp_path, kind, reason):
    proof = tmp_path / "proof"
    with WorkerPool(1) as pool:
        items = [["good", ""], [kind, str(proof)], ["good", ""]]
        outcomes = list(pool.map("hostile_worker:answer", items, Clip))
    assert [outcome.reason is None for outcome in outcomes] == [True, False, True]
    assert outcomes[1].reason.startswith(reason) and outcomes[1].value is None
    assert outcomes[1].reason.isprintable() and not proof.exists()
