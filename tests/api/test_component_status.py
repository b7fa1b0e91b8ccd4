"""ComponentStatuses: made up at each request, of what runs here and what Leases tell."""

from __future__ import annotations

import pytest

from kcp.api.component_status import RUNNING
from kcp.machinery.errors import ApiError
from tests.api.harness import running_api
from tests.api.support import api, as_json
from tests.api.test_chain import ask, with_tokens

PATH = "/api/v1/componentstatuses"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases"


async def test_what_runs_here_is_healthy_and_what_runs_nowhere_is_not() -> None:
    async with running_api() as api:
        api.server.extras[RUNNING] = lambda: ["kube-scheduler"]
        items = {item["metadata"]["name"]: item["conditions"] for item in (await api.list(PATH)).items}
        assert items == {
            "controller-manager": [
                {
                    "type": "Healthy",
                    "status": "False",
                    "message": 'Get "https://127.0.0.1:10257/healthz": dial tcp 127.0.0.1:10257: connect: connection refused',
                }
            ],
            "scheduler": [{"type": "Healthy", "status": "True", "message": "ok"}],
            "etcd-0": [{"type": "Healthy", "status": "True", "message": "ok"}],
        }


async def test_a_component_elsewhere_is_healthy_while_it_renews_its_lease() -> None:
    async with running_api(bootstrapped=True) as api:
        now = api.clock.now().strftime("%Y-%m-%dT%H:%M:%S.000000Z")
        spec = {"holderIdentity": "far", "leaseDurationSeconds": 15, "renewTime": now}
        await api.create(LEASES, {"metadata": {"name": "kube-scheduler"}, "spec": spec})
        assert (await api.get(f"{PATH}/scheduler"))["conditions"][0]["status"] == "True"
        api.clock.advance(16)
        assert (await api.get(f"{PATH}/scheduler"))["conditions"][0]["status"] == "False"


async def test_one_by_name_or_by_selector() -> None:
    async with running_api() as api:
        assert (await api.list(PATH, fieldSelector="metadata.name=etcd-0")).names == ["etcd-0"]
        assert (await api.list(PATH, labelSelector="a=b")).names == []
        with pytest.raises(ApiError) as caught:
            await api.get(f"{PATH}/nothing")
        assert (caught.value.code, caught.value.message) == (500, "Component not found: nothing")


async def test_it_is_a_list_and_a_table_like_others() -> None:
    async with api(auth=with_tokens) as (_, handler):
        value = as_json(await ask(handler, "GET", PATH, "root"))
        assert (value["kind"], value["metadata"]) == ("ComponentStatusList", {})
        accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
        table = as_json(await ask(handler, "GET", PATH, "root", accept=accept))
        names = [column["name"] for column in table["columnDefinitions"]]
        assert names == ["Name", "Status", "Message", "Error"]
        assert ["etcd-0", "Healthy", "ok", ""] in [row["cells"] for row in table["rows"]]
