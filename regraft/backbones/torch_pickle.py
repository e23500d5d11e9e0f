"""The few instructions of a pickle that files of tensors need, carried out without Python's unpickler.

A pickle is a program for a machine with a stack. Python's own machine calls what a file names, sets attributes, and
reserves as much memory as a file asks for. This one knows the instructions that `torch.save` writes, makes dicts,
lists, tuples, texts and numbers of exactly these types, and calls only what it is given.

Source of the instructions: `pickletools` in Python's library.
"""

import struct
from collections.abc import Callable
from typing import Any, BinaryIO

_MOST_STEPS = 1_000_000  # of one pickle; a tensor takes about 30
_LONGEST_TEXT = 1000  # bytes of a name
_CONSTANTS = {b"N": None, b"\x88": True, b"\x89": False}
_NUMBERS = {b"J": "<i", b"K": "<B", b"M": "<H", b"G": ">d"}
_TUPLES = {b"\x85": 1, b"\x86": 2, b"\x87": 3}
_EMPTY: dict[bytes, Callable[[], Any]] = {b"}": dict, b"]": list, b")": tuple}


class Refused(Exception):
    """The pickle holds something that tensors do not need; the text says what."""


class Unpickler:
    """The machine, for one pickle after another of a file."""

    def __init__(self, file: BinaryIO, names: dict[str, Any], persistent: Callable[[Any], Any]) -> None:
        """Start at the file's position.

        Args:
            file: to read.
            names: what the dotted names in a pickle stand for. Of these, functions can be called; whatever a function
                raises as Refused, TypeError or ValueError is the pickle's fault.
            persistent: turns a persistent id into an object.
        """
        self._file, self._names, self._persistent = file, names, persistent

    def load(self) -> Any:
        """Return what the next pickle makes.

        Raises:
            Refused: it holds anything but data and known names.
            EOFError, LookupError, TypeError, ValueError: it is damaged.
        """
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        for _ in range(_MOST_STEPS):
            instruction = self._file.read(1)
            if instruction == b".":
                if len(self._stack) != 1 or self._marks:
                    raise ValueError("a pickle of other than one object")
                return self._stack[0]
            self._do(instruction)
        raise ValueError(f"a pickle of more than {_MOST_STEPS:,} instructions")

    def _do(self, instruction: bytes) -> None:
        if instruction in _CONSTANTS:
            self._stack.append(_CONSTANTS[instruction])
        elif instruction in _NUMBERS:
            self._stack.append(self._number(_NUMBERS[instruction]))
        elif instruction in _EMPTY:
            self._stack.append(_EMPTY[instruction]())
        elif instruction in _TUPLES:
            self._stack.append(tuple(self._pop(_TUPLES[instruction])))
        elif instruction in _OTHERS:
            _OTHERS[instruction](self)
        elif instruction:
            raise ValueError(f"the instruction {instruction!r}, which no file of tensors has")
        else:
            raise EOFError("the end of a pickle is missing")

    def _protocol(self) -> None:
        self._number("<B")

    def _mark(self) -> None:
        self._marks.append(len(self._stack))

    def _long(self) -> None:
        self._stack.append(int.from_bytes(self._read(self._number("<B")), "little", signed=True))

    def _text(self) -> None:
        length = self._number("<I")
        if length > _LONGEST_TEXT:
            raise ValueError("a name is too long")
        self._stack.append(self._read(length).decode())

    def _name(self) -> None:
        lines = [self._file.readline(_LONGEST_TEXT) for _ in range(2)]
        if not all(line.endswith(b"\n") for line in lines):
            raise EOFError("the end of a name is missing")
        name = ".".join(line.decode()[:-1] for line in lines)
        if name not in self._names:
            raise Refused(f"'{name}'")
        self._stack.append(self._names[name])

    def _persistent_id(self) -> None:
        self._stack.append(self._persistent(self._pop(1)[0]))

    def _call(self) -> None:
        function, arguments = self._pop(2)
        # By identity: equality is a method of an object, and only what the caller gave may be called.
        if not any(function is known for known in self._names.values()) or not isinstance(arguments, tuple):
            raise Refused("a call of what is no function")
        self._stack.append(function(*arguments))

    def _attributes(self) -> None:
        """Drop what a dict should have as attributes: torch gives its own the versions of layers."""
        target, attributes = self._pop(2)
        if type(target) is not dict or type(attributes) is not dict:
            raise Refused("attributes of other things than a dict")
        self._stack.append(target)

    def _remember(self, form: str) -> None:
        self._memo[self._number(form)] = self._stack[-1]

    def _recall(self, form: str) -> None:
        self._stack.append(self._memo[self._number(form)])

    def _append(self, items: list[Any]) -> None:
        if type(self._stack[-1]) is not list:
            raise TypeError("items outside of a list")
        self._stack[-1].extend(items)

    def _set(self, items: list[Any]) -> None:
        if type(self._stack[-1]) is not dict or len(items) % 2:
            raise TypeError("keys outside of a dict")
        keys = items[::2]
        # Exact types: the hash of nested tuples may take for ever.
        if not all(type(key) is str for key in keys):
            raise TypeError("a key that is no text")
        self._stack[-1].update(zip(keys, items[1::2], strict=True))

    def _pop(self, count: int) -> list[Any]:
        """Take the last objects off the stack; they lie above the last mark."""
        start = len(self._stack) - count
        if start < (self._marks[-1] if self._marks else 0):
            raise LookupError("the stack is empty")
        taken = self._stack[start:]
        del self._stack[start:]
        return taken

    def _above_mark(self) -> list[Any]:
        start = self._marks[-1]
        taken = self._pop(len(self._stack) - start)
        self._marks.pop()
        return taken

    def _number(self, form: str) -> Any:
        (number,) = struct.unpack(form, self._read(struct.calcsize(form)))
        return number

    def _read(self, count: int) -> bytes:
        contents = self._file.read(count)
        if len(contents) != count:
            raise EOFError("the file ends within a pickle")
        return contents


_OTHERS: dict[bytes, Callable[[Unpickler], None]] = {
    b"\x80": Unpickler._protocol,
    b"(": Unpickler._mark,
    b"\x8a": Unpickler._long,
    b"X": Unpickler._text,
    b"c": Unpickler._name,
    b"Q": Unpickler._persistent_id,
    b"R": Unpickler._call,
    b"b": Unpickler._attributes,
    b"q": lambda machine: machine._remember("<B"),
    b"r": lambda machine: machine._remember("<I"),
    b"h": lambda machine: machine._recall("<B"),
    b"j": lambda machine: machine._recall("<I"),
    b"t": lambda machine: machine._stack.append(tuple(machine._above_mark())),
    b"a": lambda machine: machine._append(machine._pop(1)),
    b"e": lambda machine: machine._append(machine._above_mark()),
    b"s": lambda machine: machine._set(machine._pop(2)),
    b"u": lambda machine: machine._set(machine._above_mark()),
}
