"""What is wrong gets the status code, the reason and the message that Kubernetes gives, letter for letter."""

from __future__ import annotations

import itertools
import ssl
from collections.abc import Callable
from typing import Any

import attrs
import pytest

from tests.real.daemon import Daemon, eventually
from tests.real.https import Answer, Api

pytestmark = pytest.mark.real

MAPS = "/api/v1/namespaces/default/configmaps"
DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
UNRECOGNIZED = "the object provided is unrecognized (must be of type ConfigMap): "
UNHANDLED = 'ConfigMap in version "v1" cannot be handled as a ConfigMap: '
DEPLOYMENT_UNHANDLED = 'Deployment in version "v1" cannot be handled as a Deployment: '
NO_SUCH_KIND = 'no kind "{}" is registered for version "{}" in scheme "pkg/api/legacyscheme/scheme.go:30"'
SUBDOMAIN = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and "
    "end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
YAML = "application/yaml"
_numbers = itertools.count(1)


@attrs.frozen
class Bad:
    """One request and its answer."""

    name: str
    method: str
    path: str
    code: int
    reason: str
    message: str
    body: Any = None
    content_type: str = "application/json"


def bad_object(name: str, body: Any, message: str, **rest: Any) -> Bad:
    return Bad(name, "POST", rest.pop("path", MAPS), 400, "BadRequest", message, body, **rest)


def bad_list(name: str, query: str, message: str, path: str = MAPS) -> Bad:
    return Bad(name, "GET", f"{path}?{query}", 400, "BadRequest", message)


BODIES = (
    bad_object(
        "json cut off",
        b'{"kind"',
        UNRECOGNIZED + 'couldn\'t get version/kind; json parse error: unexpected end of JSON input ({"kind")',
    ),
    bad_object(
        "not json",
        b"hello",
        UNRECOGNIZED + "couldn't get version/kind; json parse error: "
        "invalid character 'h' looking for beginning of value (68656c6c6f)",
    ),
    bad_object(
        "empty body",
        b"",
        UNRECOGNIZED + "couldn't get version/kind; json parse error: unexpected end of JSON input (<empty>)",
    ),
    bad_object(
        "not yaml",
        b"a: b\n- c",
        UNRECOGNIZED
        + "error converting YAML to JSON: yaml: line 1: did not find expected key (613a20620a2d2063)",
        content_type=YAML,
    ),
    bad_object(
        "unknown kind",
        {"apiVersion": "v1", "kind": "Foo", "metadata": {"name": "x"}},
        'Foo in version "v1" cannot be handled as a ConfigMap: ' + NO_SUCH_KIND.format("Foo", "v1"),
    ),
    bad_object(
        "kind in another group",
        {"apiVersion": "apps/v1", "kind": "ConfigMap", "metadata": {"name": "x"}},
        UNHANDLED + NO_SUCH_KIND.format("ConfigMap", "apps/v1"),
    ),
    bad_object(
        "another kind",
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}},
        'Pod in version "v1" cannot be handled as a ConfigMap: converting (v1.Pod) to (core.ConfigMap): unknown conversion',
    ),
    bad_object(
        "number for a string",
        {"metadata": {"name": "x"}, "data": {"a": 1}},
        UNHANDLED + "json: cannot unmarshal number into Go struct field ConfigMap.data of type string",
    ),
    bad_object(
        "string for a number",
        {"metadata": {"name": "x"}, "spec": {"replicas": "3"}},
        DEPLOYMENT_UNHANDLED
        + "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
        path=DEPLOYMENTS,
    ),
    bad_object(
        "namespace of the path and of the object",
        {"metadata": {"name": "x", "namespace": "other"}},
        "the namespace of the provided object does not match the namespace sent on the request",
    ),
    Bad(
        "4 MiB",
        "POST",
        MAPS,
        413,
        "RequestEntityTooLarge",
        "Request entity too large: limit is 3145728",
        b'{"metadata":{"name":"x"},"data":{"a":"' + b"x" * (4 << 20) + b'"}}',
    ),
    Bad(
        "bad name",
        "POST",
        MAPS,
        422,
        "Invalid",
        f'ConfigMap "A_B" is invalid: metadata.name: Invalid value: "A_B": {SUBDOMAIN}',
        {"metadata": {"name": "A_B"}},
    ),
    Bad(
        "no name",
        "POST",
        MAPS,
        422,
        "Invalid",
        'ConfigMap "" is invalid: metadata.name: Required value: name or generateName is required',
        {"metadata": {}},
    ),
    Bad(
        "unknown namespace",
        "POST",
        "/api/v1/namespaces/nope/configmaps",
        404,
        "NotFound",
        'namespaces "nope" not found',
        {"metadata": {"name": "x"}},
    ),
    Bad(
        "body of an unknown type",
        "POST",
        MAPS,
        415,
        "UnsupportedMediaType",
        "the body of the request was in an unknown format - accepted media types include: "
        "application/json, application/yaml, application/vnd.kubernetes.protobuf",
        b"x",
        "text/plain",
    ),
)

SELECTORS = (
    bad_list("two equals signs", "labelSelector=a=b=c", "found '=', expected: ',' or 'end of string'"),
    bad_list(
        "open list",
        "labelSelector=a%20in%20(",
        "unable to parse requirement: found '', expected: ',', ')' or identifier",
    ),
    bad_list(
        "no such field",
        "fieldSelector=data.x=1",
        '"data.x" is not a known field selector: only "metadata.name", "metadata.namespace"',
    ),
    bad_list(
        "no such pod field",
        "fieldSelector=spec.foo=1",
        "field label not supported: spec.foo",
        "/api/v1/namespaces/default/pods",
    ),
    bad_list("no operator", "fieldSelector=a%3E1", "invalid selector: 'a>1'; can't understand 'a>1'"),
)

CONTINUE = "invalid continue token: continue key is not valid"
REVISIONS = (
    bad_list(
        "token that is no JSON",
        "limit=1&continue=garbage",
        CONTINUE + ": invalid character '\\u0081' looking for beginning of value",
    ),
    bad_list(
        "token that is no base64", "limit=1&continue=a*b", CONTINUE + ": illegal base64 data at input byte 1"
    ),
    bad_list(
        "token of another version",
        "limit=1&continue=eyJ2IjoieCJ9",
        CONTINUE + ': server does not recognize this encoded version "x"',
    ),
    bad_list(
        "list at no number",
        "resourceVersion=abc",
        'invalid resource version: resourceVersion: Invalid value: "abc": strconv.ParseUint: parsing "abc": invalid syntax',
    ),
    Bad(
        "match without a version",
        "GET",
        f"{MAPS}?resourceVersionMatch=Exact",
        422,
        "Invalid",
        'ListOptions.meta.k8s.io "" is invalid: resourceVersionMatch: Forbidden: '
        "resourceVersionMatch is forbidden unless resourceVersion is provided",
    ),
)

PATHS = (
    Bad("no such object", "GET", f"{MAPS}/nope", 404, "NotFound", 'configmaps "nope" not found'),
    Bad(
        "no such resource",
        "GET",
        "/apis/apps/v1/foos",
        404,
        "NotFound",
        "the server could not find the requested resource",
    ),
    Bad(
        "create without a namespace",
        "POST",
        "/apis/apps/v1/deployments",
        405,
        "MethodNotAllowed",
        "the server does not allow this method on the requested resource",
        {"metadata": {"name": "x"}},
    ),
    Bad(
        "update of nothing",
        "PUT",
        f"{MAPS}/nope",
        404,
        "NotFound",
        'configmaps "nope" not found',
        {"metadata": {"name": "nope"}},
    ),
    Bad(
        "propagation policy",
        "DELETE",
        f"{MAPS}/nope?propagationPolicy=No",
        422,
        "Invalid",
        'DeleteOptions.meta.k8s.io "" is invalid: propagationPolicy: Unsupported value: "No": '
        'supported values: "Foreground", "Background", "Orphan", "nil"',
    ),
)


@pytest.mark.parametrize("bad", [*BODIES, *SELECTORS, *REVISIONS, *PATHS], ids=lambda bad: bad.name)
def test_the_answer_is_the_one_of_kubernetes(api: Api, bad: Bad) -> None:
    answer = api.request(bad.method, bad.path, bad.body, content_type=bad.content_type)
    status = answer.json()
    assert (status["message"], status["reason"], status["code"]) == (bad.message, bad.reason, bad.code)
    assert (answer.status, status["kind"], status["apiVersion"], status["status"]) == (
        bad.code,
        "Status",
        "v1",
        "Failure",
    )


def test_paths_that_no_server_has_get_plain_text(api: Api) -> None:
    answer = api.request("GET", "/apis/nope.example.com/v1/foos")
    assert (answer.status, answer.body) == (404, b"404 page not found\n")


def config_map(**extra: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": f"strange-{next(_numbers)}"},
        **extra,
    }


def post(api: Api, body: Any, validation: str, content_type: str = "application/json") -> Answer:
    return api.request("POST", f"{MAPS}?fieldValidation={validation}", body, content_type=content_type)


def test_unknown_fields_strict(api: Api) -> None:
    answer = post(api, config_map(foo=1, bar=2), "Strict")
    assert (answer.status, answer.reason) == (400, "BadRequest")
    assert answer.message == UNHANDLED + 'strict decoding error: unknown field "foo", unknown field "bar"'


def test_unknown_fields_warn(api: Api) -> None:
    answer = post(api, config_map(foo=1), "Warn")
    assert (answer.status, answer.warnings) == (201, ['299 - "unknown field \\"foo\\""'])
    assert "foo" not in answer.json()


def test_unknown_fields_ignore(api: Api) -> None:
    answer = post(api, config_map(foo=1), "Ignore")
    assert (answer.status, answer.warnings) == (201, [])
    assert "foo" not in answer.json()


def test_a_request_that_says_nothing_is_warned(api: Api) -> None:
    answer = api.request("POST", MAPS, config_map(foo=1))
    assert (answer.status, answer.warnings) == (201, ['299 - "unknown field \\"foo\\""'])


def test_unknown_validation_directive(api: Api) -> None:
    answer = post(api, config_map(), "Nope")
    assert (answer.status, answer.reason) == (422, "Invalid")
    assert answer.message == (
        'CreateOptions.meta.k8s.io "" is invalid: fieldValidation: Unsupported value: "Nope": '
        'supported values: "", "Ignore", "Strict", "Warn"'
    )


@pytest.mark.parametrize("validation", ["Strict", "Warn", "Ignore"])
def test_json_with_duplicate_keys(api: Api, validation: str) -> None:
    name = config_map()["metadata"]["name"]
    answer = post(api, f'{{"metadata":{{"name":"{name}"}},"data":{{"a":"b","a":"c"}}}}'.encode(), validation)
    if validation == "Strict":
        assert (answer.status, answer.message) == (
            400,
            UNHANDLED + 'strict decoding error: duplicate field "data.a"',
        )
        return
    warned = ['299 - "duplicate field \\"data.a\\""'] if validation == "Warn" else []
    assert (answer.status, answer.warnings, answer.json()["data"]) == (201, warned, {"a": "c"})


@pytest.mark.parametrize("validation", ["Strict", "Warn", "Ignore"])
def test_yaml_with_duplicate_keys(api: Api, validation: str) -> None:
    name = config_map()["metadata"]["name"]
    body = f"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\ndata:\n  a: b\n  a: c\n".encode()
    answer = post(api, body, validation, YAML)
    text = 'yaml: unmarshal errors:\n  line 7: key "a" already set in map'
    if validation == "Strict":
        assert (answer.status, answer.message) == (400, UNHANDLED + "strict decoding error: " + text)
        return
    warned = ['299 - "line 7: key \\"a\\" already set in map"'] if validation == "Warn" else []
    assert (answer.status, answer.warnings, answer.json()["data"]) == (201, warned, {"a": "c"})


def test_objects_that_exist_already(api: Api) -> None:
    obj = config_map()
    assert api.request("POST", MAPS, obj).status == 201
    again = api.request("POST", MAPS, obj)
    assert (again.status, again.reason) == (409, "AlreadyExists")
    assert again.message == f'configmaps "{obj["metadata"]["name"]}" already exists'


def test_a_wrong_resource_version(api: Api) -> None:
    obj = config_map()
    name = obj["metadata"]["name"]
    assert api.request("POST", MAPS, obj).status == 201
    obj["metadata"]["resourceVersion"] = "1"
    answer = api.request("PUT", f"{MAPS}/{name}", obj)
    assert (answer.status, answer.reason) == (409, "Conflict")
    assert answer.message == (
        f'Operation cannot be fulfilled on configmaps "{name}": the object has been modified; '
        "please apply your changes to the latest version and try again"
    )


def test_a_wrong_precondition(api: Api) -> None:
    obj = config_map()
    name = obj["metadata"]["name"]
    uid = api.request("POST", MAPS, obj).json()["metadata"]["uid"]
    options = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": "other"}}
    answer = api.request("DELETE", f"{MAPS}/{name}", options)
    assert (answer.status, answer.reason) == (409, "Conflict")
    assert answer.message == (
        f'Operation cannot be fulfilled on ConfigMap "{name}": the UID in the precondition (other) does not match '
        f"the UID in record ({uid}). The object might have been deleted and then recreated"
    )


def test_a_name_that_differs_from_the_path(api: Api) -> None:
    obj = config_map()
    assert api.request("POST", MAPS, obj).status == 201
    answer = api.request("PUT", f"{MAPS}/{obj['metadata']['name']}", {"metadata": {"name": "z"}})
    assert (answer.status, answer.message) == (
        400,
        f"the name of the object (z) does not match the name on the URL ({obj['metadata']['name']})",
    )


def test_patches_that_do_not_fit(api: Api) -> None:
    obj = config_map()
    path = f"{MAPS}/{obj['metadata']['name']}"
    assert api.request("POST", MAPS, obj).status == 201
    json_patch = api.request(
        "PATCH", path, [{"op": "remove", "path": "/nope"}], content_type="application/json-patch+json"
    )
    assert (json_patch.status, json_patch.reason) == (422, "Invalid")
    assert json_patch.message == "the server rejected our request due to an error in our request"
    cut_off = api.request("PATCH", path, b"{", content_type="application/merge-patch+json")
    assert (cut_off.status, cut_off.reason) == (400, "BadRequest")
    unnamed = api.request(
        "PATCH", path, {"apiVersion": "v1", "kind": "ConfigMap"}, content_type="application/apply-patch+yaml"
    )
    assert (unnamed.status, unnamed.message) == (
        422,
        'PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: is required for apply patch',
    )
    plain = api.request("PATCH", path, {}, content_type="application/json")
    assert (plain.status, plain.message) == (
        415,
        "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, "
        "application/merge-patch+json, application/strategic-merge-patch+json, application/apply-patch+yaml",
    )


def test_a_resource_version_of_the_future(api: Api) -> None:
    answer = api.request("GET", f"{MAPS}?resourceVersion=99999999")
    assert (answer.status, answer.reason) == (504, "Timeout")
    assert answer.message.startswith("Timeout: Too large resource version: 99999999, current: ")
    details = answer.json()["details"]
    assert details["retryAfterSeconds"] == 1
    assert details["causes"] == [
        {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
    ]


def test_nobody_is_let_in_without_credentials(api: Api) -> None:
    plain = ssl.create_default_context()
    plain.check_hostname, plain.verify_mode = False, ssl.CERT_NONE
    stranger = attrs.evolve(api, tls=plain)
    anonymous = stranger.request("GET", MAPS)
    assert (anonymous.status, anonymous.reason) == (403, "Forbidden")
    assert anonymous.message == (
        'configmaps is forbidden: User "system:anonymous" cannot list resource "configmaps" in API group "" '
        'in the namespace "default"'
    )
    wrong = stranger.request("GET", MAPS, headers={"Authorization": "Bearer nonsense"})
    assert (wrong.status, wrong.reason, wrong.message) == (401, "Unauthorized", "Unauthorized")


@pytest.fixture(scope="module")
def forgetful(make_daemon: Callable[..., Daemon]) -> Api:
    """A daemon whose horizon follows the head by half a second, with some history behind it."""
    daemon = make_daemon("--api-history", "0.5").start()
    api = Api.of(daemon.kubeconfig)

    def beyond() -> bool:
        assert api.request("POST", MAPS, config_map()).status == 201
        return api.request("GET", f"{MAPS}?resourceVersion=1&resourceVersionMatch=Exact").status == 410

    eventually(beyond, "the horizon moves")
    return api


def test_an_expired_watch_ends_with_one_error_event(forgetful: Api) -> None:
    events = list(forgetful.watch(f"{MAPS}?watch=true&resourceVersion=1&timeoutSeconds=5"))
    assert [event["type"] for event in events] == ["ERROR"]
    status = events[0]["object"]
    assert (status["kind"], status["code"], status["reason"]) == ("Status", 410, "Expired")
    assert status["message"].startswith("too old resource version: 1 (")


def test_an_expired_list(forgetful: Api) -> None:
    answer = forgetful.request("GET", f"{MAPS}?resourceVersion=1&resourceVersionMatch=Exact")
    assert (answer.status, answer.reason) == (410, "Expired")
    assert answer.message == "The resourceVersion for the provided list is too old."
