"""Reading sources line by line: where a fault is, what is wrong there, and whether to go on."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import orjson

Json = dict[str, Any]
MAX_KEPT = 20
"""So many faults are kept with their text; the others are counted."""
GZIP = b"\x1f\x8b"


class Malformed(ValueError):
    """Raised when a source cannot be understood: where, and why."""


@attrs.define
class Faults:
    """What was wrong in the sources. Without `skip` the first fault ends the import."""

    skip: bool = False
    count: int = 0
    kept: list[str] = attrs.field(factory=list)

    def add(self, where: str, reason: str) -> None:
        """Raises Malformed unless faults are to be skipped."""
        if not self.skip:
            raise Malformed(f"{where}: {reason}")
        self.count += 1
        if len(self.kept) < MAX_KEPT:
            self.kept.append(f"{where}: {reason}")


def content(file: Path) -> bytes:
    """All of a file, unpacked if it is gzipped."""
    raw = file.read_bytes()
    try:
        return gzip.decompress(raw) if raw[:2] == GZIP else raw
    except (OSError, EOFError) as error:
        raise Malformed(f"{file}: damaged gzip: {error}") from None


def beginning(file: Path, size: int = 4096) -> bytes:
    """The first bytes, unpacked if the file is gzipped."""
    with file.open("rb") as opened:
        if opened.read(2) == GZIP:
            try:
                with gzip.open(file) as unpacked:
                    return unpacked.read(size)
            except (OSError, EOFError):
                return b""
        opened.seek(0)
        return opened.read(size)


def lines(file: Path) -> Iterator[tuple[int, bytes]]:
    """(number, line), without reading all of it at once."""
    with file.open("rb") as opened:
        packed = opened.read(2) == GZIP
    with gzip.open(file) if packed else file.open("rb") as source:
        try:
            yield from enumerate(source, 1)
        except (OSError, EOFError) as error:
            raise Malformed(f"{file}: damaged gzip: {error}") from None


def json_documents(file: Path, faults: Faults) -> Iterator[tuple[str, Json]]:
    """(`file:line`, object) of JSON objects that follow each other, each on one line or spread over several.

    An object begins with a brace at the start of a line, as kubectl and the API server print it, and ends with a line
    that has one at its start or its end. After a fault reading goes on at the next beginning.
    """
    first, pending, lost = 0, b"", False
    for number, line in lines(file):
        text = line.rstrip()
        if text[:1] == b"{":
            if pending:
                faults.add(f"{file}:{first}", _reason(pending))
            first, pending, lost = number, b"", False
        elif not text or lost:
            continue
        elif not pending:
            lost = True
            faults.add(f"{file}:{number}", _reason(text))
            continue
        pending += line
        if text[-1:] == b"}" and text[:1] in (b"{", b"}"):
            whole, pending, lost = pending, b"", True
            try:
                value = orjson.loads(whole)
            except orjson.JSONDecodeError:
                faults.add(f"{file}:{first}", _reason(whole))
                continue
            yield f"{file}:{first}", value
    if pending:
        faults.add(f"{file}:{first}", _reason(pending))


def _reason(text: bytes) -> str:
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        at = (
            f" at its line {error.lineno}, column {error.colno}"
            if b"\n" in text.strip()
            else f" at column {error.colno}"
        )
        return f"no JSON: {error.msg[:1].lower()}{error.msg[1:]}{at}"
    except UnicodeDecodeError:
        return "no JSON: not UTF-8"
    return "no JSON object"
