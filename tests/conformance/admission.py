"""What conformance asks of webhook configurations, apart from webhooks that are called."""

from __future__ import annotations

from typing import Any

from tests.conformance.door import MERGE, Door
from tests.conformance.scoreboard import proves

Json = dict[str, Any]
PREFIX = "[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] "
GROUP = "/apis/admissionregistration.k8s.io"
CONDITION = {"name": "expression-1", "expression": "object.metadata.namespace == 'production'"}
OTHER = {"name": "expression-2", "expression": "request.userInfo.username != 'nobody'"}


def configuration(*conditions: Json) -> Json:
    rule = {"apiGroups": ["*"], "apiVersions": ["*"], "operations": ["CREATE"], "resources": ["*"]}
    webhook = {
        "name": "validation.example.com",
        "rules": [{**rule, "scope": "*"}],
        "clientConfig": {"service": {"namespace": "default", "name": "nobody", "path": "/x"}},
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        "namespaceSelector": {"matchLabels": {"no-namespace": "has-this"}},
        "matchConditions": list(conditions),
    }
    return {"metadata": {"name": "match-conditions"}, "webhooks": [webhook]}


def conditions(found: Json) -> Any:
    return found["webhooks"][0]["matchConditions"]


async def stores_conditions(door: Door, plural: str) -> None:
    """Created, read, updated and patched, the conditions are what was written last."""
    path = f"{GROUP}/v1/{plural}"
    made = await door.create(path, configuration(CONDITION))
    assert conditions(made) == [CONDITION]
    read = await door.get(f"{path}/match-conditions")
    assert conditions(read) == [CONDITION]
    read["webhooks"][0]["matchConditions"] = [CONDITION, OTHER]
    await door.update(f"{path}/match-conditions", read)
    assert conditions(await door.get(f"{path}/match-conditions")) == [CONDITION, OTHER]
    read["webhooks"][0]["matchConditions"] = [OTHER]
    await door.patch(f"{path}/match-conditions", {"webhooks": read["webhooks"]}, MERGE)
    assert conditions(await door.get(f"{path}/match-conditions")) == [OTHER]


@proves(
    PREFIX + "should be able to create and update validating webhook configurations with match conditions"
)
async def validating(door: Door) -> None:
    await stores_conditions(door, "validatingwebhookconfigurations")


@proves(PREFIX + "should be able to create and update mutating webhook configurations with match conditions")
async def mutating(door: Door) -> None:
    await stores_conditions(door, "mutatingwebhookconfigurations")


@proves(PREFIX + "should include webhook resources in discovery documents")
async def discovered(door: Door) -> None:
    name = GROUP.rpartition("/")[2]
    groups = {group["name"]: group for group in (await door.get("/apis"))["groups"]}
    assert f"{name}/v1" in [version["groupVersion"] for version in groups[name]["versions"]]
    assert (await door.get(GROUP))["versions"] == groups[name]["versions"]
    kinds = {each["name"]: each["kind"] for each in (await door.get(f"{GROUP}/v1"))["resources"]}
    assert kinds["mutatingwebhookconfigurations"] == "MutatingWebhookConfiguration"
    assert kinds["validatingwebhookconfigurations"] == "ValidatingWebhookConfiguration"
