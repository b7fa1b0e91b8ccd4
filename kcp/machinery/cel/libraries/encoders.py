"""base64.encode and base64.decode. Kubernetes does not have them; they are for environments of our own.

Source: cel-go v0.26 ext/encoders.go.
"""

from __future__ import annotations

import base64
import binascii
from typing import Final

from kcp.machinery.cel.functions import Functions, overload, walk
from kcp.machinery.cel.types import BYTES, STRING
from kcp.machinery.cel.values import CelError


def _decode(text: str) -> bytes:
    """Padding may be missing, as in cel-go. Raises CelError."""
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise CelError("illegal base64 data") from None


LIBRARY: Final[Functions] = {
    "base64.encode": (
        overload(
            "base64_encode_bytes", (BYTES,), STRING, lambda value: base64.b64encode(value).decode(), walk
        ),
    ),
    "base64.decode": (overload("base64_decode_string", (STRING,), BYTES, _decode, walk),),
}
