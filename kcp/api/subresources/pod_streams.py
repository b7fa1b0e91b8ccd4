"""pods/log, exec, attach, portforward.

Where a node can be reached, the control plane puts functions into `server.extras`; without them the answer says so.
    extras["pod_logs"]      (pod, container, params) -> str | bytes                      for nodes inside the process
    extras["node_peer"]     async (call, node) -> Response | None                        another server that runs the node
    extras["pod_streams"]   async (server, call, pod, container) -> Response             exec, attach, portforward
Source: k8s v1.36 pkg/registry/core/pod/strategy.go (LogLocation, streamLocation, validateContainer).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kcp.api.auth.protocol import PEER
from kcp.api.context import Call, Server
from kcp.api.options import integer
from kcp.api.verbs import get
from kcp.apis.kind import Json
from kcp.machinery.errors import BadRequest, FieldError, Invalid, ServiceUnavailable, forbidden, invalid
from kcp.wire.http import Response

DEFAULT_CONTAINER_ANNOTATION = "kubectl.kubernetes.io/default-container"


def _names(pod: Json, field: str) -> list[str]:
    return [container["name"] for container in (pod.get("spec") or {}).get(field) or ()]


def choose_container(pod: Json, wanted: str) -> str:
    """The container meant: the only one, the annotated one, or the one named. Raises BadRequest."""
    name = pod["metadata"]["name"]
    containers, inits = _names(pod, "containers"), _names(pod, "initContainers")
    ephemeral = _names(pod, "ephemeralContainers")
    if wanted:
        if wanted not in (*containers, *inits, *ephemeral):
            raise BadRequest(f"container {wanted} is not valid for pod {name}")
        return wanted
    if len(containers) == 1:
        return containers[0]
    marked = (pod["metadata"].get("annotations") or {}).get(DEFAULT_CONTAINER_ANNOTATION)
    if marked in containers:
        return str(marked)
    text = f"a container name must be specified for pod {name}, choose one of: [{' '.join(containers)}]"
    if inits:
        text += f" or one of the init containers: [{' '.join(inits)}]"
    raise BadRequest(text)


def _log_errors(params: Mapping[str, str]) -> list[FieldError]:
    """Source: k8s v1.36 pkg/apis/core/validation ValidatePodLogOptions, without the alpha PodLogsQuerySplitStreams."""
    errors = []
    for field, least in (("tailLines", 0), ("limitBytes", 1), ("sinceSeconds", 1)):
        if params.get(field) and integer(params[field]) < least:
            text = "must be greater than or equal to 0" if least == 0 else "must be greater than 0"
            errors.append(invalid(field, integer(params[field]), text))
    if params.get("sinceSeconds") and params.get("sinceTime"):
        errors = [error for error in errors if error.field != "sinceSeconds"]
        errors.append(forbidden("[]", "at most one of `sinceTime` or `sinceSeconds` may be specified"))
    if "stream" in params:
        errors.append(forbidden("stream", "may not be specified"))
    return errors


def _node(pod: Json) -> str:
    node = (pod.get("spec") or {}).get("nodeName")
    if not node:
        raise BadRequest(f"pod {pod['metadata']['name']} does not have a host assigned")
    return str(node)


def _unreachable(node: str, what: str) -> ServiceUnavailable:
    return ServiceUnavailable(f'{what} is not available on node "{node}": the node cannot be reached')


async def _elsewhere(server: Server, call: Call, node: str) -> Response:
    """Ask the server that runs the node; a request that another server passed on already goes no further."""
    peer: Any = server.extras.get("node_peer")
    answer: Response | None = None
    if peer is not None and call.user.name != PEER.name:
        answer = await peer(call, node)
    if answer is None:
        raise _unreachable(node, call.info.subresource)
    return answer


def _plain(body: bytes) -> Response:
    return Response(200, [("content-type", "text/plain")], body)


async def log(server: Server, call: Call) -> Response:
    """The container's output as text/plain; of a pod that no node has yet, nothing."""
    errors = _log_errors(call.params)
    if errors:
        raise Invalid.of("", "PodLogOptions", call.info.name, errors)
    pod = (await get.read(server, call)).value
    container = choose_container(pod, call.params.get("container", ""))
    if not (pod.get("spec") or {}).get("nodeName"):
        return _plain(b"")
    node = _node(pod)
    read: Any = server.extras.get("pod_logs")
    if read is None:
        return await _elsewhere(server, call, node)
    text = read(pod, container, call.params)
    body = text.encode() if isinstance(text, str) else text
    return _plain(body)


async def stream(server: Server, call: Call) -> Response:
    """exec, attach and portforward: handed to whoever reaches the node."""
    pod = (await get.read(server, call)).value
    what = call.info.subresource
    container = "" if what == "portforward" else choose_container(pod, call.params.get("container", ""))
    node = _node(pod)
    connect: Any = server.extras.get("pod_streams")
    if connect is None:
        raise _unreachable(node, what)
    response: Response = await connect(server, call, pod, container)
    return response
