"""A reader of pickles that can call nothing.

Python's own reader imports what a pickle names and calls it. This one knows a list of
names, each with a function of ours that makes plain values of the arguments.
"""

import struct
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, NamedTuple, NoReturn

from tfavmae.errors import shown

# About 40 make a tensor; each makes an object of at most some hundred bytes.
MAX_OPERATIONS = 4_000_000
_MAX_LINE = 10_000
_MAX_NUMBER = 256  # bytes


class Named(NamedTuple):
    """A class or function that a pickle names.

    Attributes:
        name: with its module.
    """

    name: str


class Blank(dict):
    """The attributes of an object, which `BUILD` fills in."""


Calls = Mapping[str, Callable[..., Any] | None]

_MARK = Named("a mark")


def load(file: BinaryIO, calls: Calls, storage: Callable[[Any], Any]) -> Any:
    """The value of one pickle; the file stands behind it afterwards.

    Args:
        file: that holds the pickle.
        calls: dict of `module.name` to the function that stands in for it, or `None`
            where it is a value.
        storage: makes the value of a persistent id.

    Raises:
        ValueError: it is damaged, or names anything else.
    """
    return _Machine(file, calls, storage).run()


class _Machine:
    def __init__(
        self, file: BinaryIO, calls: Calls, storage: Callable[[Any], Any]
    ) -> None:
        self._file = file
        self._calls = calls
        self._storage = storage
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def run(self) -> Any:
        for _ in range(MAX_OPERATIONS):
            code = self._bytes(1)
            if code == b".":
                return self._pop()
            operation = _OPERATIONS.get(code)
            if operation is None:
                raise ValueError(f"its pickle has the unknown operation {code!r}")
            operation(self)
        raise ValueError(f"its pickle has more than {MAX_OPERATIONS} operations")

    def _bytes(self, count: int) -> bytes:
        content = b""
        # In parts: a stated length is believed as far as there is content.
        while len(content) < count:
            part = self._file.read(min(count - len(content), 1 << 20))
            if not part:
                raise ValueError("its pickle ends too early")
            content = content + part if content else part
        return content

    def _line(self) -> str:
        line = self._file.readline(_MAX_LINE)
        if not line.endswith(b"\n"):
            raise ValueError("its pickle ends too early")
        return line[:-1].decode("utf-8")

    def _size(self, form: str) -> int:
        return struct.unpack(form, self._bytes(struct.calcsize(form)))[0]

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _pop(self) -> Any:
        value = self._stack.pop()
        if value is _MARK:
            raise ValueError("its pickle has a mark in place of a value")
        return value

    def _top(self, kind: type) -> Any:
        value = self._stack[-1]
        if not isinstance(value, kind):
            raise ValueError(f"its pickle adds to {shown(value)}")
        return value

    def _marked(self) -> list[Any]:
        """All above the last mark, which goes as well."""
        for i in range(len(self._stack) - 1, -1, -1):
            if self._stack[i] is _MARK:
                values = self._stack[i + 1 :]
                del self._stack[i:]
                return values
        raise ValueError("its pickle has no mark")

    def _take(self, count: int) -> tuple[Any, ...]:
        return tuple(reversed([self._pop() for _ in range(count)]))

    def _number(self, count: int) -> None:
        if not 0 <= count <= _MAX_NUMBER:
            raise ValueError(f"its pickle has a number of {count} bytes")
        self._push(int.from_bytes(self._bytes(count), "little", signed=True))

    def _int_line(self) -> None:
        line = self._line()
        truths = {"00": False, "01": True}
        self._push(truths[line] if line in truths else int(line.removesuffix("L")))

    def _text(self, form: str, encoding: str = "utf-8") -> None:
        # `surrogatepass`, as pickle writes them.
        self._push(self._bytes(self._size(form)).decode(encoding, "surrogatepass"))

    def _quoted(self) -> None:
        line = self._line()
        if len(line) < 2 or line[0] != line[-1] or line[0] not in "'\"" or "\\" in line:
            raise ValueError("its pickle has a string with escapes")
        self._push(line[1:-1])

    def _list(self, values: list[Any]) -> None:
        self._top(list).extend(values)

    def _items(self, values: list[Any]) -> None:
        target = self._top(dict)
        if len(values) % 2:
            raise ValueError("its pickle has a key without a value")
        add_items(target, zip(values[::2], values[1::2], strict=True))

    def _dict(self) -> None:
        values = self._marked()
        self._push({})
        self._items(values)

    def _named(self, name: str) -> None:
        if name not in self._calls:
            raise refused(name)
        self._push(Named(name))

    def _inst(self) -> None:
        raise refused(f"{self._line()}.{self._line()}")

    def _stack_global(self) -> None:
        module, name = self._take(2)
        if not isinstance(module, str) or not isinstance(name, str):
            raise ValueError("its pickle names something by no string")
        self._named(f"{module}.{name}")

    def _call(self) -> None:
        function, arguments = self._take(2)
        if not isinstance(function, Named) or not isinstance(arguments, tuple):
            raise ValueError(f"its pickle calls {shown(function)}")
        call = self._calls[function.name]
        if call is None:
            raise refused(function.name)
        try:
            self._push(call(*arguments))
        except TypeError as error:
            raise ValueError(f"its pickle misuses {function.name}") from error

    def _build(self) -> None:
        state = self._pop()
        target = self._stack[-1]
        if isinstance(target, Blank) and isinstance(state, dict):
            target.update(state)
        elif not isinstance(target, dict | Dtype | Array):
            raise ValueError(f"its pickle sets the state of {shown(target)}")
        # The state of a dict is what PyTorch notes of versions of modules.

    def _put(self, key: int) -> None:
        self._memo[key] = self._stack[-1]

    def _get(self, key: int) -> None:
        self._push(self._memo[key])


class Dtype(NamedTuple):
    """A NumPy dtype, whose state says no more of plain numbers."""

    name: str


class Array(NamedTuple):
    """A NumPy array, such as a random state, which is left out."""

    name: str = "numpy.ndarray"


def refused(name: str) -> ValueError:
    """The error for a class or function that is not read."""
    return ValueError(
        f"it names {shown(name)}, and only tensors and plain values are read; save the "
        "model's state_dict() alone"
    )


def add_items(target: dict, items: Any) -> None:
    """Sets items whose keys are plain.

    Raises:
        ValueError: a key is a container, which could take forever to hash.
    """
    for key, value in items:
        if not isinstance(key, str | int | float | None):
            raise ValueError(f"a dict has the key {shown(key)}")
        target[key] = value


def _no(name: str) -> Callable[[_Machine], NoReturn]:
    def operation(machine: _Machine) -> NoReturn:
        raise ValueError(f"its pickle has the operation {name}, which is not read")

    return operation


_OPERATIONS: dict[bytes, Callable[[Any], Any]] = {
    b"\x80": lambda m: m._bytes(1),
    b"\x95": lambda m: m._bytes(8),
    b"(": lambda m: m._push(_MARK),
    b"0": lambda m: m._stack.pop(),
    b"1": lambda m: m._marked(),
    b"2": lambda m: m._push(m._stack[-1]),
    b"N": lambda m: m._push(None),
    b"\x88": lambda m: m._push(True),
    b"\x89": lambda m: m._push(False),
    b"I": lambda m: m._int_line(),
    b"L": lambda m: m._int_line(),
    b"J": lambda m: m._push(m._size("<i")),
    b"K": lambda m: m._push(m._size("<B")),
    b"M": lambda m: m._push(m._size("<H")),
    b"\x8a": lambda m: m._number(m._size("<B")),
    b"\x8b": lambda m: m._number(m._size("<i")),
    b"F": lambda m: m._push(float(m._line())),
    b"G": lambda m: m._push(m._size(">d")),
    b"S": lambda m: m._quoted(),
    # Strings of Python 2, in which NumPy's scalars are bytes.
    b"T": lambda m: m._text("<I", "latin-1"),
    b"U": lambda m: m._text("<B", "latin-1"),
    b"V": lambda m: m._push(m._line()),
    b"X": lambda m: m._text("<I"),
    b"\x8c": lambda m: m._text("<B"),
    b"\x8d": lambda m: m._text("<Q"),
    b"B": lambda m: m._push(m._bytes(m._size("<I"))),
    b"C": lambda m: m._push(m._bytes(m._size("<B"))),
    b"\x96": lambda m: m._push(m._bytes(m._size("<Q"))),
    b"\x8e": lambda m: m._push(m._bytes(m._size("<Q"))),
    b"]": lambda m: m._push([]),
    b"}": lambda m: m._push({}),
    b")": lambda m: m._push(()),
    b"\x8f": lambda m: m._push([]),  # a set, whose order says nothing
    b"l": lambda m: m._push(m._marked()),
    b"d": lambda m: m._dict(),
    b"t": lambda m: m._push(tuple(m._marked())),
    b"\x85": lambda m: m._push(m._take(1)),
    b"\x86": lambda m: m._push(m._take(2)),
    b"\x87": lambda m: m._push(m._take(3)),
    b"a": lambda m: m._list([m._pop()]),
    b"e": lambda m: m._list(m._marked()),
    b"\x90": lambda m: m._list(m._marked()),
    b"s": lambda m: m._items(list(m._take(2))),
    b"u": lambda m: m._items(m._marked()),
    b"g": lambda m: m._get(int(m._line())),
    b"h": lambda m: m._get(m._size("<B")),
    b"j": lambda m: m._get(m._size("<I")),
    b"p": lambda m: m._put(int(m._line())),
    b"q": lambda m: m._put(m._size("<B")),
    b"r": lambda m: m._put(m._size("<I")),
    b"\x94": lambda m: m._put(len(m._memo)),
    b"c": lambda m: m._named(f"{m._line()}.{m._line()}"),
    b"\x93": lambda m: m._stack_global(),
    b"R": lambda m: m._call(),
    b"\x81": lambda m: m._call(),
    b"b": lambda m: m._build(),
    b"Q": lambda m: m._push(m._storage(m._pop())),
    b"i": lambda m: m._inst(),
    b"o": _no("OBJ"),
    b"\x92": _no("NEWOBJ_EX"),
    b"\x82": _no("EXT1"),
    b"\x83": _no("EXT2"),
    b"\x84": _no("EXT4"),
}
