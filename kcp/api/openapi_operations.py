"""The operations of a kind, as both versions of OpenAPI describe them.

kubectl finds a kind by `x-kubernetes-group-version-kind` of an operation and asks the patch operation whether
`fieldValidation` and `dryRun` are known parameters.
Source: k8s v1.36 apiserver/pkg/endpoints/installer.go, api/openapi-spec.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from kcp.apis.kind import Kind, Subresource
from kcp.base.values import frozen
from kcp.machinery.gvk import GroupVersionKind
from kcp.schemas import load

Json = dict[str, Any]
Method = Literal["get", "put", "post", "delete", "patch", "head", "options"]

_META = "io.k8s.apimachinery.pkg.apis.meta.v1."
STATUS, DELETE_OPTIONS, PATCH = f"{_META}Status", f"{_META}DeleteOptions", f"{_META}Patch"

PARAMETERS: dict[str, tuple[str, str]] = {
    "pretty": ("string", "If 'true', then the output is pretty printed."),
    "dryRun": (
        "string",
        "When present, indicates that modifications should not be persisted. Valid values are: - All: all dry run stages will be processed",
    ),
    "fieldManager": (
        "string",
        "fieldManager is a name associated with the actor or entity that is making these changes.",
    ),
    "fieldValidation": (
        "string",
        "fieldValidation instructs the server on how to handle objects in the request containing unknown or duplicate fields. Valid values are: Ignore, Warn, Strict.",
    ),
    "force": (
        "boolean",
        'Force is going to "force" Apply requests. It means user will re-acquire conflicting fields owned by other people.',
    ),
    "allowWatchBookmarks": ("boolean", 'allowWatchBookmarks requests watch events with type "BOOKMARK".'),
    "continue": (
        "string",
        "The continue option should be set when retrieving more results from the server.",
    ),
    "fieldSelector": (
        "string",
        "A selector to restrict the list of returned objects by their fields. Defaults to everything.",
    ),
    "labelSelector": (
        "string",
        "A selector to restrict the list of returned objects by their labels. Defaults to everything.",
    ),
    "limit": ("integer", "limit is a maximum number of responses to return for a list call."),
    "resourceVersion": (
        "string",
        "resourceVersion sets a constraint on what resource versions a request may be served from.",
    ),
    "resourceVersionMatch": (
        "string",
        "resourceVersionMatch determines how resourceVersion is applied to list calls.",
    ),
    "sendInitialEvents": (
        "boolean",
        "`sendInitialEvents=true` may be set together with `watch=true` to begin with the present state.",
    ),
    "timeoutSeconds": (
        "integer",
        "Timeout for the list/watch call. This limits the duration of the call, regardless of any activity or inactivity.",
    ),
    "watch": (
        "boolean",
        "Watch for changes to the described resources and return them as a stream of add, update, and remove notifications.",
    ),
    "gracePeriodSeconds": (
        "integer",
        "The duration in seconds before the object should be deleted. Value must be non-negative integer.",
    ),
    "orphanDependents": (
        "boolean",
        "Deprecated: please use the PropagationPolicy, this field will be deprecated in 1.7.",
    ),
    "propagationPolicy": ("string", "Whether and how garbage collection will be performed."),
    "path": ("string", "Path is the URL path to use for the current proxy request."),
    "container": (
        "string",
        "The container for which to operate. Defaults to only container if there is one container in the pod.",
    ),
    "command": (
        "string",
        "Command is the remote command to execute. argv array. Not executed within a shell.",
    ),
    "stdin": ("boolean", "Redirect the standard input stream of the pod for this call. Defaults to false."),
    "stdout": ("boolean", "Redirect the standard output stream of the pod for this call."),
    "stderr": ("boolean", "Redirect the standard error stream of the pod for this call."),
    "tty": ("boolean", "TTY if true indicates that a tty will be allocated. Defaults to false."),
    "ports": ("integer", "List of ports to forward. Required when using WebSockets."),
    "follow": ("boolean", "Follow the log stream of the pod. Defaults to false."),
    "previous": ("boolean", "Return previous terminated container logs. Defaults to false."),
    "sinceSeconds": (
        "integer",
        "A relative time in seconds before the current time from which to show logs.",
    ),
    "tailLines": ("integer", "If set, the number of lines from the end of the logs to show."),
    "limitBytes": (
        "integer",
        "If set, the number of bytes to read from the server before terminating the log output.",
    ),
    "timestamps": (
        "boolean",
        "If true, add an RFC3339 timestamp at the beginning of every line of log output.",
    ),
    "name": ("string", "name of the object"),
    "namespace": ("string", "object name and auth scope, such as for teams and projects"),
}
"""name -> (type, description). `name` and `namespace` stand in the path."""

_WRITE = ("dryRun", "fieldManager", "fieldValidation")
_LIST = (
    "allowWatchBookmarks",
    "continue",
    "fieldSelector",
    "labelSelector",
    "limit",
    "resourceVersion",
    "resourceVersionMatch",
    "sendInitialEvents",
    "timeoutSeconds",
    "watch",
)
_DELETE = ("dryRun", "gracePeriodSeconds", "orphanDependents", "propagationPolicy")
_STREAM_PARAMETERS: dict[str, tuple[str, ...]] = {
    "exec": ("command", "container", "stderr", "stdin", "stdout", "tty"),
    "attach": ("container", "stderr", "stdin", "stdout", "tty"),
    "portforward": ("ports",),
    "proxy": ("path",),
    "log": ("container", "follow", "limitBytes", "previous", "sinceSeconds", "tailLines", "timestamps"),
}


@frozen
class Operation:
    """One method on one path. `body` and `answer` are definition names; "" means none, or plain text."""

    path: str
    method: Method
    action: str
    id: str
    description: str
    gvk: GroupVersionKind
    tag: str
    parameters: tuple[str, ...] = ()
    body: str = ""
    answer: str = ""
    codes: tuple[str, ...] = ("200",)

    @property
    def path_parameters(self) -> tuple[str, ...]:
        return tuple(name for name in ("name", "namespace") if f"{{{name}}}" in self.path)


def definition_name(gvk: GroupVersionKind) -> str:
    """The name of a kind's definition: Kubernetes' own, or the group reversed for custom kinds."""
    found = load.definition(gvk)
    if found is not None:
        return found[0]
    reverse = ".".join(reversed(gvk.group.split(".")))
    return f"{reverse}.{gvk.version}.{gvk.kind}"


def list_name(kind: Kind) -> str:
    return definition_name(GroupVersionKind(kind.group, kind.version, f"{kind.kind}List"))


def _camel(group: str) -> str:
    short = group.removesuffix(".k8s.io").removesuffix(".apiserver") or "core"
    return "".join(part.capitalize() for part in short.split("."))


@frozen
class _Namer:
    """Operation ids and paths of one kind."""

    kind: Kind

    @property
    def tag(self) -> str:
        short = self.kind.group.removesuffix(".k8s.io").removesuffix(".apiserver") or "core"
        return f"{short.replace('.', '')}_{self.kind.version}"

    def id(self, verb: str, suffix: str = "", *, collection: bool = False) -> str:
        kind = self.kind
        namespaced = "Namespaced" if kind.namespaced else ""
        return f"{verb}{_camel(kind.group)}{kind.version.capitalize()}{'Collection' if collection else ''}{namespaced}{kind.kind}{suffix}"

    @property
    def root(self) -> str:
        return (
            f"/apis/{self.kind.group}/{self.kind.version}" if self.kind.group else f"/api/{self.kind.version}"
        )

    @property
    def collection(self) -> str:
        middle = "/namespaces/{namespace}" if self.kind.namespaced else ""
        return f"{self.root}{middle}/{self.kind.plural}"


def operations(kind: Kind) -> Iterator[Operation]:
    """All operations of a kind and its subresources."""
    yield from _main(kind)
    for sub in kind.subresources:
        yield from _subresource(kind, sub)


def _main(kind: Kind) -> Iterator[Operation]:
    namer = _Namer(kind)
    one, many, gvk = definition_name(kind.gvk), list_name(kind), kind.gvk
    at, item = namer.collection, f"{namer.collection}/{{name}}"
    rows: tuple[tuple[str, str, Method, str, str, tuple[str, ...], str, str, tuple[str, ...]], ...] = (
        ("list", at, "get", namer.id("list"), f"list or watch objects of kind {kind.kind}", _LIST, "", many, ("200",)),
        ("create", at, "post", namer.id("create"), f"create a {kind.kind}", _WRITE, one, one, ("200", "201", "202")),
        ("deletecollection", at, "delete", namer.id("delete", collection=True), f"delete collection of {kind.kind}",
         tuple(sorted({*_LIST, *_DELETE} - {"allowWatchBookmarks", "watch"})), DELETE_OPTIONS, STATUS, ("200",)),
        ("get", item, "get", namer.id("read"), f"read the specified {kind.kind}", (), "", one, ("200",)),
        ("update", item, "put", namer.id("replace"), f"replace the specified {kind.kind}", _WRITE, one, one, ("200", "201")),
        ("patch", item, "patch", namer.id("patch"), f"partially update the specified {kind.kind}", (*_WRITE, "force"), PATCH, one, ("200", "201")),
        ("delete", item, "delete", namer.id("delete"), f"delete a {kind.kind}", _DELETE, DELETE_OPTIONS, STATUS, ("200", "202")),
    )  # fmt: skip
    for verb, path, method, name, text, parameters, body, answer, codes in rows:
        if verb in kind.verbs:
            action = {"create": "post", "update": "put"}.get(verb, verb)
            yield Operation(path, method, action, name, text, gvk, namer.tag, parameters, body, answer, codes)
    if kind.namespaced and "list" in kind.verbs:
        name = f"list{_camel(kind.group)}{kind.version.capitalize()}{kind.kind}ForAllNamespaces"
        text = f"list or watch objects of kind {kind.kind}"
        path = f"{namer.root}/{kind.plural}"
        yield Operation(path, "get", "list", name, text, gvk, namer.tag, _LIST, "", many)


_METHODS: dict[str, tuple[Method, str]] = {
    "get": ("get", "read"),
    "update": ("put", "replace"),
    "patch": ("patch", "patch"),
    "create": ("post", "create"),
    "delete": ("delete", "delete"),
}


def _subresource(kind: Kind, sub: Subresource) -> Iterator[Operation]:
    namer = _Namer(kind)
    gvk = sub.kind or kind.gvk
    path = f"{namer.collection}/{{name}}/{sub.name}"
    if sub.name in _STREAM_PARAMETERS:
        yield from _streams(kind, sub, namer, path)
        return
    one = definition_name(gvk)
    for verb in sub.verbs:
        method, word = _METHODS[verb]
        parameters = {"get": (), "patch": (*_WRITE, "force")}.get(verb, _WRITE)
        body = {"get": "", "patch": PATCH}.get(verb, one)
        text = f"{word} {sub.name} of the specified {kind.kind}"
        action = {"create": "post", "update": "put"}.get(verb, verb)
        codes = ("200",) if verb == "get" else ("200", "201")
        suffix = sub.name.capitalize()
        yield Operation(
            path, method, action, namer.id(word, suffix), text, gvk, namer.tag, parameters, body, one, codes
        )


def _streams(kind: Kind, sub: Subresource, namer: _Namer, path: str) -> Iterator[Operation]:
    for verb in sub.verbs:
        method, _ = _METHODS[verb]
        action = "get" if sub.name == "log" else "connect"
        word = "read" if sub.name == "log" else f"connect{method.capitalize()}"
        text = f"{word} {method.upper()} requests to {sub.name} of {kind.kind}"
        name = namer.id(word, sub.name.capitalize())
        gvk = sub.kind or kind.gvk
        yield Operation(path, method, action, name, text, gvk, namer.tag, _STREAM_PARAMETERS[sub.name])
