"""JSON Merge Patch (RFC 7386).

One thing beyond the RFC is the library's that Kubernetes uses: nulls inside objects inside new arrays are dropped.
Source: k8s v1.36 vendor/gopkg.in/evanphx/json-patch.v4/merge.go.
"""

from __future__ import annotations

from typing import Any


def apply_merge_patch(doc: Any, patch: Any) -> Any:
    """`doc` with the members of `patch` set, null ones removed. Shares what does not change."""
    if not isinstance(patch, dict):
        return _without_nulls(patch)
    if not isinstance(doc, dict):
        return _without_nulls(patch)
    changes: dict[str, Any] = {}
    for key, value in patch.items():
        if value is not None:
            old = doc.get(key)
            merged = _without_nulls(value) if old is None else apply_merge_patch(old, value)
            if key not in doc or merged is not old:
                changes[key] = merged
    gone = [key for key, value in patch.items() if value is None and key in doc]
    if not changes and not gone:
        return doc
    out = {**doc, **changes}
    for key in gone:
        del out[key]
    return out


def diff_merge_patch(old: Any, new: Any) -> Any:
    """The smallest merge patch that turns `old` into `new`; {} when they are equal.

    A merge patch cannot set a member to null, so `new` should hold no nulls.
    """
    if not isinstance(old, dict) or not isinstance(new, dict):
        return new
    patch: dict[str, Any] = {}
    for key, value in new.items():
        before = old.get(key)
        if key not in old:
            patch[key] = value
        elif value is not before and not _same(value, before):
            both = isinstance(value, dict) and isinstance(before, dict)
            patch[key] = diff_merge_patch(before, value) if both else value
    patch.update((key, None) for key in old if key not in new)
    return patch


def _same(a: Any, b: Any) -> bool:
    """Equality that tells true from 1, at any depth."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[k], b[k]) for k in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_same, a, b))
    return isinstance(a, bool) == isinstance(b, bool) and bool(a == b)


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(member) for key, member in value.items() if member is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value
