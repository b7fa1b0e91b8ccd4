"""The catalog says what the discovery documents of Kubernetes 1.36 say, row by row and in their order.

`discovery_facts.json` keeps the GA group versions of those documents: per resource its name, singular name, kind,
whether it is namespaced, verbs, short names, categories, and subresources with verbs and kind.
"""

import json
from pathlib import Path
from typing import Any

from kcp.apis.catalog import build_catalog
from kcp.apis.kind import Kind

_FACTS = Path(__file__).with_name("discovery_facts.json")


def _facts() -> list[tuple[str, str, list[Any]]]:
    groups = json.loads(_FACTS.read_text())
    return [(group["group"], group["version"], row) for group in groups for row in group["resources"]]


def _row(kind: Kind) -> list[Any]:
    subresources = []
    for sub in kind.subresources:
        assert sub.kind is not None
        subresources.append(
            [sub.name, list(sub.verbs), f"{sub.kind.group}/{sub.kind.version}/{sub.kind.kind}"]
        )
    return [
        kind.plural,
        kind.singular,
        kind.kind,
        kind.namespaced,
        list(kind.verbs),
        list(kind.short_names),
        list(kind.categories),
        subresources,
    ]


def test_the_catalog_equals_discovery_in_content_and_order() -> None:
    own = [(kind.group, kind.version, _row(kind)) for kind in build_catalog().kinds()]
    assert own == _facts()


def test_discovery_has_the_ga_resources_of_kubernetes_1_36() -> None:
    facts = _facts()
    assert sum(group == "" for group, _, _ in facts) == 17
    assert sum(group != "" for group, _, _ in facts) == 51
