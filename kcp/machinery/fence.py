"""A leader's claim to its Lease, as it travels with a write: inside the process as it is, over HTTPS as a header.

    Kcp-Fence: namespace=kube-system&name=kube-scheduler&uid=5f1c…&holder=alpha_4711&epoch=3

A server that knows the header refuses the write, in the transaction that would make it, once the Lease has another
holder or is another Lease. Servers that do not know it ignore it.
"""

from __future__ import annotations

from urllib.parse import parse_qsl, urlencode

import attrs

from kcp.base.values import frozen
from kcp.machinery.errors import BadRequest

HEADER = "kcp-fence"
MAX_HEADER_LENGTH = 4096


@frozen
class LeaseFence:
    """This Lease (by uid), held by me, in this epoch.

    `epoch` is spec.leaseTransitions; the uid belongs to the claim because a Lease that was made anew starts again at 0.
    """

    namespace: str
    name: str
    uid: str
    holder: str
    epoch: int

    def header(self) -> str:
        return urlencode(attrs.asdict(self))


def parse(text: str) -> LeaseFence:
    """The claim in a header. Raises BadRequest: a write whose claim cannot be read must not be made."""
    if len(text) > MAX_HEADER_LENGTH:
        raise BadRequest(f"the header {HEADER} is longer than {MAX_HEADER_LENGTH} characters")
    try:
        fields = dict(parse_qsl(text, keep_blank_values=True, strict_parsing=True))
        return LeaseFence(**{**fields, "epoch": int(fields["epoch"])})  # type: ignore[arg-type]
    except (ValueError, KeyError, TypeError) as error:
        raise BadRequest(f"the header {HEADER} does not name a Lease, its holder and its epoch") from error
