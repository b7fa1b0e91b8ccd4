"""What conformance asks of files in volumes, seen in what a container prints of them."""

from __future__ import annotations

import base64
from functools import partial
from typing import Any

from tests.conformance.containers import pods_of
from tests.conformance.door import Door
from tests.conformance.environments import of_field, of_resource
from tests.conformance.objects import container, pod
from tests.conformance.pods import phase
from tests.conformance.scoreboard import on_nodes

Json = dict[str, Any]
STORAGE = "[sig-storage] "
AT = "/etc/volume"
DATA = {"data-1": "value-1", "data-2": "value-2", "data-3": "value-3"}
NON_ROOT = {"runAsUser": 1000}
MAPPED = {"key": "data-2", "path": "path/to/data-2"}
SOURCES = {
    "ConfigMap": ("configmaps", "configMap", "name", False),
    "Projected configMap": ("configmaps", "configMap", "name", True),
    "Secrets": ("secrets", "secret", "secretName", False),
    "Projected secret": ("secrets", "secret", "name", True),
}
"""By the words of the behaviours: where objects are, the kind of volume, its field for the name, whether it is projected."""


def volume(what: str, **more: Any) -> Json:
    """A volume of the object `source`; `items` belong to it, a mode to the whole."""
    _, kind, field, projected = SOURCES[what]
    items = {"items": more.pop("items")} if "items" in more else {}
    if not projected:
        return {kind: {field: "source", **items, **more}}
    return {"projected": {"sources": [{kind: {field: "source", **items}}], **more}}


async def with_source(door: Door, what: str, namespace: str) -> str:
    """The path of the pods beside an object `source` that holds DATA."""
    pods = await pods_of(door, namespace)
    plural, kind, _, _ = SOURCES[what]
    data = (
        DATA if kind == "configMap" else {k: base64.b64encode(v.encode()).decode() for k, v in DATA.items()}
    )
    await door.create(pods.replace("/pods", f"/{plural}"), {"metadata": {"name": "source"}, "data": data})
    return pods


async def shown(
    door: Door, pods: str, script: str, volumes: Json, *, mounts: list[Json] | None = None, **spec: Any
) -> list[str]:
    """What a container prints that has these volumes, each mounted at AT and its name unless `mounts` say where."""
    mounted = mounts or [{"name": name, "mountPath": f"{AT}/{name}", "readOnly": True} for name in volumes]
    more = spec.pop("container", {})
    listed = [{"name": name, **source} for name, source in volumes.items()]
    body = pod("reader", restartPolicy="Never", volumes=listed, **spec)
    body["spec"]["containers"] = [container("main", script, volumeMounts=mounted, **more)]
    await door.create(pods, body)
    await door.eventually(f"{pods}/reader", phase("Succeeded"))
    answer = await door.ask("GET", f"{pods}/reader/log")
    return answer.body.decode().splitlines()


async def plain(door: Door, what: str, security: Json | None = None) -> None:
    pods = await with_source(door, what, f"plain-{_short(what)}-{len(security or ())}")
    script = f"cat {AT}/v/data-1; echo; stat -c %a {AT}/v/data-1; ls {AT}/v"
    lines = await shown(door, pods, script, {"v": volume(what)}, securityContext=security or {})
    assert lines == ["value-1", "644", *DATA]


async def with_mode(door: Door, what: str) -> None:
    pods = await with_source(door, what, f"mode-{_short(what)}")
    script = f"cat {AT}/v/data-1; echo; stat -c %a {AT}/v/data-1"
    assert await shown(door, pods, script, {"v": volume(what, defaultMode=0o400)}) == ["value-1", "400"]


async def with_group(door: Door, what: str) -> None:
    """The group of the volume may read in any case."""
    pods = await with_source(door, what, f"group-{_short(what)}")
    script = f"cat {AT}/v/data-1; echo; stat -c %a {AT}/v/data-1"
    security = {**NON_ROOT, "fsGroup": 1001}
    lines = await shown(door, pods, script, {"v": volume(what, defaultMode=0o400)}, securityContext=security)
    assert lines == ["value-1", "440"]


async def mapped(door: Door, what: str, security: Json | None = None) -> None:
    pods = await with_source(door, what, f"mapped-{_short(what)}-{len(security or ())}")
    script = f"cat {AT}/v/path/to/data-2; echo; stat -c %a {AT}/v/path/to/data-2; ls {AT}/v"
    lines = await shown(
        door, pods, script, {"v": volume(what, items=[MAPPED])}, securityContext=security or {}
    )
    assert lines == ["value-2", "644", "path"]


async def mapped_with_mode(door: Door, what: str) -> None:
    pods = await with_source(door, what, f"mapped-mode-{_short(what)}")
    script = f"stat -c %a {AT}/v/path/to/data-2"
    assert await shown(door, pods, script, {"v": volume(what, items=[{**MAPPED, "mode": 0o400}])}) == ["400"]


async def twice(door: Door, what: str) -> None:
    pods = await with_source(door, what, f"twice-{_short(what)}")
    script = f"cat {AT}/one/data-1; echo; cat {AT}/two/data-1"
    volumes = {"one": volume(what), "two": volume(what)}
    assert await shown(door, pods, script, volumes) == ["value-1", "value-1"]


def _short(what: str) -> str:
    return what.lower().replace(" ", "-")


LINUX, NODE = " [LinuxOnly] [NodeConformance]", " [NodeConformance]"
for _what, _row in SOURCES.items():
    _consumable = f"{STORAGE}{_what} should be consumable "
    _mode = "Item mode" if _row[1] == "configMap" else "Item Mode"
    on_nodes(f"{_consumable}from pods in volume{NODE}")(partial(plain, what=_what))
    on_nodes(f"{_consumable}from pods in volume with defaultMode set{LINUX}")(partial(with_mode, what=_what))
    on_nodes(f"{_consumable}from pods in volume with mappings{NODE}")(partial(mapped, what=_what))
    on_nodes(f"{_consumable}from pods in volume with mappings and {_mode} set{LINUX}")(
        partial(mapped_with_mode, what=_what)
    )
    _same = "the same pod" if _row[1] == "configMap" else "a pod"
    on_nodes(f"{_consumable}in multiple volumes in {_same}{NODE}")(partial(twice, what=_what))
    if _row[1] == "secret":
        on_nodes(f"{_consumable}from pods in volume as non-root with defaultMode and fsGroup set{LINUX}")(
            partial(with_group, what=_what)
        )
    else:
        on_nodes(f"{_consumable}from pods in volume as non-root{NODE}")(
            partial(plain, what=_what, security=NON_ROOT)
        )
        on_nodes(f"{_consumable}from pods in volume with mappings as non-root{NODE}")(
            partial(mapped, what=_what, security=NON_ROOT)
        )


@on_nodes(
    STORAGE
    + "Secrets should be able to mount in a volume regardless of a different secret existing with same name in different namespace"
    + NODE
)
async def another_namespace(door: Door) -> None:
    other = await pods_of(door, "secret-of-others")
    data = {"data-1": base64.b64encode(b"theirs").decode()}
    await door.create(other.replace("/pods", "/secrets"), {"metadata": {"name": "source"}, "data": data})
    pods = await with_source(door, "Secrets", "secret-of-ours")
    assert await shown(door, pods, f"cat {AT}/v/data-1", {"v": volume("Secrets")}) == ["value-1"]


# -- the downward API

RESOURCES = {"requests": {"cpu": "250m", "memory": "32Mi"}, "limits": {"cpu": "1250m", "memory": "64Mi"}}
AMOUNTS = {
    "provide container's cpu limit": ("limits.cpu", "2", RESOURCES),
    "provide container's cpu request": ("requests.cpu", "1", RESOURCES),
    "provide container's memory limit": ("limits.memory", str(64 << 20), RESOURCES),
    "provide container's memory request": ("requests.memory", str(32 << 20), RESOURCES),
    "provide node allocatable (cpu) as default cpu limit if the limit is not set": ("limits.cpu", "64", {}),
    "provide node allocatable (memory) as default memory limit if the limit is not set": (
        "limits.memory",
        str(256 << 30),
        {},
    ),
}


def downward(projected: bool, items: list[Json], **more: Any) -> Json:
    if projected:
        return {"projected": {"sources": [{"downwardAPI": {"items": items}}], **more}}
    return {"downwardAPI": {"items": items, **more}}


def item(path: str, source: Json, **more: Any) -> Json:
    return {"path": path, **source["valueFrom"], **more}


async def of_amount(door: Door, projected: bool, resource: str, value: str, resources: Json) -> None:
    name = f"downward-{resource.replace('.', '-')}-{len(resources)}-{int(projected)}"
    pods = await pods_of(door, name)
    source = of_resource("", resource)
    source["valueFrom"]["resourceFieldRef"]["containerName"] = "main"
    wanted = downward(projected, [item("amount", source)])
    container_ = {"resources": resources}
    assert await shown(door, pods, f"cat {AT}/v/amount", {"v": wanted}, container=container_) == [value]


async def pod_name(door: Door, projected: bool) -> None:
    pods = await pods_of(door, f"downward-name-{int(projected)}")
    items = [item("podname", of_field("", "metadata.name")), item("labels", of_field("", "metadata.labels"))]
    script = f"cat {AT}/v/podname; echo; cat {AT}/v/labels"
    lines = await shown(door, pods, script, {"v": downward(projected, items)})
    assert lines == ["reader", 'name="reader"']


async def downward_mode(door: Door, projected: bool, of_item: bool) -> None:
    pods = await pods_of(door, f"downward-mode-{int(projected)}-{int(of_item)}")
    mode = {"mode": 0o400} if of_item else {}
    wanted = downward(
        projected,
        [item("podname", of_field("", "metadata.name"), **mode)],
        **({} if of_item else {"defaultMode": 0o400}),
    )
    assert await shown(door, pods, f"stat -c %a {AT}/v/podname", {"v": wanted}) == ["400"]


for _name, _projected in (("Downward API volume", False), ("Projected downwardAPI", True)):
    _should = f"{STORAGE}{_name} should "
    on_nodes(f"{_should}provide podname only{NODE}")(partial(pod_name, projected=_projected))
    on_nodes(f"{_should}set DefaultMode on files{LINUX}")(
        partial(downward_mode, projected=_projected, of_item=False)
    )
    on_nodes(f"{_should}set mode on item file{LINUX}")(
        partial(downward_mode, projected=_projected, of_item=True)
    )
    for _behaviour, (_resource, _value, _given) in AMOUNTS.items():
        on_nodes(f"{_should}{_behaviour}{NODE}")(
            partial(of_amount, projected=_projected, resource=_resource, value=_value, resources=_given)
        )


# -- all together, and parts of volumes


@on_nodes(
    STORAGE
    + "Projected combined should project all components that make up the projection API [Projection]"
    + NODE
)
async def combined(door: Door) -> None:
    pods = await with_source(door, "ConfigMap", "projected-all")
    data = {"password": base64.b64encode(b"secret").decode()}
    await door.create(pods.replace("/pods", "/secrets"), {"metadata": {"name": "mine"}, "data": data})
    sources = [
        {"secret": {"name": "mine", "items": [{"key": "password", "path": "secret/password"}]}},
        {"configMap": {"name": "source", "items": [{"key": "data-1", "path": "config/data-1"}]}},
        {"downwardAPI": {"items": [item("podname", of_field("", "metadata.name"))]}},
    ]
    files = ("podname", "secret/password", "config/data-1")
    script = "; echo; ".join(f"cat {AT}/v/{file}" for file in files)
    lines = await shown(door, pods, script, {"v": {"projected": {"sources": sources}}})
    assert lines == ["reader", "secret", "value-1"]


ATOMIC = STORAGE + "Subpath Atomic writer volumes should support subpaths with "
PARTS: dict[str, tuple[str, Json, str, str]] = {
    "configmap pod": ("ConfigMap", volume("ConfigMap"), "data-1", "value-1"),
    "secret pod": ("Secrets", volume("Secrets"), "data-1", "value-1"),
    "projected pod": ("Projected configMap", volume("Projected configMap"), "data-1", "value-1"),
    "downward pod": (
        "ConfigMap",
        downward(False, [item("downward/podname", of_field("", "metadata.name"))]),
        "downward/podname",
        "reader",
    ),
    "configmap pod with mountPath of existing file": ("ConfigMap", volume("ConfigMap"), "data-1", "value-1"),
}


async def part(door: Door, name: str) -> None:
    what, source, inside, content = PARTS[name]
    pods = await with_source(door, what, f"subpath-{name.replace(' ', '-').lower()}")
    at = "/etc/resolv.conf" if "existing" in name else "/test-volume"
    mount = {"name": "v", "mountPath": at, "subPath": inside}
    assert await shown(door, pods, f"cat {at}", {"v": source}, mounts=[mount]) == [content]


for _name in PARTS:
    on_nodes(ATOMIC + _name)(partial(part, name=_name))


@on_nodes(STORAGE + "EmptyDir wrapper volumes should not conflict")
async def no_conflict(door: Door) -> None:
    pods = await with_source(door, "ConfigMap", "wrappers")
    data = {"key": base64.b64encode(b"value").decode()}
    await door.create(pods.replace("/pods", "/secrets"), {"metadata": {"name": "source"}, "data": data})
    volumes = {"secret": volume("Secrets"), "config": volume("ConfigMap"), "empty": {"emptyDir": {}}}
    lines = await shown(door, pods, f"cat {AT}/secret/key; echo; cat {AT}/config/data-2", volumes)
    assert lines == ["value", "value-2"]


@on_nodes(STORAGE + "EmptyDir volumes pod should support shared volumes between containers")
async def shared(door: Door) -> None:
    pods = await pods_of(door, "empty-shared")
    mount = {"name": "v", "mountPath": "/usr/share/volumeshare"}
    file = "/usr/share/volumeshare/shareddata.txt"
    writer = container(
        "writer", f"echo 'Hello from the busy-box sub-container' > {file}", volumeMounts=[mount]
    )
    lines = await shown(
        door, pods, f"cat {file}", {"v": {"emptyDir": {}}}, mounts=[mount], initContainers=[writer]
    )
    assert lines == ["Hello from the busy-box sub-container"]


EXPANDED = "[sig-node] Variable Expansion should "


@on_nodes(EXPANDED + "succeed in writing subpaths in container")
async def writes_below(door: Door) -> None:
    pods = await pods_of(door, "subpath-writes")
    env = [of_field("ANNOTATION", "metadata.annotations['mysubpath']")]
    part = {"name": "v", "mountPath": "/subpath_mount", "subPathExpr": "$(ANNOTATION)/$(ANNOTATION)"}
    whole = {"name": "v", "mountPath": "/volume_mount"}
    writer = container("writer", "echo written > /subpath_mount/test.log", env=env, volumeMounts=[part])
    script = "cat /volume_mount/mypath/mypath/test.log"
    body = pod("reader", script, annotations={"mysubpath": "mypath"}, restartPolicy="Never")
    body["spec"] |= {"volumes": [{"name": "v", "emptyDir": {}}], "initContainers": [writer]}
    body["spec"]["containers"][0]["volumeMounts"] = [whole]
    await door.create(pods, body)
    await door.eventually(f"{pods}/reader", phase("Succeeded"))
    assert (await door.ask("GET", f"{pods}/reader/log")).body == b"written\n"


@on_nodes(EXPANDED + "allow substituting values in a volume subpath")
async def expanded_below(door: Door) -> None:
    pods = await pods_of(door, "subpath-expanded")
    env = [of_field("POD_NAME", "metadata.name")]
    part = {"name": "v", "mountPath": "/logscontainer", "subPathExpr": "$(POD_NAME)"}
    whole = {"name": "v", "mountPath": "/testcontainer"}
    writer = container("writer", "echo here > /logscontainer/log", env=env, volumeMounts=[part])
    script = "test -f /testcontainer/reader/log && cat /testcontainer/reader/log"
    lines = await shown(door, pods, script, {"v": {"emptyDir": {}}}, mounts=[whole], initContainers=[writer])
    assert lines == ["here"]


# -- the hosts file

MANAGED = "# Kubernetes-managed hosts file."


async def hosts_file(door: Door, namespace: str, **spec: Any) -> list[str]:
    return await shown(door, await pods_of(door, namespace), "cat /etc/hosts", {}, **spec)


@on_nodes(
    "[sig-node] Kubelet when scheduling an agnhost Pod with hostAliases should write entries to /etc/hosts [NodeConformance]"
)
async def aliases(door: Door) -> None:
    alias = {"ip": "123.45.67.89", "hostnames": ["foo", "bar"]}
    lines = await hosts_file(door, "host-aliases", hostAliases=[alias])
    assert lines[-2:] == ["# Entries added by HostAliases.", "123.45.67.89\tfoo\tbar"]


@on_nodes("[sig-node] KubeletManagedEtcHosts should test kubelet managed /etc/hosts file [NodeConformance]")
async def managed(door: Door) -> None:
    assert (await hosts_file(door, "hosts-managed"))[0] == MANAGED
    assert MANAGED not in "\n".join(await hosts_file(door, "hosts-of-the-node", hostNetwork=True))
    own = {"name": "v", "mountPath": "/etc/hosts", "subPath": "data-1"}
    pods = await with_source(door, "ConfigMap", "hosts-of-its-own")
    assert await shown(door, pods, "cat /etc/hosts", {"v": volume("ConfigMap")}, mounts=[own]) == ["value-1"]


@on_nodes("[sig-network] DNS should provide /etc/hosts entries for the cluster")
async def own_name(door: Door) -> None:
    spec = {"hostname": "dns-querier-1", "subdomain": "dns-test-service"}
    lines = await hosts_file(door, "hosts-own-name", **spec)
    name = "dns-querier-1.dns-test-service.hosts-own-name.svc.cluster.local\tdns-querier-1"
    (found,) = [line for line in lines if line.endswith(f"\t{name}")]
    assert found.startswith("10.")


@on_nodes("[sig-network] DNS should support configurable pod DNS nameservers")
async def own_nameservers(door: Door) -> None:
    pods = await pods_of(door, "own-nameservers")
    config = {"nameservers": ["1.1.1.1"], "searches": ["resolv.conf.local"]}
    lines = await shown(door, pods, "cat /etc/resolv.conf", {}, dnsPolicy="None", dnsConfig=config)
    assert lines == ["search resolv.conf.local", "nameserver 1.1.1.1"]


# -- tokens

WHERE = "/var/run/secrets/kubernetes.io/serviceaccount"


async def whose(door: Door, token: str, *audiences: str) -> Json:
    spec = {"token": token, **({"audiences": list(audiences)} if audiences else {})}
    review = await door.create("/apis/authentication.k8s.io/v1/tokenreviews", {"spec": spec})
    status: Json = review["status"]
    return status


@on_nodes("[sig-auth] ServiceAccounts should mount an API token into pods")
async def own_token(door: Door) -> None:
    pods = await pods_of(door, "token-mounted")
    await door.create(pods.replace("/pods", "/serviceaccounts"), {"metadata": {"name": "mount-test"}})
    script = f"cat {WHERE}/token; echo; cat {WHERE}/namespace; echo; cat {WHERE}/ca.crt"
    body = pod("reader", script, restartPolicy="Never", serviceAccountName="mount-test")
    await door.create(pods, body)
    made = await door.eventually(f"{pods}/reader", phase("Succeeded"))
    token, namespace, *authority = (await door.ask("GET", f"{pods}/reader/log")).body.decode().splitlines()
    assert namespace == "token-mounted"
    root = await door.get(pods.replace("/pods", "/configmaps/kube-root-ca.crt"))
    assert authority == root["data"]["ca.crt"].splitlines()
    reviewed = await whose(door, token)
    assert reviewed["user"]["username"] == "system:serviceaccount:token-mounted:mount-test"
    assert reviewed["user"]["extra"]["authentication.kubernetes.io/pod-uid"] == [made["metadata"]["uid"]]


@on_nodes("[sig-auth] ServiceAccounts should mount projected service account token")
async def projected_token(door: Door) -> None:
    pods = await pods_of(door, "token-projected")
    source = {"serviceAccountToken": {"path": "token", "expirationSeconds": 3600, "audience": "vault"}}
    (token,) = await shown(door, pods, f"cat {AT}/v/token", {"v": {"projected": {"sources": [source]}}})
    assert (await whose(door, token, "vault"))["audiences"] == ["vault"]
    assert not (await whose(door, token)).get("authenticated")
