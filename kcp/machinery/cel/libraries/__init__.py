"""Function libraries, one file each; `KUBERNETES` are those of Kubernetes' base environment.

Not among them: `mutations` (mutating admission policies), `encoders` and `strings.EXTRA` (not in Kubernetes).

Source: k8s v1.36 apiserver/pkg/cel/environment/base.go.
"""

from typing import Final

from kcp.machinery.cel.functions import Functions
from kcp.machinery.cel.libraries import (
    authorizer,
    formats,
    images,
    lists,
    network,
    quantity,
    regexes,
    semver,
    sets,
    strings,
    urls,
)
from kcp.machinery.cel.types import Type

KUBERNETES: Final[tuple[Functions, ...]] = (
    urls.LIBRARY,
    regexes.LIBRARY,
    lists.LIBRARY,
    authorizer.LIBRARY,
    quantity.LIBRARY,
    strings.LIBRARY,
    sets.LIBRARY,
    network.LIBRARY,
    formats.LIBRARY,
    semver.LIBRARY,
    images.LIBRARY,
)
TYPES: Final[dict[str, Type]] = {
    each.name: each
    for each in (
        urls.URL, authorizer.AUTHORIZER, authorizer.PATH_CHECK, authorizer.GROUP_CHECK, authorizer.RESOURCE_CHECK,
        authorizer.DECISION, quantity.QUANTITY, network.IP, network.CIDR, formats.FORMAT, semver.SEMVER, images.IMAGE,
    )
}  # fmt: skip
"""The libraries' own types, by the names that expressions compare `type(x)` with."""
