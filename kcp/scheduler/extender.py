"""HTTP extenders: processes outside that filter, score, preempt and bind for the scheduler.

    extender = extender_of(row)                       # a row of `extenders` in a KubeSchedulerConfiguration
    calls = ExtenderCalls(pool)
    answer = await calls.filter(extender, pod, nodes)  # raises ExtenderFailed

Every call has the extender's own deadline. Bodies are those of Kubernetes: fields in Go's spelling; answers may spell
them in any case, as Go's decoder takes them. Source: k8s v1.36 pkg/scheduler/extender.go, kube-scheduler/extender/v1.
"""

from __future__ import annotations

import base64
import ssl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import attrs
import orjson

from kcp.base.values import frozen
from kcp.machinery import meta
from kcp.machinery.errors import go_quote
from kcp.machinery.times import parse_go_duration
from kcp.wire.connect import ConnectError, Pool, RequestTimeout, Target, client_tls
from kcp.wire.http import Request

Json = dict[str, Any]
DEFAULT_TIMEOUT_S = 5.0
SCORE_FACTOR = 10
"""An extender scores 0..10, plugins 0..100."""
NAME = "Extender"
"""What stands for all extenders where plugins are named."""


class ExtenderFailed(Exception):
    """Raised when an extender cannot be asked, answers with an error, or with what makes no sense."""


@frozen
class Extender:
    """One row of the configuration. `tls` holds its `tlsConfig`; paths in it are absolute."""

    url: str
    filter_verb: str = ""
    prioritize_verb: str = ""
    preempt_verb: str = ""
    bind_verb: str = ""
    weight: int = 1
    timeout_s: float = DEFAULT_TIMEOUT_S
    https: bool = False
    tls: Mapping[str, Any] = attrs.field(factory=dict)
    node_cache_capable: bool = False
    managed_resources: tuple[str, ...] = ()
    ignorable: bool = False

    def is_interested(self, pod: Json) -> bool:
        """Without managed resources in every pod, else in those that ask for one of them."""
        return not self.managed_resources or any(
            name in (container.get("resources", {}).get(kind) or {})
            for field in ("containers", "initContainers")
            for container in pod["spec"].get(field) or ()
            for kind in ("requests", "limits")
            for name in self.managed_resources
        )

    def verb_url(self, verb: str) -> str:
        return f"{self.url.rstrip('/')}/{verb}"


@frozen
class Filtered:
    """Which nodes an extender lets pass, and what it says of the others."""

    passed: tuple[str, ...]
    failed: Mapping[str, str]
    unresolvable: Mapping[str, str]


Victims = Mapping[str, tuple[list[Json], int]]
"""node -> (the pods that would have to go, broken disruption budgets)"""


def extender_of(row: Json, base: str = "") -> Extender:
    tls = dict(row.get("tlsConfig") or {})
    for field in ("certFile", "keyFile", "caFile"):
        if tls.get(field):
            tls[field] = str(Path(base, tls[field]))
    timeout_s = parse_go_duration(row["httpTimeout"]) if row.get("httpTimeout") else 0.0
    return Extender(
        url=row.get("urlPrefix") or "",
        filter_verb=row.get("filterVerb") or "",
        prioritize_verb=row.get("prioritizeVerb") or "",
        preempt_verb=row.get("preemptVerb") or "",
        bind_verb=row.get("bindVerb") or "",
        weight=int(row.get("weight") or 0),
        timeout_s=timeout_s or DEFAULT_TIMEOUT_S,
        https=bool(row.get("enableHTTPS")),
        tls=tls,
        node_cache_capable=bool(row.get("nodeCacheCapable")),
        managed_resources=tuple(r.get("name") or "" for r in row.get("managedResources") or ()),
        ignorable=bool(row.get("ignorable")),
    )


def _pem(tls: Mapping[str, Any], data: str, file: str) -> str:
    if tls.get(data):
        return base64.b64decode(tls[data]).decode()
    return Path(tls[file]).read_text() if tls.get(file) else ""


def tls_context(extender: Extender) -> ssl.SSLContext | None:
    """Without a CA the server's certificate is not checked, as Kubernetes has it."""
    if urlsplit(extender.url).scheme != "https" and not extender.https:
        return None
    tls = extender.tls
    ca = _pem(tls, "caData", "caFile")
    return client_tls(
        ca_pem=ca,
        certificate_pem=_pem(tls, "certData", "certFile"),
        key_pem=_pem(tls, "keyData", "keyFile"),
        verify=bool(ca) and not tls.get("insecure"),
    )


def target_of(extender: Extender) -> Target:
    parts = urlsplit(extender.url)
    tls = tls_context(extender)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return Target(parts.hostname or "", port, tls, extender.tls.get("serverName") or "")


@attrs.define
class ExtenderCalls:
    """The connections to all extenders of a scheduler. Owned by it; `close` when it ends."""

    _pool: Pool = attrs.field(factory=Pool)
    _targets: dict[str, Target] = attrs.field(factory=dict)

    async def filter(self, extender: Extender, pod: Json, nodes: Mapping[str, Json]) -> Filtered:
        """`nodes` by name, in order."""
        answer = await self._send(extender, extender.filter_verb, _arguments(extender, pod, nodes))
        error = _field(answer, "Error")
        if error:
            raise ExtenderFailed(str(error))
        with _understood(extender, extender.filter_verb):
            return Filtered(
                _passed(extender, answer, nodes),
                dict(_field(answer, "FailedNodes") or {}),
                dict(_field(answer, "FailedAndUnresolvableNodes") or {}),
            )

    async def prioritize(self, extender: Extender, pod: Json, nodes: Mapping[str, Json]) -> dict[str, int]:
        """Weighted and stretched scores by node."""
        answer = await self._send(extender, extender.prioritize_verb, _arguments(extender, pod, nodes))
        scores: dict[str, int] = {}
        with _understood(extender, extender.prioritize_verb):
            for row in answer or ():
                host, score = str(_field(row, "Host") or ""), int(_field(row, "Score") or 0)
                scores[host] = scores.get(host, 0) + score * extender.weight * SCORE_FACTOR
        return scores

    async def preempt(
        self, extender: Extender, pod: Json, victims: Victims
    ) -> dict[str, tuple[list[str], int]]:
        """node -> (uids of the victims, broken budgets) for the nodes that remain."""
        answer = await self._send(extender, extender.preempt_verb, _preemption(extender, pod, victims))
        with _understood(extender, extender.preempt_verb):
            kept: dict[str, Json] = dict(_field(answer, "NodeNameToMetaVictims") or {})
            return {
                node: (
                    [str(_field(p, "UID") or "") for p in _field(row, "Pods") or ()],
                    int(_field(row, "NumPDBViolations") or 0),
                )
                for node, row in sorted(kept.items())
            }

    async def bind(self, extender: Extender, pod: Json, node: str) -> None:
        body = {
            "PodName": meta.name(pod),
            "PodNamespace": meta.namespace(pod),
            "PodUID": meta.uid(pod),
            "Node": node,
        }
        error = _field(await self._send(extender, extender.bind_verb, body), "Error")
        if error:
            raise ExtenderFailed(str(error))

    async def close(self) -> None:
        await self._pool.close()

    async def _send(self, extender: Extender, verb: str, body: Json) -> Any:
        url = extender.verb_url(verb)
        parts = urlsplit(url)
        request = Request(
            "POST", parts.path, parts.query, {"content-type": "application/json"}, orjson.dumps(body)
        )
        try:
            target = self._targets.get(extender.url)
            if target is None:
                target = self._targets[extender.url] = target_of(extender)
            response = await self._pool.send(request, target, extender.timeout_s)
        except RequestTimeout:
            why = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
            raise ExtenderFailed(f"Post {go_quote(url)}: {why}") from None
        except (ConnectError, OSError, ValueError) as error:
            raise ExtenderFailed(f"Post {go_quote(url)}: {error}") from error
        if response.status != 200:
            raise ExtenderFailed(f"failed {verb} with extender at URL {url}, code {response.status}")
        try:
            return orjson.loads(response.body)
        except ValueError as error:
            raise ExtenderFailed(f"{verb} of extender at URL {url}: {error}") from error


@contextmanager
def _understood(extender: Extender, verb: str) -> Iterator[None]:
    """An answer of another form than it should have is a failure of the extender, no fault of ours."""
    try:
        yield
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        url = extender.verb_url(verb)
        raise ExtenderFailed(
            f"{verb} of extender at URL {url}: its answer makes no sense: {error}"
        ) from error


def _field(document: Any, name: str) -> Any:
    """A field of an answer, its name in any case."""
    if not isinstance(document, dict):
        return None
    if name in document:
        return document[name]
    lower = name.lower()
    return next((value for key, value in document.items() if key.lower() == lower), None)


def _arguments(extender: Extender, pod: Json, nodes: Mapping[str, Json]) -> Json:
    if extender.node_cache_capable:
        return {"Pod": pod, "Nodes": None, "NodeNames": list(nodes)}
    return {
        "Pod": pod,
        "Nodes": {"kind": "NodeList", "apiVersion": "v1", "metadata": {}, "items": list(nodes.values())},
        "NodeNames": None,
    }


def _passed(extender: Extender, answer: Json, nodes: Mapping[str, Json]) -> tuple[str, ...]:
    names = _field(answer, "NodeNames")
    if extender.node_cache_capable and names is not None:
        for name in names:
            if name not in nodes:
                raise ExtenderFailed(
                    f"extender {go_quote(extender.url)} claims a filtered node {go_quote(name)} which is not found in "
                    "the input node list"
                )
        return tuple(names)
    kept = _field(answer, "Nodes")
    return tuple(meta.name(node) for node in _field(kept, "items") or ()) if kept is not None else ()


def _preemption(extender: Extender, pod: Json, victims: Victims) -> Json:
    body: Json = {"Pod": pod, "NodeNameToVictims": None, "NodeNameToMetaVictims": None}
    if extender.node_cache_capable:
        body["NodeNameToMetaVictims"] = {
            node: {"Pods": [{"UID": meta.uid(p)} for p in pods], "NumPDBViolations": broken}
            for node, (pods, broken) in victims.items()
        }
    else:
        body["NodeNameToVictims"] = {
            node: {"Pods": list(pods), "NumPDBViolations": broken} for node, (pods, broken) in victims.items()
        }
    return body


def interested(extenders: Sequence[Extender], pod: Json) -> list[Extender]:
    return [extender for extender in extenders if extender.is_interested(pod)]
