"""Strategic merge patch: a merge patch whose lists merge by the marks of the schema, steered by directives.

    $patch: replace | delete | merge     in a map, or in an item of a list with a merge key
    $retainKeys: [a, b]                  the only members that stay
    $deleteFromPrimitiveList/<field>     values to take out of a list of scalars
    $setElementOrder/<field>             the order that the items of the patch shall have

Order of a merged list: `$setElementOrder`, then the patch's own order, then the order of the document; items that
only the document has keep their place among their neighbours.
Source: k8s v1.36 apimachinery/pkg/util/strategicpatch/patch.go, mergepatch/errors.go,
third_party/forked/golang/json/fields.go; docs: design-proposals cli/preserve-order-in-strategic-merge-patch.md.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cmp_to_key
from typing import Any, Final

from kcp.machinery.errors import ApiError, BadRequest, Invalid, go_quote
from kcp.machinery.patch.typed import go_value
from kcp.machinery.schema.compile import Schema

Json = dict[str, Any]

_PATCH: Final = "$patch"
_RETAIN_KEYS: Final = "$retainKeys"
_DELETE_FROM: Final = "$deleteFromPrimitiveList"
_ORDER: Final = "$setElementOrder"
_REFUSED: Final = "the server rejected our request due to an error in our request"


class _Fault(Exception):
    """Raised inside with Kubernetes' text; the class says which status it becomes."""


class _BadFormat(_Fault):
    """Becomes a 400."""


class _NotApplicable(_Fault):
    """Becomes a 422, without the text."""


_BAD_PRIMITIVE_LIST = "invalid patch format of primitive list"
_BAD_RETAIN_KEYS = "invalid patch format of retainKeys"
_BAD_ORDER = "invalid patch format of setElementOrder list"


def strategic_merge(doc: Json, patch: Json, schema: Schema) -> Json:
    """`doc` after the patch; shares what does not change.

    Raises BadRequest for malformed directives, Invalid for lists of lists, and a plain ApiError (500, as Kubernetes)
    for a patch that does not fit the schema, such as an item without its merge key.
    """
    try:
        return _merge_map(doc, patch, schema)
    except _BadFormat as fault:
        raise BadRequest(str(fault)) from None
    except _NotApplicable as fault:
        raise Invalid(_REFUSED) from fault
    except _Fault as fault:
        raise ApiError(str(fault)) from None


# Maps


def _merge_map(original: Json, patch: Json, schema: Schema) -> Json:
    if _PATCH in patch:
        return _directed(patch)
    patch = dict(patch)
    out = _retained(dict(original), patch)
    _merge_ordered_lists(out, patch, schema)
    for key, value in patch.items():
        deletes = key.startswith(_DELETE_FROM)
        name = _field_of(key, _DELETE_FROM, _BAD_PRIMITIVE_LIST) if deletes else key
        if value is None:
            out.pop(name, None)
        elif name not in out or _json_type(out[name]) is not _json_type(value):
            if not deletes:
                _put(out, name, _cleaned(value))
        elif isinstance(value, dict):
            field = _lookup(schema, name)
            replace = "replace" in field.patch_strategies
            out[name] = value if replace else _merge_map(out[name], value, field)
        elif isinstance(value, list):
            out[name] = _merge_list(out[name], value, _lookup(schema, name), deletes)
        else:
            out[name] = value
    return out


def _directed(patch: Json) -> Json:
    directive = patch[_PATCH]
    if directive == "replace":
        return {key: value for key, value in patch.items() if key != _PATCH}
    if directive == "delete":
        return {}
    raise _Fault(f"unknown patch type: {go_value(directive)} in map: {go_value(patch)}")


def _retained(original: Json, patch: Json) -> Json:
    """Apply $retainKeys; the directive is taken out of `patch`."""
    if _RETAIN_KEYS not in patch:
        return original
    keys = patch.pop(_RETAIN_KEYS)
    if not isinstance(keys, list):
        raise _BadFormat(_BAD_RETAIN_KEYS)
    for key, value in patch.items():
        if value is None or key.startswith((_DELETE_FROM, _ORDER)):
            continue
        if key not in keys:
            raise _BadFormat(_BAD_RETAIN_KEYS)
    return {key: value for key, value in original.items() if key in keys}


def _lookup(schema: Schema, key: str) -> Schema:
    """The schema of a member. Source: forked/golang/json LookupPatchMetadata."""
    field = schema.fields.get(key) or schema.additional
    if field is not None:
        return field
    if schema.special or schema.type not in ("object", ""):
        raise _Fault(
            "merging an object in json but data type is not map or struct, instead is: "
            + (schema.go_type or schema.type)
        )
    raise _Fault(f"unable to find api field in struct {schema.name} for the json field {go_quote(key)}")


def _json_type(value: Any) -> type:
    return type(value)


def _put(out: Json, name: str, cleaned: tuple[Any, bool]) -> None:
    value, keep = cleaned
    if keep:
        out[name] = value
    else:
        out.pop(name, None)


def _cleaned(value: Any) -> tuple[Any, bool]:
    """A value that is taken over as it is: without nulls and directives; False when it is nothing but a directive."""
    if isinstance(value, dict):
        if _PATCH in value:
            return None, False
        members = ((key, _cleaned(member)) for key, member in value.items() if member is not None)
        return {key: member for key, (member, keep) in members if keep}, True
    if isinstance(value, list):
        return [item for item, keep in map(_cleaned, value) if keep], True
    return value, True


def _field_of(key: str, prefix: str, fault: str) -> str:
    head, slash, field = key.partition("/")
    if not slash or head != prefix:
        raise _BadFormat(fault)
    return field


# Lists


def _merge_list(original: list[Any], patch: list[Any], field: Schema, deletes: bool) -> list[Any]:
    if "merge" not in field.patch_strategies and not deletes:
        return patch
    if not original and not patch:
        return original
    of_maps = _items_are_maps(original, patch)
    if not of_maps:
        if deletes:
            return [item for item in original if not _in(item, patch)]
        merged = _deduplicated([*original, *patch])
        return _ordered(merged, patch, original, patch, "")
    key = field.patch_merge_key
    if not key:
        raise _Fault(f"cannot merge lists without merge key for {field.items.name if field.items else 'map'}")
    original, patch = _without_directives(original, patch, key)
    merged = _merge_items(original, patch, key, field)
    return _ordered(merged, patch, original, patch, key)


def _items_are_maps(*lists: list[Any]) -> bool:
    """Whether the items are maps; all lists must hold one type of item, and no lists."""
    kinds = [type(item) for items in lists for item in items]
    if not kinds:
        raise _Fault("no elements in any of the given slices")
    if kinds[0] is list:
        raise _NotApplicable("lists of lists are not supported")
    if any(kind is not kinds[0] for kind in kinds):
        raise _Fault(f"list element types are not identical: {go_value(list(lists))}")
    return kinds[0] is dict


def _without_directives(original: list[Any], patch: list[Any], key: str) -> tuple[list[Any], list[Any]]:
    """Carry out the items of the patch that are directives; what is left of both lists."""
    plain = []
    replace = False
    for item in patch:
        directive = item.get(_PATCH)
        if _PATCH not in item:
            plain.append(item)
        elif directive == "delete":
            if key not in item:
                raise _Fault(_no_merge_key(item, key))
            original = [kept for kept in original if _key_of(kept, key) != item[key]]
        elif directive == "replace":
            replace = True
        elif directive == "merge":
            raise _Fault("merging lists cannot yet be specified in the patch")
        else:
            raise _Fault(f"unknown patch type: {go_value(directive)} in map: {go_value(item)}")
    return (plain, []) if replace else (original, plain)


def _merge_items(original: list[Any], patch: list[Any], key: str, field: Schema) -> list[Any]:
    out = list(original)
    for item in patch:
        if key not in item:
            raise _Fault(_no_merge_key(item, key))
        at = _find(out, key, item[key])
        if at < 0:
            out.append(item)
        else:
            out[at] = _merge_map(out[at], item, field.items or field)
    return [_cleaned(item)[0] if any(item is new for new in patch) else item for item in out]


def _no_merge_key(item: Json, key: str) -> str:
    return f"map: {go_value(item)} does not contain declared merge key: {key}"


def _key_of(item: Any, key: str) -> Any:
    return item.get(key) if isinstance(item, dict) else None


def _find(items: list[Any], key: str, value: Any) -> int:
    for at, item in enumerate(items):
        if not isinstance(item, dict):
            raise _Fault(f"value for key {at} is not a map")
        if key in item and item[key] == value:
            return at
    return -1


def _in(value: Any, values: list[Any]) -> bool:
    return any(type(value) is type(other) and value == other for other in values)


def _deduplicated(items: list[Any]) -> list[Any]:
    """Without repetitions. A repetition is overwritten by the last item, which moves up: upstream's order."""
    out = list(items)
    i = 0
    while i < len(out) - 1:
        j = i + 1
        while j < len(out):
            if type(out[i]) is type(out[j]) and out[i] == out[j]:
                last = out.pop()
                if j < len(out):
                    out[j] = last
            else:
                j += 1
        i += 1
    return out


# Order


def _merge_ordered_lists(out: Json, patch: Json, schema: Schema) -> None:
    """Merge every list of the patch that has a $setElementOrder; both are taken out of `patch`."""
    for directive in [key for key in patch if key.startswith(_ORDER)]:
        order = patch.pop(directive)
        if not isinstance(order, list):
            raise _Fault(_bad_argument(order))
        name = _field_of(directive, _ORDER, _BAD_ORDER)
        original, changes = out.get(name), patch.get(name)
        for items in (original, changes):
            if items is not None and not isinstance(items, list):
                raise _Fault(_bad_argument(items))
        field = _lookup(schema, name)
        _check_order(changes, order, field.patch_merge_key)
        if original is None and changes is None:
            continue
        if original is None:
            merged = _cleaned(changes)[0]
        else:
            merged = original if changes is None else _merge_list(original, changes, field, deletes=False)
        if merged:
            _items_are_maps(original or [], changes or [])
        out[name] = _ordered(merged, order, original or [], order, field.patch_merge_key)
        patch.pop(name, None)


def _bad_argument(value: Any) -> str:
    names = {dict: "map[string]interface {}", str: "string", bool: "bool", int: "int64", float: "float64"}
    return f"expected a []interface {{}}, but received a {names.get(type(value), '%!s(<nil>)')}"


def _check_order(changes: list[Any] | None, order: list[Any], key: str) -> None:
    """The patch's items must stand in the order list, in the same order; deletions do not count."""
    if not changes or not order:
        return
    items = [item for item in changes if not (key and isinstance(item, dict) and _PATCH in item)]
    at = 0
    for place in order:
        if at < len(items) and _same_key(items[at], place, key):
            at += 1
    if at < len(items):
        raise _Fault(
            f"the order in patch list:\n{go_value(changes)}\n doesn't match {_ORDER} list:\n{go_value(order)}"
        )


def _same_key(left: Any, right: Any, key: str) -> bool:
    if not key:
        return type(left) is type(right) and bool(left == right)
    for item in (left, right):
        if not isinstance(item, dict):
            raise _Fault("expected a map[string]interface {}, but received a string")
        if key not in item:
            raise _Fault(_no_merge_key(item, key))
    return bool(left[key] == right[key])


def _ordered(
    merged: list[Any], patch: list[Any], server_order: list[Any], patch_order: list[Any], key: str
) -> list[Any]:
    """`merged` with the items of the patch in the patch's order, and the others put in where they stood."""
    identity = _identity(key)
    in_patch = _places(patch, identity)
    from_patch = [item for item in merged if in_patch(item) >= 0]
    others = [item for item in merged if in_patch(item) < 0]
    if key:
        for item in (*merged, *patch_order):
            if not isinstance(item, dict) or key not in item:
                raise _Fault(_no_merge_key(item, key))
    ahead = _sorted_by(from_patch, patch_order, identity)
    behind = _sorted_by(others, server_order, identity)
    return _interleaved(behind, ahead, server_order, identity)


def _identity(key: str) -> Callable[[Any], Any]:
    if not key:
        return lambda item: (type(item), item)
    return lambda item: _key_of(item, key)


def _position(items: list[Any], item: Any, identity: Callable[[Any], Any]) -> int:
    wanted = identity(item)
    return next((at for at, other in enumerate(items) if identity(other) == wanted), -1)


def _places(items: list[Any], identity: Callable[[Any], Any]) -> Callable[[Any], int]:
    """Where an item of the same identity stands in `items`, -1 for nowhere; looked up, not searched, where that works."""
    table: dict[Any, int] = {}
    try:
        for at, item in enumerate(items):
            table.setdefault(identity(item), at)
    except TypeError:  # an identity that cannot be hashed
        return lambda item: _position(items, item, identity)

    def place(item: Any) -> int:
        wanted = identity(item)
        try:
            return table.get(wanted, -1)
        except TypeError:
            return -1

    return place


def _sorted_by(items: list[Any], order: list[Any], identity: Callable[[Any], Any]) -> list[Any]:
    """Stable; items that the order does not name stay where they are."""
    if len(items) < 2:
        return list(items)
    place = _places(order, identity)

    def by_place(a: Any, b: Any) -> int:
        left, right = place(a), place(b)
        return left - right if left >= 0 and right >= 0 else 0

    return sorted(items, key=cmp_to_key(by_place))


def _interleaved(
    others: list[Any], patch: list[Any], server_order: list[Any], identity: Callable[[Any], Any]
) -> list[Any]:
    """Each of `others` goes before the first patch item that followed it in the document."""
    out: list[Any] = []
    at = 0
    stood = _places(server_order, identity)
    for item in patch:
        place = stood(item)
        while at < len(others) and 0 <= stood(others[at]) < place:
            out.append(others[at])
            at += 1
        out.append(item)
    return out + others[at:]
