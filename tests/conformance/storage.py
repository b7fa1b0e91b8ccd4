"""What conformance asks of volumes and their classes as objects; nothing here is mounted."""

from __future__ import annotations

from typing import Any

from tests.conformance.door import MERGE, STRATEGIC, Door
from tests.conformance.scoreboard import on_nodes

Json = dict[str, Any]
PREFIX = "[sig-storage] "
VOLUMES, CLASSES = "/api/v1/persistentvolumes", "/apis/storage.k8s.io/v1/volumeattributesclasses"
ATTACHMENTS = "/apis/storage.k8s.io/v1/volumeattachments"
LABEL = "e2e-storage=life"


def labelled(name: str, **more: Any) -> Json:
    return {"metadata": {"name": name, "labels": {"e2e-storage": "life"}}, **more}


async def changes(door: Door, path: str) -> None:
    """Read with its uid, patched and updated: the new labels are found."""
    read = await door.get(path)
    patched = await door.patch(path, {"metadata": {"labels": {"own": "patched"}}}, STRATEGIC)
    assert (patched["metadata"]["labels"]["own"], patched["metadata"]["uid"]) == (
        "patched",
        read["metadata"]["uid"],
    )
    patched["metadata"]["labels"]["own"] = "updated"
    await door.update(path, patched)
    assert (await door.get(path))["metadata"]["labels"]["own"] == "updated"


@on_nodes(PREFIX + "PersistentVolumes CSI Conformance should run through the lifecycle of a PV and a PVC")
async def volume_and_claim(door: Door) -> None:
    claims = await door.namespace("pv-life") + "/persistentvolumeclaims"
    modes: Json = {"accessModes": ["ReadWriteOnce"], "storageClassName": "no-class"}
    source = {"csi": {"driver": "csi.example.com", "volumeHandle": "handle"}}
    volume = labelled("pv-life", spec={**modes, **source, "capacity": {"storage": "1Gi"}})
    volume["spec"]["persistentVolumeReclaimPolicy"] = "Retain"
    claim = labelled("claim", spec={**modes, "resources": {"requests": {"storage": "1Gi"}}})

    async def make() -> None:
        await door.create(VOLUMES, volume)
        await door.create(claims, claim)
        assert await door.names(f"{VOLUMES}?labelSelector={LABEL}") == ["pv-life"]
        assert await door.names(claims) == ["claim"]
        await door.eventually(f"{claims}/claim", lambda found: found["status"]["phase"] == "Bound")
        bound = await door.eventually(f"{VOLUMES}/pv-life", lambda found: found["status"]["phase"] == "Bound")
        assert bound["metadata"]["finalizers"] == ["kubernetes.io/pv-protection"]

    await make()
    for path in (f"{VOLUMES}/pv-life", f"{claims}/claim"):
        await changes(door, path)
    await door.delete(f"{claims}/claim")
    await door.gone(f"{claims}/claim")
    await door.eventually(f"{VOLUMES}/pv-life", lambda found: found["status"]["phase"] == "Released")
    await door.delete(f"{VOLUMES}/pv-life")
    await door.gone(f"{VOLUMES}/pv-life")
    await make()
    await door.delete(f"{claims}?labelSelector={LABEL}")
    await door.eventually(claims, lambda found: not found["items"])
    await door.delete(f"{VOLUMES}?labelSelector={LABEL}")
    await door.eventually(f"{VOLUMES}?labelSelector={LABEL}", lambda found: not found["items"])


@on_nodes(
    PREFIX
    + "VolumeAttributesClass [FeatureGate:VolumeAttributesClass] should run through the lifecycle of a VolumeAttributesClass"
)
async def attributes_class(door: Door) -> None:
    body = labelled("gold", driverName="csi.example.com", parameters={"iops": "4000"})
    made = await door.create(CLASSES, body)
    read = await door.get(f"{CLASSES}/gold")
    assert (read["parameters"], read["metadata"]["uid"]) == ({"iops": "4000"}, made["metadata"]["uid"])
    await door.patch(f"{CLASSES}/gold", {"metadata": {"labels": {"own": "patched"}}}, MERGE)
    await door.delete(f"{CLASSES}/gold")
    await door.gone(f"{CLASSES}/gold")
    await door.create(CLASSES, body)
    await changes(door, f"{CLASSES}/gold")
    await door.delete(f"{CLASSES}?labelSelector={LABEL}")
    await door.eventually(f"{CLASSES}?labelSelector={LABEL}", lambda found: not found["items"])


def attachment(name: str) -> Json:
    source = {"persistentVolumeName": f"pv-{name}"}
    return labelled(name, spec={"attacher": "csi.example.com", "nodeName": "nowhere", "source": source})


@on_nodes(PREFIX + "VolumeAttachment Conformance should run through the lifecycle of a VolumeAttachment")
async def attachment_lifecycle(door: Door) -> None:
    await door.create(ATTACHMENTS, attachment("va-1"))
    assert (await door.get(f"{ATTACHMENTS}/va-1"))["metadata"]["name"] == "va-1"
    patch = {"metadata": {"labels": {"va-1": "patched"}}}
    assert (await door.patch(f"{ATTACHMENTS}/va-1", patch))["metadata"]["labels"]["va-1"] == "patched"
    assert await door.names(f"{ATTACHMENTS}?labelSelector=va-1=patched") == ["va-1"]
    await door.delete(f"{ATTACHMENTS}/va-1")
    await door.gone(f"{ATTACHMENTS}/va-1")
    for name in ("va-2", "va-3"):
        await door.create(ATTACHMENTS, attachment(name))
        await changes(door, f"{ATTACHMENTS}/{name}")
    assert await door.names(f"{ATTACHMENTS}?labelSelector=own=updated") == ["va-2", "va-3"]
    await door.delete(f"{ATTACHMENTS}?labelSelector=own=updated")
    await door.eventually(f"{ATTACHMENTS}?labelSelector=own=updated", lambda found: not found["items"])


@on_nodes(PREFIX + "VolumeAttachment Conformance should apply changes to a volumeattachment status")
async def attachment_status(door: Door) -> None:
    path = f"{ATTACHMENTS}/va-status"
    await door.create(ATTACHMENTS, attachment("va-status"))
    patched = await door.patch(path, {"metadata": {"labels": {"own": "patched"}}})
    assert patched["metadata"]["labels"]["own"] == "patched"
    assert not (await door.get(f"{path}/status")).get("status", {}).get("attached")
    attached = await door.patch(f"{path}/status", {"status": {"attached": True}})
    assert attached["status"] == {"attached": True} and attached["spec"] == patched["spec"]
    attached["status"]["attached"] = False
    assert (await door.update(f"{path}/status", attached))["status"] == {"attached": False}
    await door.delete(path)
    await door.gone(path)
