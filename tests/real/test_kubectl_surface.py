"""kubectl works as on any cluster: reading, writing, changing, asking."""

from __future__ import annotations

import json
import os
import queue
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.real.daemon import eventually
from tests.real.https import Api
from tests.real.kinds import signing_request
from tests.real.kubectl import Kubectl

pytestmark = pytest.mark.real

CONFIG = """
apiVersion: v1
kind: ConfigMap
metadata:
  name: settings
data:
  colour: {colour}
{more}"""
WEB = """
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
spec:
  replicas: 0
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
        - {name: web, image: "example.com/web:v1", ports: [{containerPort: 80}]}
        - {name: side, image: "example.com/side:v1"}
"""


def config(colour: str = "blue", more: str = "") -> str:
    return CONFIG.format(colour=colour, more=more)


# -- asking the server about itself ---------------------------------------------------------------------


def test_version_and_cluster_info(kubectl: Kubectl, api: Api) -> None:
    version = kubectl.json("version")
    assert version["serverVersion"]["gitVersion"].startswith("v1.36.")
    assert f"Kubernetes control plane is running at https://127.0.0.1:{api.port}" in plain(
        kubectl("cluster-info")
    )


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def test_api_resources(kubectl: Kubectl) -> None:
    rows = kubectl.rows("api-resources")
    assert rows[0] == ["NAME", "SHORTNAMES", "APIVERSION", "NAMESPACED", "KIND"]
    assert ["deployments", "deploy", "apps/v1", "true", "Deployment"] in rows
    assert ["nodes", "no", "v1", "false", "Node"] in rows
    names = kubectl("api-resources", "--verbs=list", "--namespaced", "-o", "name").split()
    assert "cronjobs.batch" in names and "nodes" not in names
    assert {"v1", "apps/v1", "batch/v1", "networking.k8s.io/v1"} <= set(kubectl("api-versions").split())


def test_explain(kubectl: Kubectl) -> None:
    containers = kubectl("explain", "pod.spec.containers")
    assert "FIELD: containers <[]Container>" in containers
    assert "List of containers belonging to the pod." in containers
    assert "  image\t<string>" in containers
    recursive = kubectl("explain", "deployment", "--recursive")
    assert "GROUP:      apps" in recursive and "maxSurge" in recursive
    assert 'field "nope" does not exist' in kubectl.fails("explain", "pod.spec.nope")


def test_raw_paths(kubectl: Kubectl) -> None:
    assert [kubectl("get", "--raw", path) for path in ("/healthz", "/livez", "/readyz")] == ["ok"] * 3
    assert "[+]ping ok" in kubectl("get", "--raw", "/readyz?verbose")
    assert json.loads(kubectl("get", "--raw", "/version"))["minor"] == "36"
    assert json.loads(kubectl("get", "--raw", "/openapi/v2"))["swagger"] == "2.0"
    assert "apis/apps/v1" in json.loads(kubectl("get", "--raw", "/openapi/v3"))["paths"]
    assert "# TYPE " in kubectl("get", "--raw", "/metrics")


def test_who_may_do_what(kubectl: Kubectl) -> None:
    assert kubectl("auth", "can-i", "create", "pods") == "yes\n"
    assert kubectl.run("auth", "can-i", "delete", "nodes", "--as=jane").stdout == "no\n"
    assert "*.*" in kubectl("auth", "can-i", "--list")
    who = kubectl("auth", "whoami")
    assert re.search(r"^Username +kubernetes-admin$", who, re.M)
    assert "[kubeadm:cluster-admins system:authenticated]" in who
    denied = kubectl.fails("get", "secrets", "--as=jane")
    assert denied == (
        'Error from server (Forbidden): secrets is forbidden: User "jane" cannot list resource "secrets" '
        f'in API group "" in the namespace "{kubectl.namespace}"'
    )


def test_a_role_lets_somebody_in(kubectl: Kubectl) -> None:
    kubectl("create", "role", "reader", "--verb=get,list", "--resource=configmaps")
    kubectl("create", "rolebinding", "jane-reads", "--role=reader", "--user=jane")
    eventually(
        lambda: kubectl.run("auth", "can-i", "list", "configmaps", "--as=jane").stdout == "yes\n",
        "jane may list",
    )
    kubectl("get", "configmaps", "--as=jane")
    assert "Forbidden" in kubectl.fails("delete", "configmap", "kube-root-ca.crt", "--as=jane")


# -- reading --------------------------------------------------------------------------------------------


def test_output_formats(kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", stdin=config())
    kubectl("apply", "-f", "-", stdin=WEB)
    get = ("get", "configmap", "settings")
    assert kubectl(*get, "-o", "name") == "configmap/settings\n"
    assert kubectl.json(*get)["data"] == {"colour": "blue"}
    assert "  colour: blue\n" in kubectl(*get, "-o", "yaml")
    assert kubectl(*get, "-o", "jsonpath={.data.colour}") == "blue"
    assert kubectl(*get, "-o", "custom-columns=N:.metadata.name,C:.data.colour").split() == [
        *("N", "C"),
        *("settings", "blue"),
    ]
    assert kubectl(*get, "-o", "go-template={{.data.colour}}") == "blue"
    wide = kubectl.rows("get", "deployment", "web", "-o", "wide")
    assert wide[1][5:] == ["web,side", "example.com/web:v1,example.com/side:v1", "app=web"]
    assert "managedFields" not in kubectl(*get, "-o", "yaml")
    assert "managedFields" in kubectl(*get, "-o", "yaml", "--show-managed-fields")


def test_lists(kubectl: Kubectl) -> None:
    for name, tier in (("one", "front"), ("two", "front"), ("three", "back")):
        kubectl("create", "configmap", name)
        kubectl("label", "configmap", name, f"tier={tier}")
    assert kubectl("get", "cm", "-l", "tier=front", "-o", "name").split() == [
        "configmap/one",
        "configmap/two",
    ]
    assert kubectl("get", "cm", "-l", "tier,tier notin (front)", "-o", "name").split() == ["configmap/three"]
    assert kubectl("get", "cm", "--field-selector", "metadata.name=two", "-o", "name").split() == [
        "configmap/two"
    ]
    rows = kubectl.rows(
        "get", "cm", "-l", "tier", "--sort-by=.metadata.creationTimestamp", "-L", "tier", "--no-headers"
    )
    assert {row[0]: row[-1] for row in rows} == {"one": "front", "two": "front", "three": "back"}
    assert "tier=back" in kubectl("get", "cm", "three", "--show-labels")
    assert "configmap/one" in kubectl("get", "cm,secrets", "-o", "name")
    everywhere = kubectl.rows("get", "cm", "-A")
    assert everywhere[0][:2] == ["NAMESPACE", "NAME"] and [kubectl.namespace, "one"] in [
        r[:2] for r in everywhere
    ]
    chunked = kubectl("get", "cm", "--chunk-size=1", "-o", "name").split()
    assert len(chunked) == 4  # with kube-root-ca.crt


def test_what_is_not_there(kubectl: Kubectl) -> None:
    assert kubectl.fails("get", "cm", "nope") == 'Error from server (NotFound): configmaps "nope" not found'
    assert kubectl.fails("get", "nopes") == 'error: the server doesn\'t have a resource type "nopes"'
    nothing = kubectl.run("get", "pods")
    assert (nothing.stdout, nothing.stderr) == (
        "",
        f"No resources found in {kubectl.namespace} namespace.",
    )
    assert kubectl("get", "cm", "nope", "--ignore-not-found") == ""


@contextmanager
def following(kubectl: Kubectl, *arguments: str) -> Iterator[queue.Queue[str]]:
    """The lines of a command that does not end, as they come."""
    process = subprocess.Popen(
        [str(kubectl.program), "--namespace", kubectl.namespace, *arguments],
        env=kubectl.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    lines: queue.Queue[str] = queue.Queue()
    assert process.stdout is not None
    stream = process.stdout

    def read() -> None:
        for line in stream:
            lines.put(line)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        yield lines
    finally:
        process.kill()
        process.wait()
        reader.join(10)
        stream.close()


def test_watch(kubectl: Kubectl) -> None:
    kubectl("create", "configmap", "first")
    with following(kubectl, "get", "cm", "--watch", "--output-watch-events", "--no-headers") as lines:
        seen = [lines.get(timeout=20).split()[:2] for _ in range(2)]
        assert sorted(seen) == [["ADDED", "first"], ["ADDED", "kube-root-ca.crt"]]
        kubectl("create", "configmap", "second")
        kubectl("label", "configmap", "second", "a=b")
        kubectl("delete", "configmap", "second")
        later = [lines.get(timeout=20).split()[:2] for _ in range(3)]
        assert later == [["ADDED", "second"], ["MODIFIED", "second"], ["DELETED", "second"]]


def test_watch_of_one_object(kubectl: Kubectl) -> None:
    kubectl("create", "configmap", "one", "--from-literal=n=1")
    template = "jsonpath={.data.n}{'\\n'}"
    with following(kubectl, "get", "cm", "one", "--watch", "-o", template) as lines:
        assert lines.get(timeout=20) == "1\n"
        for n in ("2", "3"):
            kubectl("patch", "cm", "one", "--type=merge", "-p", f'{{"data":{{"n":"{n}"}}}}')
            assert lines.get(timeout=20) == f"{n}\n"


@pytest.mark.parametrize(
    ("kind", "name", "says"),
    [
        ("namespace", "default", "Status:       Active"),
        ("configmap", "kube-root-ca.crt", "ca.crt:"),
        ("serviceaccount", "default", "Mountable secrets:"),
        ("clusterrole", "cluster-admin", "PolicyRule:"),
        ("priorityclass", "system-node-critical", "Value:             2000001000"),
    ],
)
def test_describe(kubectl: Kubectl, kind: str, name: str, says: str) -> None:
    assert says in kubectl("describe", kind, name)


# -- writing --------------------------------------------------------------------------------------------


def test_apply(kubectl: Kubectl) -> None:
    assert kubectl("apply", "-f", "-", stdin=config(more="  size: big\n")) == "configmap/settings created\n"
    assert kubectl("apply", "-f", "-", stdin=config(more="  size: big\n")) == "configmap/settings unchanged\n"
    assert kubectl("apply", "-f", "-", stdin=config("red")) == "configmap/settings configured\n"
    assert kubectl.json("get", "cm", "settings")["data"] == {"colour": "red"}
    assert "colour: red" in kubectl("apply", "view-last-applied", "cm/settings")
    assert kubectl("apply", "-f", "-", "--dry-run=server", stdin=config("green")) == (
        "configmap/settings configured (server dry run)\n"
    )
    assert kubectl("get", "cm", "settings", "-o", "jsonpath={.data.colour}") == "red"


def test_apply_keeps_what_others_set(kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", stdin=WEB)
    kubectl("annotate", "deployment", "web", "by=hand")
    kubectl("set", "env", "deployment/web", "MODE=fast", "-c", "side")
    changed = WEB.replace("web:v1", "web:v2")
    assert kubectl("apply", "-f", "-", stdin=changed) == "deployment.apps/web configured\n"
    live = kubectl.json("get", "deployment", "web")
    web, side = live["spec"]["template"]["spec"]["containers"]
    assert (web["image"], side["env"], live["metadata"]["annotations"]["by"]) == (
        "example.com/web:v2",
        [{"name": "MODE", "value": "fast"}],
        "hand",
    )


def test_apply_server_side(kubectl: Kubectl) -> None:
    apply = ("apply", "--server-side", "-f", "-")
    assert kubectl(*apply, stdin=config()) == "configmap/settings serverside-applied\n"
    owners = kubectl.json("get", "cm", "settings", "--show-managed-fields")["metadata"]["managedFields"]
    assert [(o["manager"], o["operation"]) for o in owners] == [("kubectl", "Apply")]
    assert owners[0]["fieldsV1"] == {"f:data": {"f:colour": {}}}
    conflict = kubectl.fails(*apply, "--field-manager=other", stdin=config("red"))
    assert conflict.startswith(
        'error: Apply failed with 1 conflict: conflict with "kubectl": .data.colour\n'
    ), conflict
    kubectl(*apply, "--field-manager=other", "--force-conflicts", stdin=config("red"))
    owners = kubectl.json("get", "cm", "settings", "--show-managed-fields")["metadata"]["managedFields"]
    assert [o["manager"] for o in owners] == ["other"]
    assert kubectl("get", "cm", "settings", "-o", "jsonpath={.data.colour}") == "red"


def test_server_side_apply_gives_up_fields(kubectl: Kubectl) -> None:
    apply = ("apply", "--server-side", "-f", "-")
    kubectl(*apply, stdin=config(more="  size: big\n"))
    kubectl(*apply, stdin=config())
    assert kubectl.json("get", "cm", "settings")["data"] == {"colour": "blue"}


CREATED = {
    "configmap a --from-literal=x=1": "configmap/a",
    "secret generic a --from-literal=x=1": "secret/a",
    "secret docker-registry b --docker-username=u --docker-password=p --docker-server=example.com": "secret/b",
    "serviceaccount a": "serviceaccount/a",
    "deployment a --image=example.com/a --replicas=0": "deployment.apps/a",
    "service clusterip a --tcp=80:8080": "service/a",
    "service nodeport b --tcp=80:8080": "service/b",
    "service externalname c --external-name=example.com": "service/c",
    "job a --image=example.com/a": "job.batch/a",
    "cronjob a --image=example.com/a --schedule=@daily": "cronjob.batch/a",
    "quota a --hard=pods=10": "resourcequota/a",
    "poddisruptionbudget a --selector=app=a --min-available=1": "poddisruptionbudget.policy/a",
    "role a --verb=get --resource=pods": "role.rbac.authorization.k8s.io/a",
    "rolebinding a --role=a --serviceaccount=default:default": "rolebinding.rbac.authorization.k8s.io/a",
    "ingress a --rule=example.com/=a:80": "ingress.networking.k8s.io/a",
}


def test_create(kubectl: Kubectl) -> None:
    for command, made in CREATED.items():
        dry = kubectl("create", *command.split(), "--dry-run=server")
        assert dry == f"{made} created (server dry run)\n"
        assert kubectl("create", *command.split()) == f"{made} created\n"
    assert kubectl.fails("create", "configmap", "a").endswith('configmaps "a" already exists')
    token = kubectl("create", "token", "a", "--duration=1h").strip()
    assert token.count(".") == 2


def test_a_token_is_an_identity(kubectl: Kubectl) -> None:
    kubectl("create", "serviceaccount", "robot")
    token = kubectl("create", "token", "robot").strip()
    config_ = json.loads(kubectl("config", "view", "--raw", "-o", "json"))
    config_["users"][0]["user"] = {"token": token}
    path = Path(kubectl.environment["HOME"]) / f"robot-{kubectl.namespace}.json"
    path.write_text(json.dumps(config_), encoding="utf-8")
    who = kubectl("auth", "whoami", "-o", "json", "--kubeconfig", path)
    assert json.loads(who)["status"]["userInfo"]["username"] == (
        f"system:serviceaccount:{kubectl.namespace}:robot"
    )


def test_edit(kubectl: Kubectl, tmp_path: Path) -> None:
    kubectl("apply", "-f", "-", stdin=config())
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\nsed -i s/blue/green/ "$1"\n', encoding="utf-8")
    editor.chmod(0o755)
    done = kubectl("edit", "cm", "settings", env={"KUBE_EDITOR": str(editor), "EDITOR": str(editor)})
    assert done == "configmap/settings edited\n"
    assert kubectl("get", "cm", "settings", "-o", "jsonpath={.data.colour}") == "green"


def test_patch(kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", stdin=WEB)

    def patched(kind: str, patch: str, *options: str) -> list[dict[str, str]]:
        kubectl("patch", "deployment", "web", f"--type={kind}", "-p", patch, *options)
        pods = kubectl.json("get", "deployment", "web")["spec"]["template"]["spec"]
        return [{"name": c["name"], "image": c["image"]} for c in pods["containers"]]

    by_name = '{"spec":{"template":{"spec":{"containers":[{"name":"side","image":"example.com/side:v2"}]}}}}'
    assert [c["image"] for c in patched("strategic", by_name)] == [
        "example.com/web:v1",
        "example.com/side:v2",
    ]
    one = '[{"op":"replace","path":"/spec/template/spec/containers/0/image","value":"example.com/web:v3"}]'
    assert [c["image"] for c in patched("json", one)] == ["example.com/web:v3", "example.com/side:v2"]
    whole = '{"spec":{"template":{"spec":{"containers":[{"name":"only","image":"example.com/only:v1"}]}}}}'
    assert [c["name"] for c in patched("merge", whole)] == ["only"]
    patched("merge", '{"spec":{"replicas":2}}', "--subresource=scale")
    assert kubectl("get", "deployment", "web", "-o", "jsonpath={.spec.replicas}") == "2"
    refused = kubectl.fails("patch", "deployment", "web", "--type=merge", "-p", '{"spec":{"replicas":-1}}')
    assert refused == (
        'The Deployment "web" is invalid: spec.replicas: Invalid value: -1: must be greater than or equal to 0'
    )


def test_label_and_annotate(kubectl: Kubectl) -> None:
    kubectl("create", "configmap", "one")
    assert kubectl("label", "cm", "one", "tier=front") == "configmap/one labeled\n"
    assert "already has a value (front)" in kubectl.fails("label", "cm", "one", "tier=back")
    kubectl("label", "cm", "one", "tier=back", "--overwrite")
    assert kubectl("annotate", "cm", "one", "note=by hand") == "configmap/one annotated\n"
    metadata = kubectl.json("get", "cm", "one")["metadata"]
    assert (metadata["labels"], metadata["annotations"]) == ({"tier": "back"}, {"note": "by hand"})
    assert kubectl("label", "cm", "one", "tier-") == "configmap/one unlabeled\n"
    assert not kubectl.json("get", "cm", "one")["metadata"].get("labels")
    assert "a valid label must be an empty string or" in kubectl.fails("label", "cm", "one", "tier=not ok")


def test_replace(kubectl: Kubectl) -> None:
    kubectl("create", "-f", "-", stdin=config())
    assert kubectl("replace", "-f", "-", stdin=config("red")) == "configmap/settings replaced\n"
    old = kubectl("get", "cm", "settings", "-o", "yaml")
    kubectl("label", "cm", "settings", "a=b")
    assert "the object has been modified" in kubectl.fails("replace", "-f", "-", stdin=old)
    uid = kubectl.json("get", "cm", "settings")["metadata"]["uid"]
    kubectl("replace", "--force", "-f", "-", stdin=config("red"))
    assert kubectl.json("get", "cm", "settings")["metadata"]["uid"] != uid


def test_immutable_fields_stay(kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", stdin=WEB)
    refused = kubectl.fails("apply", "-f", "-", stdin=WEB.replace("app: web", "app: other"))
    assert "spec.selector: Invalid value:" in refused and "field is immutable" in refused


def test_diff(kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", stdin=config())
    assert kubectl("diff", "-f", "-", stdin=config()) == ""
    done = kubectl.run("diff", "-f", "-", stdin=config("red"))
    assert done.returncode == 1
    assert re.findall(r"^[-+] +colour: \w+$", done.stdout, re.M) == ["-  colour: blue", "+  colour: red"]
    assert kubectl("get", "cm", "settings", "-o", "jsonpath={.data.colour}") == "blue"


# -- deleting and waiting -------------------------------------------------------------------------------


def test_delete(kubectl: Kubectl) -> None:
    for name in ("one", "two", "three"):
        kubectl("create", "configmap", name)
    kubectl("label", "cm", "one", "two", "gone=soon")
    assert kubectl("delete", "cm", "-l", "gone=soon").splitlines() == [
        'configmap "one" deleted',
        'configmap "two" deleted',
    ]
    assert kubectl("delete", "cm", "three", "--dry-run=server").startswith('configmap "three" deleted')
    kubectl("delete", "cm", "three", "--now")
    assert kubectl.fails("delete", "cm", "three") == (
        'Error from server (NotFound): configmaps "three" not found'
    )
    assert kubectl("delete", "cm", "three", "--ignore-not-found") == ""
    kubectl("create", "secret", "generic", "one")
    assert kubectl("delete", "secrets", "--all") == 'secret "one" deleted\n'


def test_orphans_stay_and_dependents_go(kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", stdin=WEB)
    selected = ("get", "rs", "-l", "app=web", "-o", "name")
    eventually(lambda: kubectl(*selected), "the ReplicaSet is there")
    kubectl("delete", "deployment", "web", "--cascade=orphan")
    (orphan,) = kubectl.json("get", "rs", "-l", "app=web")["items"]
    assert "ownerReferences" not in orphan["metadata"]
    kubectl("apply", "-f", "-", stdin=WEB)
    eventually(
        lambda: "ownerReferences" in kubectl.json("get", "rs", "-l", "app=web")["items"][0]["metadata"],
        "the ReplicaSet is adopted",
    )
    kubectl("delete", "deployment", "web", "--cascade=foreground")
    assert kubectl(*selected) == ""
    kubectl("apply", "-f", "-", stdin=WEB)
    eventually(lambda: kubectl(*selected), "the ReplicaSet is there")
    kubectl("delete", "deployment", "web")
    kubectl("wait", "--for=delete", "rs", "-l", "app=web", "--timeout=30s")


def test_namespaces_empty_themselves(kubectl: Kubectl) -> None:
    other = f"{kubectl.namespace[:40]}-x"
    kubectl("create", "namespace", other)
    kubectl("create", "configmap", "inside", "-n", other)
    assert kubectl("delete", "namespace", other) == f'namespace "{other}" deleted\n'
    assert "NotFound" in kubectl.fails("get", "namespace", other)
    kubectl("create", "namespace", other)
    assert "inside" not in kubectl("get", "cm", "-n", other, "-o", "name")


def test_wait(kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", stdin=WEB)
    assert kubectl("wait", "--for=condition=Available", "deployment/web", "--timeout=30s") == (
        "deployment.apps/web condition met\n"
    )
    kubectl("wait", "--for=jsonpath={.status.observedGeneration}=1", "deployment/web", "--timeout=30s")
    late = kubectl.fails("wait", "--for=condition=Nonsense", "deployment/web", "--timeout=300ms")
    assert "timed out waiting for the condition" in late


# -- commands with a verb of their own ------------------------------------------------------------------


def test_scale_autoscale_expose_and_set(kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", stdin=WEB)
    assert kubectl("set", "image", "deployment/web", "web=example.com/web:v9") == (
        "deployment.apps/web image updated\n"
    )
    kubectl("set", "resources", "deployment/web", "-c=web", "--requests=cpu=50m")
    kubectl("set", "serviceaccount", "deployment/web", "default")
    assert kubectl("expose", "deployment", "web", "--port=80") == "service/web exposed\n"
    assert kubectl("autoscale", "deployment", "web", "--max=3").startswith(
        "horizontalpodautoscaler.autoscaling/web"
    )
    assert kubectl("scale", "deployment/web", "--replicas=1") == "deployment.apps/web scaled\n"
    assert "Expected replicas to be 7, was 1" in kubectl.fails(
        "scale", "deployment/web", "--replicas=2", "--current-replicas=7"
    )
    web = kubectl.json("get", "deployment", "web")["spec"]
    assert web["replicas"] == 1
    assert web["template"]["spec"]["containers"][0]["image"] == "example.com/web:v9"
    assert kubectl.json("get", "service", "web")["spec"]["selector"] == {"app": "web"}


def test_rollout_history_pause_restart(kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", stdin=WEB)
    kubectl("rollout", "status", "deployment/web", "--timeout=30s")
    kubectl("set", "image", "deployment/web", "web=example.com/web:v2")
    kubectl("rollout", "status", "deployment/web", "--timeout=30s")
    history = kubectl.rows("rollout", "history", "deployment/web")
    assert [row[0] for row in history[2:]] == ["1", "2"]
    assert "example.com/web:v1" in kubectl("rollout", "history", "deployment/web", "--revision=1")
    kubectl("rollout", "pause", "deployment/web")
    assert "can't restart paused deployment" in kubectl.fails("rollout", "restart", "deployment/web")
    kubectl("rollout", "resume", "deployment/web")
    kubectl("rollout", "restart", "deployment/web")
    assert "kubectl.kubernetes.io/restartedAt" in kubectl("get", "deployment", "web", "-o", "yaml")
    kubectl("rollout", "undo", "deployment/web", "--to-revision=1")
    eventually(
        lambda: (
            kubectl("get", "deployment", "web", "-o", "jsonpath={.spec.template.spec.containers[0].image}")
            == "example.com/web:v1"
        ),
        "the first image is back",
    )


def test_certificates(kubectl: Kubectl) -> None:
    name = f"jane-{os.urandom(4).hex()}"
    request = {
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {"name": name},
        "spec": {
            "request": signing_request(),
            "signerName": "kubernetes.io/kube-apiserver-client",
            "usages": ["client auth"],
        },
    }
    kubectl("create", "-f", "-", stdin=json.dumps(request))
    assert kubectl.rows("get", "csr", name)[1][-1] == "Pending"
    kubectl("certificate", "approve", name)
    assert kubectl.rows("get", "csr", name)[1][-1].startswith("Approved")


def test_metrics_are_honestly_absent(kubectl: Kubectl) -> None:
    assert kubectl.fails("top", "pods") == "error: Metrics API not available"


def test_custom_resources(kubectl: Kubectl) -> None:
    definition = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "lamps.example.com"},
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": {"plural": "lamps", "singular": "lamp", "kind": "Lamp"},
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": {"type": "object"}},
                }
            ],
        },
    }
    assert "created" in kubectl("apply", "-f", "-", stdin=json.dumps(definition))
    assert kubectl("get", "crd", "lamps.example.com", "-o", "name") == (
        "customresourcedefinition.apiextensions.k8s.io/lamps.example.com\n"
    )
    kubectl("delete", "crd", "lamps.example.com")
