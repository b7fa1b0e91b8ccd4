"""The files of a container's mounts: of ConfigMaps, Secrets, the downward API, tokens, and these together in one volume.

They are worked out when the container starts. ConfigMaps and Secrets have to be there; the other volumes are set up only
for mounts that the command names: who does not look sees no files, and costs nothing. Volumes of other kinds begin empty. The hosts file that the kubelet writes is there as well, and
the resolv.conf of a pod that brings its own DNS configuration.
Source: k8s v1.36 pkg/volume/{configmap,secret,downwardapi,projected}, pkg/fieldpath/fieldpath.go (FormatMap),
pkg/volume/volume_linux.go (fsGroup).
"""

from __future__ import annotations

import base64
import posixpath
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from kcp.base.values import frozen
from kcp.machinery import meta
from kcp.machinery.errors import ApiError, NotFound, go_quote
from kcp.node.environment import ConfigError, Node, Place, expand, of_amount, of_field

Json = dict[str, Any]
Files = dict[str, tuple[str, int]]
"""Path -> (content, mode)."""
Source = Callable[["Reader", Json, int], Awaitable[Files]]
DEFAULT_MODE = 0o644
READABLE_BY_GROUP = 0o440
TOKEN_LASTS_S = 3600
HOSTS, RESOLV_CONF = "/etc/hosts", "/etc/resolv.conf"
CLUSTER_DOMAIN = "cluster.local"
_MANAGED_HOSTS = (
    "# Kubernetes-managed hosts file.",
    "127.0.0.1\tlocalhost",
    "::1\tlocalhost ip6-localhost ip6-loopback",
    "fe00::0\tip6-localnet",
    "fe00::0\tip6-mcastprefix",
    "fe00::1\tip6-allnodes",
    "fe00::2\tip6-allrouters",
)
_MAPS = ("metadata.labels", "metadata.annotations")


class NotMounted(Exception):
    """Raised when a volume cannot be set up; the text is what the kubelet's Event FailedMount says."""


@frozen
class Reader:
    """On whose behalf volumes are read."""

    node: Node
    pod: Json
    container: Json
    place: Place

    async def get(self, resource: str, kind: str, name: str, *, optional: bool) -> Json | None:
        """None: it is not there and need not be."""
        try:
            return await self.node.client.get(resource, name, meta.namespace(self.pod))
        except NotFound:
            if optional:
                return None
            raise NotMounted(f'{kind} "{name}" not found') from None
        except ApiError as error:
            raise NotMounted(str(error)) from None


async def of_container(
    node: Node, pod: Json, container: Json, variables: Mapping[str, str], pod_ips: Sequence[str]
) -> Files | None:
    """What the container finds; None when it does not look. Raises NotMounted."""
    mounts = container.get("volumeMounts") or ()
    text = " ".join([*(container.get("command") or ()), *(container.get("args") or ())])
    needed = _needed(pod) if mounts else ()
    named = [mount for mount in mounts if mount["name"] in needed or mount["mountPath"].rstrip("/") in text]
    found: Files = {}
    if HOSTS in text and not any(mount["mountPath"] == HOSTS for mount in mounts):
        found[HOSTS] = hosts(pod, pod_ips), DEFAULT_MODE
    if RESOLV_CONF in text and pod["spec"].get("dnsPolicy") == "None":
        found[RESOLV_CONF] = resolv_conf(pod["spec"].get("dnsConfig") or {}), DEFAULT_MODE
    if named:
        found.update(await _of_mounts(node, pod, container, named, variables, pod_ips))
    return found or ({} if named else None)


def _needed(pod: Json) -> frozenset[str]:
    """The volumes without which no container starts, whether it looks or not."""
    volumes = pod["spec"].get("volumes") or ()
    return frozenset(volume["name"] for volume in volumes if "configMap" in volume or "secret" in volume)


async def _of_mounts(
    node: Node,
    pod: Json,
    container: Json,
    mounts: Sequence[Json],
    variables: Mapping[str, str],
    pod_ips: Sequence[str],
) -> Files:
    allocatable = (node.node.get("status") or {}).get("allocatable") or {}
    reader = Reader(node, pod, container, Place(node.host_ip, pod_ips, allocatable))
    volumes = {volume["name"]: volume for volume in pod["spec"].get("volumes") or ()}
    found: Files = {}
    for mount in mounts:
        files = await _of_volume(reader, volumes.get(mount["name"], {"name": mount["name"]}))
        inside = mount.get("subPath") or expand(mount.get("subPathExpr") or "", variables)
        found.update(_placed(files, mount["mountPath"], inside.strip("/")))
    return found


def hosts(pod: Json, pod_ips: Sequence[str]) -> str:
    """The hosts file that the kubelet writes. Source: k8s v1.36 pkg/kubelet/kubelet_pods.go (managedHostsFileContent)."""
    spec = pod["spec"]
    if spec.get("hostNetwork"):
        lines = ["# Kubernetes-managed hosts file (host network).", "127.0.0.1\tlocalhost"]
    else:
        name = spec.get("hostname") or meta.name(pod)
        names = name
        if spec.get("subdomain"):
            names = f"{name}.{spec['subdomain']}.{meta.namespace(pod)}.svc.{CLUSTER_DOMAIN}\t{name}"
        lines = [*_MANAGED_HOSTS, *(f"{ip}\t{names}" for ip in pod_ips)]
    aliases = spec.get("hostAliases") or ()
    if aliases:
        lines += ["", "# Entries added by HostAliases."]
        lines += ["\t".join([alias["ip"], *(alias.get("hostnames") or ())]) for alias in aliases]
    return "".join(f"{line}\n" for line in lines)


def resolv_conf(config: Json) -> str:
    """What a dnsConfig alone comes to, in containerd's order."""
    options = [
        f"{option['name']}:{option['value']}" if option.get("value") is not None else option["name"]
        for option in config.get("options") or ()
    ]
    lines = [f"nameserver {server}" for server in config.get("nameservers") or ()]
    if config.get("searches"):
        lines.insert(0, f"search {' '.join(config['searches'])}")
    if options:
        lines.append(f"options {' '.join(options)}")
    return "".join(f"{line}\n" for line in lines)


def _placed(files: Files, at: str, inside: str) -> Files:
    """Where a mount shows files of its volume: all, those below a directory of it, or one file under another name."""
    if inside in files:
        return {at: files[inside]}
    start = f"{inside}/" if inside else ""
    return {
        posixpath.join(at, path[len(start) :]): file for path, file in files.items() if path.startswith(start)
    }


async def _of_volume(reader: Reader, volume: Json) -> Files:
    for kind, read in _VOLUMES.items():
        source = volume.get(kind)
        if source is None:
            continue
        mode = source.get("defaultMode", DEFAULT_MODE)
        try:
            files = await read(reader, source, mode)
        except (NotMounted, ConfigError) as error:
            text = f'MountVolume.SetUp failed for volume "{volume["name"]}" : {error}'
            raise NotMounted(text) from None
        group = (reader.pod["spec"].get("securityContext") or {}).get("fsGroup")
        more = READABLE_BY_GROUP if group is not None else 0
        return {path: (content, mode | more) for path, (content, mode) in files.items()}
    return {}


async def _config_map(reader: Reader, source: Json, mode: int) -> Files:
    optional = bool(source.get("optional"))
    found = await reader.get("configmaps", "configmap", source.get("name") or "", optional=optional) or {}
    data = {**(found.get("data") or {}), **_decoded(found.get("binaryData"))}
    return _chosen(data, source, mode, "configmap references non-existent config key")


async def _secret(reader: Reader, source: Json, mode: int) -> Files:
    name = source.get("secretName") or source.get("name") or ""
    found = await reader.get("secrets", "secret", name, optional=bool(source.get("optional"))) or {}
    return _chosen(_decoded(found.get("data")), source, mode, "references non-existent secret key")


def _decoded(data: Json | None) -> dict[str, str]:
    return {key: base64.b64decode(value).decode("utf-8", "replace") for key, value in (data or {}).items()}


def _chosen(data: Mapping[str, str], source: Json, mode: int, missing: str) -> Files:
    """Everything under its own name, or what is listed where it is listed."""
    if not source.get("items"):
        return {key: (value, mode) for key, value in data.items()}
    found: Files = {}
    for item in source["items"]:
        if item["key"] in data:
            found[item["path"]] = data[item["key"]], item.get("mode", mode)
        elif not source.get("optional"):
            raise NotMounted(f"{missing}: {item['key']}")
    return found


async def _downward(reader: Reader, source: Json, mode: int) -> Files:
    found: Files = {}
    for item in source.get("items") or ():
        if "resourceFieldRef" in item:
            content = of_amount(reader.pod, reader.container, item["resourceFieldRef"], reader.place)
        else:
            content = _of_field(reader, item["fieldRef"]["fieldPath"])
        found[item["path"]] = content, item.get("mode", mode)
    return found


def _of_field(reader: Reader, path: str) -> str:
    if path not in _MAPS:
        return of_field(reader.pod, path, reader.place)
    pairs = reader.pod["metadata"].get(path.removeprefix("metadata.")) or {}
    return "\n".join(f"{key}={go_quote(value)}" for key, value in sorted(pairs.items()))


async def _token(reader: Reader, source: Json, mode: int) -> Files:
    """A token of the pod's account, bound to the pod."""
    pod = reader.pod
    bound = {"apiVersion": "v1", "kind": "Pod", "name": meta.name(pod), "uid": meta.uid(pod)}
    audience = source.get("audience")
    spec = {
        "audiences": [audience] if audience else [],
        "expirationSeconds": source.get("expirationSeconds", TOKEN_LASTS_S),
        "boundObjectRef": bound,
    }
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
    account = pod["spec"].get("serviceAccountName") or "default"
    try:
        made = await reader.node.client.create(
            "serviceaccounts", request, meta.namespace(pod), name=account, subresource="token"
        )
    except ApiError as error:
        raise NotMounted(f"failed to fetch token: {error}") from None
    assert made.object is not None
    return {source["path"]: (made.object["status"]["token"], mode)}


async def _projected(reader: Reader, source: Json, mode: int) -> Files:
    found: Files = {}
    for part in source.get("sources") or ():
        for kind, read in _PROJECTED.items():
            if kind in part:
                found.update(await read(reader, part[kind], mode))
    return found


_PROJECTED: Mapping[str, Source] = {
    "configMap": _config_map,
    "secret": _secret,
    "downwardAPI": _downward,
    "serviceAccountToken": _token,
}
_VOLUMES: Mapping[str, Source] = {
    "configMap": _config_map,
    "secret": _secret,
    "downwardAPI": _downward,
    "projected": _projected,
}
