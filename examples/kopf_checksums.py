"""An operator for ConfigMaps: those with the label `checksum: "yes"` are annotated with the digest of their data.

    kopf run --standalone -n default examples/kopf_checksums.py

A ConfigMap that goes leaves a line in the ConfigMap `farewells` first: kopf holds it back with a finalizer meanwhile.
"""

import hashlib
import json
from typing import Any

import kopf
from kubernetes_asyncio import client, config

CARED_FOR = {"checksum": "yes"}


@kopf.on.startup()
async def configure(settings: kopf.OperatorSettings, **_: Any) -> None:
    settings.posting.enabled = True
    settings.watching.server_timeout = 300
    await config.load_kube_config()


@kopf.on.create("v1", "configmaps", labels=CARED_FOR)
@kopf.on.update("v1", "configmaps", labels=CARED_FOR, field="data")
async def annotate(body: kopf.Body, patch: kopf.Patch, **_: Any) -> None:
    digest = hashlib.sha256(json.dumps(dict(body.get("data") or {}), sort_keys=True).encode()).hexdigest()[
        :12
    ]
    patch.metadata.annotations["example.com/checksum"] = digest
    kopf.info(body, reason="Checked", message=f"the checksum is {digest}")


@kopf.on.delete("v1", "configmaps", labels=CARED_FOR)
async def say_farewell(name: str, namespace: str | None, **_: Any) -> None:
    assert namespace, "ConfigMaps have a namespace"
    async with client.ApiClient() as api:
        core = client.CoreV1Api(api)
        said: Any = {name: "gone"}
        try:
            farewell: Any = {"metadata": {"name": "farewells"}, "data": said}
            await core.create_namespaced_config_map(namespace, farewell)
        except client.ApiException as error:
            if error.status != 409:
                raise
            await core.patch_namespaced_config_map("farewells", namespace, {"data": said})
