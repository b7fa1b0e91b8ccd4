"""ServiceAccount: every pod has an account; its token, CA and namespace are mounted into the containers.

Source: k8s v1.36 plugin/pkg/admission/serviceaccount/admission.go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from kcp.api.admission.plugin import Attributes, refused
from kcp.base.values import frozen
from kcp.store.protocol import Head, Key

DEFAULT = "default"
MIRROR_ANNOTATION = "kubernetes.io/config.mirror"
ENFORCE_SECRETS_ANNOTATION = "kubernetes.io/enforce-mountable-secrets"
VOLUME_PREFIX = "kube-api-access-"
MOUNT_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"
TOKEN_LIFETIME_S = 3607
"""An hour and a bit: the odd number tells this token from ones that ask for exactly an hour."""

Json = dict[str, Any]


def token_volume(name: str) -> Json:
    token = {"serviceAccountToken": {"path": "token", "expirationSeconds": TOKEN_LIFETIME_S}}
    ca = {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}}
    field = {"apiVersion": "v1", "fieldPath": "metadata.namespace"}
    namespace = {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": field}]}}
    return {"name": name, "projected": {"defaultMode": 0o644, "sources": [token, ca, namespace]}}


def _containers(spec: Json) -> list[Json]:
    return [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]


def _automounts(account: Json, spec: Json) -> bool:
    for holder in (spec, account):
        wanted = holder.get("automountServiceAccountToken")
        if wanted is not None:
            return bool(wanted)
    return True


def _is_token_volume(volume: Json) -> bool:
    return "projected" in volume and str(volume.get("name", "")).startswith(VOLUME_PREFIX)


def _mount(spec: Json, volume_name: Callable[[], str]) -> None:
    volumes = spec.get("volumes") or []
    present = next((volume["name"] for volume in volumes if _is_token_volume(volume)), "") if volumes else ""
    name = present or volume_name()
    needed = False
    for container in _containers(spec):
        mounts = container.get("volumeMounts") or []
        if mounts and any(mount.get("mountPath") == MOUNT_PATH for mount in mounts):
            continue
        needed = True
        container["volumeMounts"] = [*mounts, {"name": name, "readOnly": True, "mountPath": MOUNT_PATH}]
    if needed and not present:
        spec["volumes"] = [*volumes, token_volume(name)]


def _secret_references(spec: Json) -> Iterator[tuple[str, str]]:
    """(secret, what is wrong when the account does not list it)."""
    for volume in spec.get("volumes") or ():
        secret = (volume.get("secret") or {}).get("secretName")
        if secret:
            yield (
                secret,
                f'volume with secret.secretName="{secret}" is not allowed because service account {{}} does not reference that secret',
            )
    for container in _containers(spec):
        kind = "init container" if container in (spec.get("initContainers") or ()) else "container"
        for source in container.get("envFrom") or ():
            secret = (source.get("secretRef") or {}).get("name")
            if secret:
                yield (
                    secret,
                    f'{kind} {container["name"]} with envFrom referencing secret.secretName="{secret}" is not allowed because service account {{}} does not reference that secret',
                )
        for env in container.get("env") or ():
            secret = ((env.get("valueFrom") or {}).get("secretKeyRef") or {}).get("name")
            if secret:
                yield (
                    secret,
                    f'{kind} {container["name"]} with envVar {env["name"]} referencing secret.secretName="{secret}" is not allowed because service account {{}} does not reference that secret',
                )


def _unlisted_secret(account: Json, spec: Json) -> str | None:
    name = account["metadata"]["name"]
    listed = [secret.get("name") for secret in account.get("secrets") or ()]
    for secret, text in _secret_references(spec):
        if secret not in listed:
            return text.format(name)
    pulls = [secret.get("name") for secret in account.get("imagePullSecrets") or ()]
    for at, reference in enumerate(spec.get("imagePullSecrets") or ()):
        if reference.get("name") not in pulls:
            return (
                f'imagePullSecrets[{at}].name="{reference.get("name")}" is not allowed because service account'
                f" {name} does not reference that imagePullSecret"
            )
    return None


def _is_mirror(pod: Json) -> bool:
    return MIRROR_ANNOTATION in (pod["metadata"].get("annotations") or {})


def _check_mirror(attributes: Attributes, spec: Json) -> None:
    if spec.get("serviceAccountName"):
        raise refused(attributes, "a mirror pod may not reference service accounts")
    if next(_secret_references(spec), None) is not None:
        raise refused(attributes, "a mirror pod may not reference secrets")
    for volume in spec.get("volumes") or ():
        sources = (volume.get("projected") or {}).get("sources") or ()
        if any("serviceAccountToken" in source for source in sources):
            raise refused(attributes, "a mirror pod may not use ServiceAccountToken volume projections")


@frozen
class ServiceAccount:
    """`generate_name` appends a random suffix to the name of the token volume."""

    store: Head
    generate_name: Callable[[str], str]
    name: str = "ServiceAccount"

    def handles(self, attributes: Attributes) -> bool:
        return (
            attributes.kind.resource == "pods"
            and attributes.subresource == ""
            and attributes.operation == "CREATE"
        )

    def awaited(self, attributes: Attributes) -> Key | None:
        """The account `default` of a namespace that was just created: its controller is on its way."""
        spec = attributes.new.get("spec") or {}
        if (spec.get("serviceAccountName") or DEFAULT) != DEFAULT or _is_mirror(attributes.new):
            return None
        key = Key("serviceaccounts", attributes.namespace, DEFAULT)
        if self.store.get(key) is not None:
            return None
        return key if self.store.get(Key("namespaces", "", attributes.namespace)) is not None else None

    def _account(self, attributes: Attributes, spec: Json) -> Json:
        namespace, name = attributes.namespace, spec["serviceAccountName"]
        record = self.store.get(Key("serviceaccounts", namespace, name))
        if record is None:
            raise refused(
                attributes,
                f'error looking up service account {namespace}/{name}: serviceaccount "{name}" not found',
            )
        return record.value

    def admit(self, attributes: Attributes) -> None:
        pod = attributes.new
        spec = pod["spec"]
        if _is_mirror(pod):
            return
        if not spec.get("serviceAccountName"):
            spec["serviceAccountName"] = spec["serviceAccount"] = DEFAULT
        account = self._account(attributes, spec)
        if _automounts(account, spec):
            _mount(spec, lambda: self.generate_name(VOLUME_PREFIX))
        if not spec.get("imagePullSecrets") and account.get("imagePullSecrets"):
            spec["imagePullSecrets"] = list(account["imagePullSecrets"])

    def validate(self, attributes: Attributes) -> None:
        pod = attributes.new
        spec = pod["spec"]
        if _is_mirror(pod):
            _check_mirror(attributes, spec)
            return
        if not spec.get("serviceAccountName"):
            name = pod["metadata"].get("name", "")
            raise refused(attributes, f"no service account specified for pod {attributes.namespace}/{name}")
        account = self._account(attributes, spec)
        annotations = account["metadata"].get("annotations") or {}
        if annotations.get(ENFORCE_SECRETS_ANNOTATION) == "true":
            fault = _unlisted_secret(account, spec)
            if fault:
                raise refused(attributes, fault)
