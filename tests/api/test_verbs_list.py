"""get and list: pages, selectors, resourceVersion."""

from __future__ import annotations

import base64

import orjson
import pytest

from kcp.machinery.errors import BadRequest, Expired, Invalid, MethodNotAllowed, NotFound, Timeout
from tests.api.harness import CONFIG_MAPS, PODS, Api, config_map, pod, running_api


async def _fill(api: Api, count: int = 7) -> None:
    for number in range(count):
        await api.create(CONFIG_MAPS, config_map(f"c{number}"))


def _token(text: str) -> dict[str, object]:
    body: dict[str, object] = orjson.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    return body


async def test_pages_follow_each_other_at_one_revision() -> None:
    async with running_api() as api:
        await _fill(api)
        first = (await api.list(CONFIG_MAPS, limit="3")).result
        assert _token(first.continue_token) == {"v": "meta.k8s.io/v1", "rv": first.rv, "start": "c2\0"}
        assert first.remaining == 4
        await api.create(CONFIG_MAPS, config_map("c9"))
        await api.delete(f"{CONFIG_MAPS}/c4")
        second = await api.list(CONFIG_MAPS, limit="3", **{"continue": first.continue_token})
        assert second.names == ["c3", "c4", "c5"]
        assert (second.result.rv, second.result.remaining) == (first.rv, 1)
        last = await api.list(CONFIG_MAPS, limit="3", **{"continue": second.result.continue_token})
        assert last.names == ["c6"]
        assert (last.result.continue_token, last.result.remaining) == ("", None)


async def test_a_page_across_namespaces_names_the_namespace() -> None:
    async with running_api() as api:
        await _fill(api, 3)
        first = (await api.list("/api/v1/configmaps", limit="1")).result
        assert _token(first.continue_token)["start"] == "default/c0\0"
        second = await api.list("/api/v1/configmaps", **{"continue": first.continue_token})
        assert second.names == ["c1", "c2"]


async def test_remaining_items_are_not_told_with_selectors() -> None:
    async with running_api() as api:
        for number in range(4):
            obj = config_map(f"c{number}")
            obj["metadata"]["labels"] = {"parity": "even" if number % 2 == 0 else "odd"}
            await api.create(CONFIG_MAPS, obj)
        page = await api.list(CONFIG_MAPS, limit="1", labelSelector="parity=even")
        assert page.names == ["c0"]
        assert page.result.continue_token
        assert page.result.remaining is None
        rest = await api.list(
            CONFIG_MAPS, labelSelector="parity=even", **{"continue": page.result.continue_token}
        )
        assert rest.names == ["c2"]


async def test_an_expired_token_gives_one_for_an_inconsistent_rest() -> None:
    async with running_api() as api:
        await _fill(api)
        first = (await api.list(CONFIG_MAPS, limit="3")).result
        await api.create(CONFIG_MAPS, config_map("c9"))
        await api.store.move_horizon(api.store.rv)
        with pytest.raises(Expired) as caught:
            await api.list(CONFIG_MAPS, limit="3", **{"continue": first.continue_token})
        assert caught.value.message.startswith("The provided continue parameter is too old to display")
        fresh = caught.value.status()["metadata"]["continue"]
        assert _token(fresh)["rv"] == -1
        rest = await api.list(CONFIG_MAPS, **{"continue": fresh})
        assert rest.names == ["c3", "c4", "c5", "c6", "c9"]


async def test_a_list_as_of_a_revision() -> None:
    async with running_api() as api:
        await _fill(api, 2)
        then = str(api.store.rv)
        await api.delete(f"{CONFIG_MAPS}/c0")
        exact = await api.list(CONFIG_MAPS, resourceVersion=then, resourceVersionMatch="Exact")
        assert exact.names == ["c0", "c1"]
        assert exact.result.rv == int(then)
        legacy = await api.list(CONFIG_MAPS, resourceVersion=then, limit="10")
        assert legacy.names == ["c0", "c1"]
        newer = await api.list(CONFIG_MAPS, resourceVersion=then, resourceVersionMatch="NotOlderThan")
        assert newer.names == ["c1"]


async def test_a_revision_before_the_horizon_is_expired() -> None:
    async with running_api() as api:
        await _fill(api, 2)
        await api.store.move_horizon(api.store.rv)
        with pytest.raises(Expired, match=r"The resourceVersion for the provided list is too old."):
            await api.list(CONFIG_MAPS, resourceVersion="2", resourceVersionMatch="Exact")


@pytest.mark.parametrize(
    ("params", "text"),
    [
        (
            {"resourceVersionMatch": "Exact"},
            "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided",
        ),
        (
            {"resourceVersionMatch": "Exact", "resourceVersion": "0"},
            'resourceVersionMatch: Forbidden: resourceVersionMatch "exact" is forbidden for resourceVersion "0"',
        ),
        (
            {"sendInitialEvents": "true"},
            "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list",
        ),
    ],
)
async def test_impossible_options_are_invalid(params: dict[str, str], text: str) -> None:
    async with running_api() as api:
        with pytest.raises(Invalid) as caught:
            await api.list(CONFIG_MAPS, **params)
        assert caught.value.message == f'ListOptions.meta.k8s.io "" is invalid: {text}'


@pytest.mark.parametrize(
    ("params", "text"),
    [
        ({"labelSelector": "a=b,,"}, "unable to parse requirement|found"),
        ({"fieldSelector": "spec.foo=x"}, "^field label not supported: spec.foo$"),
        ({"resourceVersion": "abc"}, '^invalid resource version: resourceVersion: Invalid value: "abc"'),
        ({"continue": "x"}, "^invalid continue token: continue key is not valid"),
        ({"limit": "many"}, 'strconv.ParseInt: parsing "many": invalid syntax'),
    ],
)
async def test_malformed_options_are_bad_requests(params: dict[str, str], text: str) -> None:
    async with running_api() as api:
        with pytest.raises(BadRequest, match=text):
            await api.list(PODS, **params)


async def test_unknown_field_labels_are_refused_in_the_words_of_the_kind() -> None:
    async with running_api() as api:
        with pytest.raises(BadRequest) as caught:
            await api.list(CONFIG_MAPS, fieldSelector="spec.foo=x")
        assert caught.value.message == (
            '"spec.foo" is not a known field selector: only "metadata.name", "metadata.namespace"'
        )
        with pytest.raises(BadRequest, match=r'^field label "spec.foo" not supported for Job$'):
            await api.list("/apis/batch/v1/namespaces/default/jobs", fieldSelector="spec.foo=x")


async def test_selectors_choose() -> None:
    async with running_api() as api:
        for name in ("a", "b"):
            obj = pod(name)
            obj["metadata"]["labels"] = {"app": name}
            await api.create(PODS, obj)
        assert (await api.list(PODS, labelSelector="app in (a)")).names == ["a"]
        assert (await api.list(PODS, fieldSelector="metadata.name=b")).names == ["b"]
        assert (await api.list(PODS, fieldSelector="spec.nodeName=")).names == ["a", "b"]
        assert (await api.list(PODS, fieldSelector="status.phase!=Pending")).names == []


async def test_a_revision_not_reached_times_out() -> None:
    async with running_api() as api:
        with pytest.raises(Timeout) as caught:
            await api.get(f"{CONFIG_MAPS}/x", resourceVersion="999")
        assert caught.value.message == f"Timeout: Too large resource version: 999, current: {api.store.rv}"
        assert caught.value.has_cause("ResourceVersionTooLarge")


async def test_what_is_not_served_is_said_so() -> None:
    async with running_api() as api:
        with pytest.raises(NotFound, match=r'^pods "x" not found$'):
            await api.get(f"{PODS}/x")
        with pytest.raises(MethodNotAllowed):
            await api.call("POST", "/api/v1/pods", pod())
        with pytest.raises(MethodNotAllowed):
            await api.call("DELETE", "/api/v1/namespaces")
        with pytest.raises(NotFound, match=r"^the server could not find the requested resource$"):
            await api.call("GET", f"{PODS}/x/nonsense")
