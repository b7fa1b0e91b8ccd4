"""The behaviours that are more than a lifecycle: discovery, watches, paging, field validation, accounts, quotas of time."""

from __future__ import annotations

import base64
import re
from typing import Any

import anyio

from kcp.controllers.table import CONTROLLERS
from tests.conformance.door import JSON_PATCH, MERGE, STRATEGIC, Door
from tests.conformance.scoreboard import proves

Json = dict[str, Any]
AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"
TEMPLATE = {"metadata": {}, "spec": {"containers": [{"name": "main", "image": "registry.example/app:1"}]}}
_ROOT_CA = tuple(each for each in CONTROLLERS if each.name == "root-ca-certificate-publisher-controller")


def labelled(name: str, value: str = "a", **more: Any) -> Json:
    return {"metadata": {"name": name, "labels": {"watched": value}}, **more}


def pod(name: str, **spec: Any) -> Json:
    containers = [{"name": "main", "image": "registry.example/app:1"}]
    return {"metadata": {"name": name}, "spec": {"containers": containers, **spec}}


# -- discovery, versions, representations


@proves("[sig-api-machinery] Discovery should validate PreferredVersion for each APIGroup")
async def preferred_versions(door: Door) -> None:
    for group in (await door.get("/apis"))["groups"]:
        own = await door.get(f"/apis/{group['name']}")
        versions = [each["groupVersion"] for each in own["versions"]]
        assert own["preferredVersion"]["groupVersion"] in versions
        assert own["preferredVersion"] == group["preferredVersion"]


@proves("[sig-api-machinery] Discovery should locate the groupVersion and a resource within each APIGroup")
async def resources_of_groups(door: Door) -> None:
    for group in (await door.get("/apis"))["groups"]:
        for version in group["versions"]:
            listed = await door.get(f"/apis/{version['groupVersion']}")
            assert listed["groupVersion"] == version["groupVersion"]
            assert listed["resources"]


@proves("[sig-api-machinery] AggregatedDiscovery should support aggregated discovery interface")
async def aggregated(door: Door) -> None:
    found = (await door.ask("GET", "/apis", accept=AGGREGATED)).value
    core = (await door.ask("GET", "/api", accept=AGGREGATED)).value
    names = {
        (group["metadata"].get("name", ""), version["version"], resource["resource"])
        for group in core["items"] + found["items"]
        for version in group["versions"]
        for resource in version["resources"]
    }
    wanted = {
        ("", "v1", "pods"), ("", "v1", "services"), ("apps", "v1", "deployments"), ("batch", "v1", "jobs"),
        ("rbac.authorization.k8s.io", "v1", "clusterroles"), ("coordination.k8s.io", "v1", "leases"),
        ("admissionregistration.k8s.io", "v1", "validatingwebhookconfigurations"),
        ("apiextensions.k8s.io", "v1", "customresourcedefinitions"),
        ("apiregistration.k8s.io", "v1", "apiservices"),
    }  # fmt: skip
    assert wanted <= names


@proves(
    "[sig-api-machinery] AggregatedDiscovery should support raw aggregated discovery endpoint Accept headers"
)
async def aggregated_headers(door: Door) -> None:
    for path in ("/api", "/apis"):
        answer = await door.ask("GET", path, accept=AGGREGATED)
        assert answer.headers["content-type"] == (
            "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
        )
        assert answer.value["kind"] == "APIGroupDiscoveryList"
        plain = await door.ask("GET", path, accept="application/json")
        assert plain.headers["content-type"] == "application/json"


@proves("[sig-api-machinery] server version should find the server version")
async def version(door: Door) -> None:
    found = await door.get("/version")
    assert found["major"].isdecimal() and found["minor"].isdecimal()


@proves(
    "[sig-api-machinery] Servers with support for Table transformation should return a 406 for a backend which does not implement metadata"
)
async def no_table_of_reviews(door: Door) -> None:
    body = {"spec": {"resourceAttributes": {"namespace": "default", "verb": "get", "resource": "pods"}}}
    answer = await door.ask(
        "POST",
        "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
        body,
        accept="application/json;as=Table;v=v1;g=meta.k8s.io",
    )
    assert answer.status == 406, answer


# -- lists in chunks


async def many_templates(door: Door, count: int) -> str:
    path = await door.namespace("chunks") + "/podtemplates"
    for number in range(count):
        await door.create(path, {"metadata": {"name": f"template-{number:04}"}, "template": TEMPLATE})
    return path


@proves(
    "[sig-api-machinery] Servers with support for API chunking should return chunks of results for list calls"
)
async def chunks(door: Door) -> None:
    path = await many_templates(door, 40)
    seen: list[str] = []
    token, first_rv = "", ""
    while True:
        page = await door.get(f"{path}?limit=15&continue={token}")
        seen += [item["metadata"]["name"] for item in page["items"]]
        first_rv = first_rv or page["metadata"]["resourceVersion"]
        assert len(page["items"]) <= 15 and page["metadata"]["resourceVersion"] == first_rv
        token = page["metadata"].get("continue", "")
        assert page["metadata"].get("remainingItemCount", 0) == 40 - len(seen)
        if not token:
            break
    assert seen == [f"template-{number:04}" for number in range(40)]
    assert len(await door.names(path)) == 40


@proves(
    "[sig-api-machinery] Servers with support for API chunking should support continue listing from the last key if the"
    " original version has been compacted away, though the list is inconsistent [Slow]"
)
async def chunks_after_compaction(door: Door) -> None:
    path = await many_templates(door, 40)
    first = await door.get(f"{path}?limit=15")
    for _ in range(20):
        await anyio.sleep(60)
        await door.create(path, {"metadata": {"generateName": "z-"}, "template": TEMPLATE})
        answer = await door.ask("GET", f"{path}?limit=15&continue={first['metadata']['continue']}")
        if answer.status != 200:
            break
    assert (answer.status, answer.value["reason"]) == (410, "Expired")
    token = answer.value["metadata"]["continue"]
    rest: list[Json] = []
    revisions = set()
    while token:
        page = await door.get(f"{path}?limit=15&continue={token}")
        rest += page["items"]
        revisions.add(page["metadata"]["resourceVersion"])
        token = page["metadata"].get("continue", "")
    assert [item["metadata"]["name"] for item in rest[:25]] == [f"template-{n:04}" for n in range(15, 40)]
    assert len(revisions) == 1 and revisions != {first["metadata"]["resourceVersion"]}


# -- watches

MAPS = "/api/v1/namespaces/watching/configmaps"


async def started(door: Door) -> str:
    await door.namespace("watching")
    return await door.revision(MAPS)


@proves(
    "[sig-api-machinery] Watchers should observe add, update, and delete watch notifications on configmaps"
)
async def watchers_with_selectors(door: Door) -> None:
    rv = await started(door)
    of_a = await door.watch(MAPS, rv, "watched=a")
    of_b = await door.watch(MAPS, rv, "watched=b")
    of_both = await door.watch(MAPS, rv, "watched%20in%20(a,b)")
    await door.create(MAPS, labelled("m-a", "a"))
    await door.patch(f"{MAPS}/m-a", {"data": {"mutation": "1"}})
    await door.delete(f"{MAPS}/m-a")
    a = [("ADDED", "m-a"), ("MODIFIED", "m-a"), ("DELETED", "m-a")]
    assert await of_a.seen(3) == a and await of_b.silent()
    await door.create(MAPS, labelled("m-b", "b"))
    await door.delete(f"{MAPS}/m-b")
    b = [("ADDED", "m-b"), ("DELETED", "m-b")]
    assert await of_b.seen(2) == b and await of_a.silent()
    assert await of_both.seen(5) == a + b


@proves("[sig-api-machinery] Watchers should be able to start watching from a specific resource version")
async def watch_from_a_revision(door: Door) -> None:
    await started(door)
    await door.create(MAPS, labelled("m"))
    first = await door.patch(f"{MAPS}/m", {"data": {"mutation": "1"}})
    await door.patch(f"{MAPS}/m", {"data": {"mutation": "2"}})
    await door.delete(f"{MAPS}/m")
    watch = await door.watch(MAPS, first["metadata"]["resourceVersion"], "watched=a")
    event = await watch.next()
    assert (event["type"], event["object"]["data"]) == ("MODIFIED", {"mutation": "2"})
    assert (await watch.next())["type"] == "DELETED"
    assert await watch.silent()


@proves(
    "[sig-api-machinery] Watchers should be able to restart watching from the last resource version observed by the previous watch"
)
async def watch_again(door: Door) -> None:
    rv = await started(door)
    first = await door.watch(MAPS, rv, "watched=a")
    await door.create(MAPS, labelled("m"))
    await door.patch(f"{MAPS}/m", {"data": {"mutation": "1"}})
    await first.next()
    last = (await first.next())["object"]["metadata"]["resourceVersion"]
    await door.patch(f"{MAPS}/m", {"data": {"mutation": "2"}})
    await door.delete(f"{MAPS}/m")
    second = await door.watch(MAPS, last, "watched=a")
    assert await second.seen(2) == [("MODIFIED", "m"), ("DELETED", "m")]


@proves(
    "[sig-api-machinery] Watchers should observe an object deletion if it stops meeting the requirements of the selector"
)
async def watch_leaves_selector(door: Door) -> None:
    watch = await door.watch(MAPS, await started(door), "watched=a")
    await door.create(MAPS, labelled("m"))
    await door.patch(f"{MAPS}/m", {"data": {"mutation": "1"}})
    await door.patch(f"{MAPS}/m", {"metadata": {"labels": {"watched": "other"}}})
    assert await watch.seen(3) == [("ADDED", "m"), ("MODIFIED", "m"), ("DELETED", "m")]
    await door.patch(f"{MAPS}/m", {"data": {"mutation": "2"}})
    assert await watch.silent()
    await door.patch(f"{MAPS}/m", {"metadata": {"labels": {"watched": "a"}}})
    back = await watch.next()
    assert (back["type"], back["object"]["data"]) == ("ADDED", {"mutation": "2"})
    await door.patch(f"{MAPS}/m", {"data": {"mutation": "3"}})
    await door.delete(f"{MAPS}/m")
    assert await watch.seen(2) == [("MODIFIED", "m"), ("DELETED", "m")]


@proves("[sig-api-machinery] Watchers should receive events on concurrent watches in same order")
async def watches_agree(door: Door) -> None:
    first = await door.watch(MAPS, await started(door))
    count = 30

    async def produce() -> None:
        for number in range(count):
            name = f"m-{number % 7}"
            if (await door.ask("POST", MAPS, labelled(name))).status == 409:
                await door.delete(f"{MAPS}/{name}") if number % 3 else await door.patch(
                    f"{MAPS}/{name}", {"data": {"n": str(number)}}
                )
            await anyio.sleep(0.01)

    orders: list[list[str]] = []
    async with anyio.create_task_group() as group:
        group.start_soon(produce)
        events = [await first.next() for _ in range(count)]
    revisions = [event["object"]["metadata"]["resourceVersion"] for event in events]
    for start in range(0, count - 1, 5):
        later = await door.watch(MAPS, revisions[start])
        orders.append(
            [(await later.next())["object"]["metadata"]["resourceVersion"] for _ in revisions[start + 1 :]]
        )
        assert orders[-1] == revisions[start + 1 :]
    assert len(set(revisions)) == count


# -- field validation

DEPLOYMENTS = "/apis/apps/v1/namespaces/strict/deployments"


def _deployment(extra: str = "", metadata: str = "") -> bytes:
    """As text: only text can say the same thing twice."""
    template = '{"metadata":{"labels":{"app":"x"}},"spec":{"containers":[{"name":"main","image":"i"}]}}'
    spec = f'{{{extra}"selector":{{"matchLabels":{{"app":"x"}}}},"template":{template}}}'
    head = f'"apiVersion":"apps/v1","kind":"Deployment","metadata":{{"name":"web"{metadata}}}'
    return f'{{{head},"spec":{spec}}}'.encode()


@proves("[sig-api-machinery] FieldValidation should detect unknown and duplicate fields of a typed object")
async def unknown_and_duplicate(door: Door) -> None:
    await door.namespace("strict")
    body = _deployment('"unknown1":"x","unknownDupe":"a","unknownDupe":"b","paused":true,"paused":false,')
    text = await door.refused(400, "POST", f"{DEPLOYMENTS}?fieldValidation=Strict", body)
    assert text.startswith(
        'Deployment in version "v1" cannot be handled as a Deployment: strict decoding error: '
    )
    assert set(re.findall(r'(?:unknown|duplicate) field "[^"]+"', text)) >= {
        'unknown field "spec.unknown1"',
        'unknown field "spec.unknownDupe"',
        'duplicate field "spec.paused"',
    }
    await door.create(DEPLOYMENTS, {"metadata": {"name": "web"}, "spec": _spec()})
    patch = b'{"spec":{"foo":1,"paused":true,"paused":false}}'
    for kind in (MERGE, STRATEGIC):
        text = await door.refused(422, "PATCH", f"{DEPLOYMENTS}/web?fieldValidation=Strict", patch, kind)
        assert 'unknown field "spec.foo"' in text and 'duplicate field "spec.paused"' in text
    operations = [{"op": "add", "path": "/spec/foo", "value": 1}]
    text = await door.refused(
        422, "PATCH", f"{DEPLOYMENTS}/web?fieldValidation=Strict", operations, JSON_PATCH
    )
    assert 'unknown field "spec.foo"' in text


def _spec() -> Json:
    template = {"metadata": {"labels": {"app": "x"}}, "spec": TEMPLATE["spec"]}
    return {"selector": {"matchLabels": {"app": "x"}}, "template": template}


@proves("[sig-api-machinery] FieldValidation should detect unknown metadata fields of a typed object")
async def unknown_metadata(door: Door) -> None:
    await door.namespace("strict")
    body = _deployment(metadata=',"unknownMeta":"foo"')
    text = await door.refused(400, "POST", f"{DEPLOYMENTS}?fieldValidation=Strict", body)
    assert 'unknown field "metadata.unknownMeta"' in text


# -- namespaces


@proves("[sig-api-machinery] Namespaces [Serial] should patch a Namespace")
async def patch_namespace(door: Door) -> None:
    await door.namespace("patched")
    path = "/api/v1/namespaces/patched"
    await door.patch(path, {"metadata": {"labels": {"testLabel": "testValue"}}}, STRATEGIC)
    assert (await door.get(path))["metadata"]["labels"] == {
        "kubernetes.io/metadata.name": "patched",
        "testLabel": "testValue",
    }


@proves("[sig-api-machinery] Namespaces [Serial] should apply an update to a Namespace")
async def update_namespace(door: Door) -> None:
    await door.namespace("updated")
    path = "/api/v1/namespaces/updated"
    obj = await door.get(path)
    obj["metadata"]["labels"]["updated"] = "yes"
    assert (await door.update(path, obj))["metadata"]["labels"]["updated"] == "yes"


@proves("[sig-api-machinery] Namespaces [Serial] should apply changes to a namespace status")
async def namespace_status(door: Door) -> None:
    await door.namespace("status")
    path = "/api/v1/namespaces/status/status"
    assert (await door.get(path))["status"]["phase"] == "Active"
    condition = {"type": "StatusPatch", "status": "True", "reason": "E2E", "message": "Patched"}
    patch = {"metadata": {"annotations": {"e2e-patched": "true"}}, "status": {"conditions": [condition]}}
    patched = await door.patch(path, patch)
    assert patched["metadata"]["annotations"] == {"e2e-patched": "true"}
    assert [each["type"] for each in patched["status"]["conditions"]] == ["StatusPatch"]
    patched["status"]["conditions"].append({**condition, "type": "StatusUpdate"})
    updated = await door.update(path, patched)
    assert [each["type"] for each in updated["status"]["conditions"]] == ["StatusPatch", "StatusUpdate"]


@proves("[sig-api-machinery] Namespaces [Serial] should apply a finalizer to a Namespace")
async def namespace_finalizer(door: Door) -> None:
    await door.namespace("finalized")
    path = "/api/v1/namespaces/finalized"
    obj = await door.get(path)
    obj["spec"]["finalizers"].append("e2e.example.com/fakeFinalizer")
    added = await door.update(f"{path}/finalize", obj)
    assert added["spec"]["finalizers"] == ["kubernetes", "e2e.example.com/fakeFinalizer"]
    added["spec"]["finalizers"].pop()
    removed = await door.update(f"{path}/finalize", added)
    assert removed["spec"]["finalizers"] == ["kubernetes"]


# -- accounts and tokens


@proves("[sig-auth] ServiceAccounts should allow opting out of API token automount")
async def opting_out(door: Door) -> None:
    path = await door.namespace("automount")
    for account, mounts in (("default", None), ("mount", True), ("nomount", False)):
        if account != "default":
            body = {"metadata": {"name": account}, "automountServiceAccountToken": mounts}
            await door.create(f"{path}/serviceaccounts", body)
    for account, of_account in (("default", None), ("mount", True), ("nomount", False)):
        for of_pod in (None, True, False):
            more = {} if of_pod is None else {"automountServiceAccountToken": of_pod}
            made = await door.create(f"{path}/pods", {**pod("p", serviceAccountName=account, **more)})
            mounted = bool(made["spec"]["containers"][0].get("volumeMounts"))
            assert mounted is (of_pod if of_pod is not None else of_account is not False)
            await door.delete(f"{path}/pods/p", {"gracePeriodSeconds": 0})


@proves("[sig-auth] ServiceAccounts should create a serviceAccountToken and ensure a successful TokenReview")
async def token_review(door: Door) -> None:
    path = await door.namespace("tokens")
    account = await door.create(f"{path}/serviceaccounts", {"metadata": {"name": "robot"}})
    request = await door.create(f"{path}/serviceaccounts/robot/token", {"spec": {"expirationSeconds": 600}})
    token = request["status"]["token"]
    review = await door.create("/apis/authentication.k8s.io/v1/tokenreviews", {"spec": {"token": token}})
    assert review["status"]["authenticated"] is True and "error" not in review["status"]
    user = review["status"]["user"]
    assert (user["username"], user["uid"]) == (
        "system:serviceaccount:tokens:robot",
        account["metadata"]["uid"],
    )


@proves("[sig-auth] ServiceAccounts should guarantee kube-root-ca.crt exist in any namespace", _ROOT_CA)
async def root_certificates(door: Door) -> None:
    path = await door.namespace("roots") + "/configmaps/kube-root-ca.crt"
    await anyio.sleep(2)
    first = await door.get(path)
    assert first["data"]["ca.crt"].startswith("-----BEGIN CERTIFICATE-----")
    await door.delete(path)
    await anyio.sleep(2)
    again = await door.get(path)
    assert again["metadata"]["uid"] != first["metadata"]["uid"] and again["data"] == first["data"]
    await door.patch(path, {"data": {"ca.crt": ""}})
    await anyio.sleep(2)
    assert (await door.get(path))["data"] == first["data"]


@proves("[sig-auth] SubjectReview should support SubjectReview API operations")
async def subject_reviews(door: Door) -> None:
    path = await door.namespace("reviews")
    await door.create(f"{path}/serviceaccounts", {"metadata": {"name": "e2e"}})
    user = "system:serviceaccount:reviews:e2e"
    impersonated = await door.ask("GET", f"{path}/configmaps", impersonate_user=user)
    spec = {
        "user": user,
        "resourceAttributes": {"namespace": "reviews", "verb": "list", "resource": "configmaps"},
    }
    authorization = "/apis/authorization.k8s.io/v1"
    for review in (
        await door.create(f"{authorization}/subjectaccessreviews", {"spec": spec}),
        await door.create(
            f"{authorization}/namespaces/reviews/localsubjectaccessreviews",
            {"metadata": {"namespace": "reviews"}, "spec": spec},
        ),
    ):
        assert review["status"]["allowed"] is (impersonated.status == 200)
    assert impersonated.status == 403


# -- events


@proves("[sig-instrumentation] Events should manage the lifecycle of an event")
async def core_event(door: Door) -> None:
    await core_events(door, collection=False)


@proves("[sig-instrumentation] Events should delete a collection of events")
async def core_event_collection(door: Door) -> None:
    await core_events(door, collection=True)


async def core_events(door: Door, collection: bool) -> None:
    path = await door.namespace("events") + "/events"
    involved = {"namespace": "events", "kind": "Pod", "name": "x"}
    for name in ("one", "two"):
        body = {**labelled(name), "message": "This is a test event", "reason": "Test", "type": "Normal"}
        await door.create(
            path, {**body, "involvedObject": involved, "firstTimestamp": "2026-01-01T00:00:00Z"}
        )
    assert await door.names("/api/v1/events?labelSelector=watched=a") == ["one", "two"]
    patched = await door.patch(f"{path}/one", {"message": "This is a test event - patched"}, STRATEGIC)
    assert patched["message"] == "This is a test event - patched"
    patched["series"] = {"count": 100, "lastObservedTime": "2026-01-01T00:01:00.000001Z"}
    assert (await door.update(f"{path}/one", patched))["series"]["count"] == 100
    if collection:
        await door.delete(f"{path}?labelSelector=watched=a")
    else:
        for name in ("one", "two"):
            await door.delete(f"{path}/{name}")
    assert await door.names("/api/v1/events?labelSelector=watched=a") == []


@proves(
    "[sig-instrumentation] Events API should ensure that an event can be fetched, patched, deleted, and listed"
)
async def new_event(door: Door) -> None:
    await door.namespace("events")
    path = "/apis/events.k8s.io/v1/namespaces/events/events"
    body = {
        "metadata": {"name": "e"}, "eventTime": "2026-01-01T00:00:00.000001Z", "reason": "Testing", "action": "Do",
        "type": "Normal", "reportingController": "example.com/test", "reportingInstance": "test-1",
        "regarding": {"namespace": "events", "kind": "Pod", "name": "x"},
    }  # fmt: skip
    made = await door.create(path, {**body, "note": "first"})
    found = await door.items(
        "/apis/events.k8s.io/v1/events?fieldSelector=reportingController=example.com/test"
    )
    assert found == [made]
    series = {"count": 2, "lastObservedTime": "2026-01-01T00:01:00.000001Z"}
    patched = await door.patch(f"{path}/e", {"series": series}, STRATEGIC)
    assert patched["series"] == series
    patched["series"]["count"] = 100
    assert (await door.update(f"{path}/e", patched))["series"]["count"] == 100
    core = await door.get("/api/v1/namespaces/events/events/e")
    assert (core["message"], core["reportingComponent"]) == ("first", "example.com/test")
    await door.delete(f"{path}/e")
    assert await door.items(path) == []


# -- services and the API server's own


@proves("[sig-network] API Server should provide secure master service")
async def own_service(door: Door) -> None:
    service = await door.get("/api/v1/namespaces/default/services/kubernetes")
    assert [(port["name"], port["port"]) for port in service["spec"]["ports"]] == [("https", 443)]


@proves("[sig-network] API Server should have Endpoints and EndpointSlices pointing to API Server")
async def own_endpoints(door: Door) -> None:
    endpoints = await door.get("/api/v1/namespaces/default/endpoints/kubernetes")
    slices = await door.items(
        "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices?labelSelector=kubernetes.io/service-name=kubernetes"
    )
    (subset,), (one,) = endpoints["subsets"], slices
    assert [a["ip"] for a in subset["addresses"]] == [a for e in one["endpoints"] for a in e["addresses"]]
    assert [port["port"] for port in subset["ports"]] == [port["port"] for port in one["ports"]]


@proves("[sig-network] Services should find a service from listing all namespaces")
async def services_everywhere(door: Door) -> None:
    found = await door.items("/api/v1/services")
    assert ("default", "kubernetes") in [(s["metadata"]["namespace"], s["metadata"]["name"]) for s in found]


@proves("[sig-network] Services should complete a service status lifecycle")
async def service_status(door: Door) -> None:
    path = await door.namespace("services") + "/services"
    ports = [{"name": "http", "port": 80, "targetPort": 80}]
    body = {"spec": {"type": "LoadBalancer", "ports": ports}, **labelled("s")}
    await door.create(path, body)
    assert (await door.get(f"{path}/s/status"))["status"] == {"loadBalancer": {}}
    ingress = {"loadBalancer": {"ingress": [{"ip": "203.0.113.1"}]}}
    patch = {"metadata": {"annotations": {"patchedstatus": "true"}}, "status": ingress}
    patched = await door.patch(f"{path}/s/status", patch)
    assert patched["status"]["loadBalancer"]["ingress"][0]["ip"] == "203.0.113.1"
    assert patched["metadata"]["annotations"] == {"patchedstatus": "true"}
    patched["status"]["conditions"] = [
        {"type": "StatusUpdate", "status": "True", "reason": "E2E", "message": "Set from e2e test",
         "lastTransitionTime": "2026-01-01T00:00:00Z"}
    ]  # fmt: skip
    updated = await door.update(f"{path}/s/status", patched)
    assert [each["type"] for each in updated["status"]["conditions"]] == ["StatusUpdate"]
    again = await door.patch(f"{path}/s", {"metadata": {"labels": {"test-service": "patched"}}}, STRATEGIC)
    assert again["metadata"]["labels"]["test-service"] == "patched"
    await door.delete(f"{path}/s")
    await door.refused(404, "GET", f"{path}/s")


# -- configuration


@proves("[sig-node] ConfigMap should update ConfigMap successfully [NodeConformance]")
async def config_map_update(door: Door) -> None:
    path = await door.namespace("maps") + "/configmaps"
    made = await door.create(path, {"metadata": {"name": "m"}, "data": {"a": "1"}})
    made["data"]["b"] = "2"
    assert (await door.update(f"{path}/m", made))["data"] == {"a": "1", "b": "2"}


@proves("[sig-node] ConfigMap should fail to create ConfigMap with empty key")
async def config_map_empty_key(door: Door) -> None:
    path = await door.namespace("maps") + "/configmaps"
    text = await door.refused(422, "POST", path, {"metadata": {"name": "m"}, "data": {"": "value"}})
    assert 'Invalid value: "": a valid config key must consist of alphanumeric characters' in text


@proves("[sig-node] Secrets should fail to create secret due to empty secret key")
async def secret_empty_key(door: Door) -> None:
    path = await door.namespace("secrets") + "/secrets"
    await door.refused(422, "POST", path, {"metadata": {"name": "s"}, "data": {"": "dmFsdWU="}})


async def immutable(door: Door, plural: str, value: str, other: str) -> None:
    path = await door.namespace("immutable") + f"/{plural}"
    made = await door.create(path, {"metadata": {"name": "x"}, "data": {"key": value}})
    made["data"]["key"] = other
    changed = await door.update(f"{path}/x", made)
    changed["immutable"] = True
    frozen = await door.update(f"{path}/x", changed)
    text = await door.refused(422, "PUT", f"{path}/x", {**frozen, "data": {"key": value}})
    assert "field is immutable when `immutable` is set" in text
    await door.refused(422, "PUT", f"{path}/x", {**frozen, "immutable": False})
    frozen["metadata"]["labels"] = {"label1": "value1"}
    assert (await door.update(f"{path}/x", frozen))["metadata"]["labels"] == {"label1": "value1"}
    await door.delete(f"{path}/x")


@proves("[sig-storage] ConfigMap should be immutable if `immutable` field is set")
async def immutable_config_map(door: Door) -> None:
    await immutable(door, "configmaps", "a", "b")


@proves("[sig-storage] Secrets should be immutable if `immutable` field is set")
async def immutable_secret(door: Door) -> None:
    first, second = (base64.b64encode(text).decode() for text in (b"value-1", b"value-2"))
    await immutable(door, "secrets", first, second)


# -- leases, pods, limits


@proves("[sig-node] Lease lease API should be available")
async def leases(door: Door) -> None:
    await door.namespace("leases")
    path = "/apis/coordination.k8s.io/v1/namespaces/leases/leases"
    spec = {
        "holderIdentity": "holder", "leaseDurationSeconds": 30, "leaseTransitions": 0,
        "acquireTime": "2026-01-01T00:00:00.000001Z", "renewTime": "2026-01-01T00:00:02.000001Z",
    }  # fmt: skip
    await door.create(path, {"metadata": {"name": "l"}, "spec": spec})
    read = await door.get(f"{path}/l")
    assert read["spec"] == spec
    read["spec"] = {**spec, "holderIdentity": "holder2", "leaseDurationSeconds": 40, "leaseTransitions": 1}
    await door.update(f"{path}/l", read)
    assert (await door.get(f"{path}/l"))["spec"] == read["spec"]
    patch = {"spec": {"holderIdentity": "holder3", "leaseDurationSeconds": 60}}
    await door.patch(f"{path}/l", patch, STRATEGIC)
    assert (await door.get(f"{path}/l"))["spec"] == {**read["spec"], **patch["spec"]}
    await door.create(path, {**labelled("l2"), "spec": spec})
    assert await door.names(path) == ["l", "l2"]
    await door.delete(f"{path}?labelSelector=watched=a")
    assert await door.names(path) == ["l"]
    await door.delete(f"{path}/l")
    await door.refused(404, "GET", f"{path}/l")


@proves(
    "[sig-node] Pods Extended Pods Set QOS Class should be set on Pods with matching resource requests and limits for memory and cpu"
)
async def quality_of_service(door: Door) -> None:
    path = await door.namespace("qos") + "/pods"
    body = pod("p")
    resources = {"cpu": "100m", "memory": "100Mi"}
    body["spec"]["containers"][0]["resources"] = {"requests": resources, "limits": resources}
    await door.create(path, body)
    assert (await door.get(f"{path}/p"))["status"]["qosClass"] == "Guaranteed"


@proves(
    "[sig-node] RuntimeClass should reject a Pod requesting a non-existent RuntimeClass [NodeConformance]"
)
async def absent_runtime_class(door: Door) -> None:
    path = await door.namespace("runtimes") + "/pods"
    text = await door.refused(403, "POST", path, pod("p", runtimeClassName="nope"))
    assert text == 'pods "p" is forbidden: pod rejected: RuntimeClass "nope" not found'


@proves("[sig-node] RuntimeClass should reject a Pod requesting a deleted RuntimeClass [NodeConformance]")
async def deleted_runtime_class(door: Door) -> None:
    path, classes = await door.namespace("runtimes") + "/pods", "/apis/node.k8s.io/v1/runtimeclasses"
    await door.create(classes, {"metadata": {"name": "gone"}, "handler": "handler"})
    await door.create(path, pod("before", runtimeClassName="gone"))
    await door.delete(f"{classes}/gone")
    text = await door.refused(403, "POST", path, pod("after", runtimeClassName="gone"))
    assert text == 'pods "after" is forbidden: pod rejected: RuntimeClass "gone" not found'


@proves("[sig-node] Sysctls [LinuxOnly] [NodeConformance] should reject invalid sysctls")
async def invalid_sysctls(door: Door) -> None:
    path = await door.namespace("sysctls") + "/pods"
    names = ("foo-", "kernel.shmmax", "safe-and-unsafe", "bar..", "kernel.msgmax")
    sysctls = [{"name": name, "value": "100"} for name in names]
    text = await door.refused(422, "POST", path, pod("p", securityContext={"sysctls": sysctls}))
    for bad in ('"foo-"', '"bar.."'):
        assert f"Invalid value: {bad}" in text
    assert "kernel.shmmax" not in text


@proves(
    "[sig-scheduling] LimitRange should create a LimitRange with defaults and ensure pod has those defaults applied."
)
async def limit_range(door: Door) -> None:
    path = await door.namespace("limits")
    limit = {
        "type": "Container", "min": {"cpu": "50m", "memory": "100Mi"}, "max": {"cpu": "500m", "memory": "500Mi"},
        "default": {"cpu": "500m", "memory": "500Mi"}, "defaultRequest": {"cpu": "100m", "memory": "200Mi"},
    }  # fmt: skip
    await door.create(f"{path}/limitranges", {"metadata": {"name": "l"}, "spec": {"limits": [limit]}})
    made = await door.create(f"{path}/pods", pod("plain"))
    wanted = {"requests": limit["defaultRequest"], "limits": limit["default"]}
    assert made["spec"]["containers"][0]["resources"] == wanted
    partial = pod("partial")
    partial["spec"]["containers"][0]["resources"] = {"requests": {"cpu": "300m"}}
    made = await door.create(f"{path}/pods", partial)
    assert made["spec"]["containers"][0]["resources"]["requests"] == {"cpu": "300m", "memory": "200Mi"}
    for amount, word in (("10m", "minimum"), ("600m", "maximum")):
        bad = pod("bad")
        bad["spec"]["containers"][0]["resources"] = {"requests": {"cpu": amount}, "limits": {"cpu": amount}}
        text = await door.refused(403, "POST", f"{path}/pods", bad)
        assert f"{word} cpu usage per Container is" in text
    lower = {**limit, "min": {"cpu": "9m", "memory": "100Mi"}}
    await door.patch(f"{path}/limitranges/l", {"spec": {"limits": [lower]}})
    small = pod("small")
    small["spec"]["containers"][0]["resources"] = {"requests": {"cpu": "10m"}, "limits": {"cpu": "10m"}}
    await door.create(f"{path}/pods", small)


@proves("[sig-storage] CSIInlineVolumes should support CSIVolumeSource in Pod API")
async def csi_inline(door: Door) -> None:
    path = await door.namespace("csi") + "/pods"
    volume = {"name": "v", "csi": {"driver": "e2e.example.com", "readOnly": False}}
    made = await door.create(path, {**pod("p", volumes=[volume])})
    assert any(each.get("csi", {}).get("driver") == "e2e.example.com" for each in made["spec"]["volumes"])
    assert await door.get(f"{path}/p") == made
    assert (await door.patch(f"{path}/p", {"metadata": {"labels": {"a": "b"}}}))["metadata"]["labels"] == {
        "a": "b"
    }
    assert await door.names(f"{path}?labelSelector=a=b") == ["p"]
    await door.delete(f"{path}/p", {"gracePeriodSeconds": 0})
    await door.refused(404, "GET", f"{path}/p")


@proves("[sig-storage] PersistentVolumes CSI Conformance should apply changes to a pv/pvc status")
async def volume_status(door: Door) -> None:
    path = await door.namespace("volumes") + "/persistentvolumeclaims"
    spec = {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "hostPath": {"path": "/tmp/x"}}
    await door.create(
        "/api/v1/persistentvolumes", {**labelled("v"), "spec": {**spec, "storageClassName": "x"}}
    )
    claim = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}},
        "storageClassName": "x",
    }
    await door.create(path, {**labelled("c"), "spec": claim})
    assert await door.names("/api/v1/persistentvolumes?labelSelector=watched=a") == ["v"]
    assert (await door.get(f"{path}/c/status"))["status"]["phase"] == "Pending"
    assert (await door.get("/api/v1/persistentvolumes/v/status"))["status"]["phase"] == "Pending"
    condition = {"type": "StatusPatched", "status": "True", "reason": "E2E", "message": "Set by test"}
    patched = await door.patch(f"{path}/c/status", {"status": {"conditions": [condition]}})
    assert patched["status"]["conditions"][0]["type"] == "StatusPatched"
    patched["status"]["conditions"].append({**condition, "type": "StatusUpdated"})
    updated = await door.update(f"{path}/c/status", patched)
    assert [each["type"] for each in updated["status"]["conditions"]] == ["StatusPatched", "StatusUpdated"]
    status = {"message": "StatusPatched", "reason": "E2E"}
    volume = await door.patch("/api/v1/persistentvolumes/v/status", {"status": status})
    assert {key: volume["status"][key] for key in status} == status
    volume["status"]["message"] = "StatusUpdated"
    assert (await door.update("/api/v1/persistentvolumes/v/status", volume))["status"][
        "message"
    ] == "StatusUpdated"


# -- what kubectl asks for


@proves("[sig-cli] Kubectl client Kubectl api-versions should check if v1 is in available api versions")
async def api_versions(door: Door) -> None:
    assert "v1" in (await door.get("/api"))["versions"]
