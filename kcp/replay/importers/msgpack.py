"""Reads MessagePack: the whole of the format but for extensions, which become their bytes.

Source: github.com/msgpack/msgpack spec.md.
"""

from __future__ import annotations

import struct
from typing import Any

MAX_DEPTH = 200


class MsgpackError(ValueError):
    """Raised when the bytes are no MessagePack, with where."""


def decode(data: bytes) -> Any:
    """The one value in `data`. Maps whose keys are lists get tuples for keys. Raises MsgpackError."""
    decoder = _Decoder(data)
    try:
        value = decoder.value(0)
    except (IndexError, struct.error):
        raise MsgpackError(f"it ends too early, at byte {len(data)}") from None
    if decoder.at != len(data):
        raise MsgpackError(f"there are {len(data) - decoder.at} bytes after its end")
    return value


_FIXED = {
    0xCA: ">f", 0xCB: ">d", 0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q", 0xD0: ">b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q",
}  # fmt: skip
_SIZED = {0xC4: ("bin", 1), 0xC5: ("bin", 2), 0xC6: ("bin", 4), 0xC7: ("ext", 1), 0xC8: ("ext", 2), 0xC9: ("ext", 4),
          0xD9: ("str", 1), 0xDA: ("str", 2), 0xDB: ("str", 4), 0xDC: ("array", 2), 0xDD: ("array", 4), 0xDE: ("map", 2), 0xDF: ("map", 4)}  # fmt: skip
_CONSTANTS = {0xC0: None, 0xC2: False, 0xC3: True}


class _Decoder:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self.at = 0

    def value(self, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise MsgpackError(f"it is nested too deeply at byte {self.at}")
        tag = self._data[self.at]
        self.at += 1
        if tag < 0x80:
            return tag
        if tag >= 0xE0:
            return tag - 0x100
        if tag < 0xC0:
            kind, size = (
                ("map", tag & 15) if tag < 0x90 else ("array", tag & 15) if tag < 0xA0 else ("str", tag & 31)
            )
            return self._sized(kind, size, depth)
        if tag in _CONSTANTS:
            return _CONSTANTS[tag]
        if tag in _FIXED:
            form = struct.Struct(_FIXED[tag])
            (number,) = form.unpack_from(self._data, self.at)
            self.at += form.size
            return number
        if tag in _SIZED:
            kind, width = _SIZED[tag]
            return self._sized(kind, int.from_bytes(self._take(width), "big"), depth)
        if 0xD4 <= tag <= 0xD8:
            return self._sized("ext", 1 << (tag - 0xD4), depth)
        raise MsgpackError(f"byte {self.at - 1} is 0x{tag:02x}, which begins nothing")

    def _sized(self, kind: str, size: int, depth: int) -> Any:
        if kind == "map":
            return {_key(self.value(depth + 1)): self.value(depth + 1) for _ in range(size)}
        if kind == "array":
            return [self.value(depth + 1) for _ in range(size)]
        if kind == "ext":
            self.at += 1
        taken = self._take(size)
        return taken.decode("utf-8", "replace") if kind == "str" else taken

    def _take(self, size: int) -> bytes:
        end = self.at + size
        if end > len(self._data):
            raise IndexError(end)
        taken = self._data[self.at : end]
        self.at = end
        return taken


def _key(value: Any) -> Any:
    return tuple(_key(item) for item in value) if isinstance(value, list) else value
