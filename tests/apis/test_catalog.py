"""The catalog: what it finds, how kinds behave by default, which resources share their storage."""

from datetime import UTC, datetime

import pytest

from kcp.apis.catalog import build_catalog
from kcp.apis.kind import Catalog, Kind

UNCONDITIONAL_REFUSED = {
    "RuntimeClass", "PodDisruptionBudget", "CSIDriver", "CSINode", "CSIStorageCapacity", "VolumeAttachment", "Lease",
    "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding", "MutatingAdmissionPolicy",
    "MutatingAdmissionPolicyBinding", "ValidatingWebhookConfiguration", "MutatingWebhookConfiguration",
    "CustomResourceDefinition", "APIService",
}  # fmt: skip
CREATE_ON_UPDATE = {"Lease", "RuntimeClass", "Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding"}
NOW = datetime(2026, 1, 1, tzinfo=UTC)
CORE_GROUPS = {"", "apps", "batch", "events.k8s.io"}


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return build_catalog()


def _own(catalog: Catalog) -> list[Kind]:
    return [kind for kind in catalog.kinds() if kind.group not in CORE_GROUPS]


def test_resources_are_found_by_path_and_by_kind(catalog: Catalog) -> None:
    by_path = catalog.by_resource("apps", "v1", "deployments")
    assert by_path is not None
    assert by_path is catalog.by_kind("apps", "v1", "Deployment")
    assert by_path.resource == "deployments.apps"
    assert catalog.by_resource("apps", "v1beta1", "deployments") is None


def test_both_versions_of_the_autoscaler_share_one_storage(catalog: Catalog) -> None:
    old = catalog.by_kind("autoscaling", "v1", "HorizontalPodAutoscaler")
    new = catalog.by_kind("autoscaling", "v2", "HorizontalPodAutoscaler")
    assert old is not None and new is not None
    assert old.resource == new.resource == "horizontalpodautoscalers.autoscaling"
    assert old.to_storage is not None and new.to_storage is None


def test_both_groups_of_events_share_one_storage(catalog: Catalog) -> None:
    core, events = catalog.by_kind("", "v1", "Event"), catalog.by_kind("events.k8s.io", "v1", "Event")
    assert core is not None and events is not None
    assert core.resource == events.resource == "events"


def test_reviews_and_bindings_are_not_stored(catalog: Catalog) -> None:
    virtual = {kind.kind for kind in catalog.kinds() if not kind.stored}
    assert virtual == {
        "Binding", "ComponentStatus", "SelfSubjectReview", "TokenReview", "LocalSubjectAccessReview",
        "SelfSubjectAccessReview", "SelfSubjectRulesReview", "SubjectAccessReview",
    }  # fmt: skip


def test_every_kind_prints(catalog: Catalog) -> None:
    assert all(kind.printer is not None for kind in catalog.kinds())


def test_kinds_that_refuse_updates_without_resource_version(catalog: Catalog) -> None:
    refused = {kind.kind for kind in _own(catalog) if not kind.strategy.allow_unconditional_update}
    assert refused == UNCONDITIONAL_REFUSED


def test_kinds_that_an_update_may_create(catalog: Catalog) -> None:
    assert {kind.kind for kind in _own(catalog) if kind.strategy.allow_create_on_update} == CREATE_ON_UPDATE


def test_a_kind_ignores_status_exactly_when_it_has_the_subresource(catalog: Catalog) -> None:
    for kind in _own(catalog):
        if kind.stored:
            assert kind.strategy.has_status == (kind.subresource("status") is not None), kind.kind


def test_a_catalog_is_not_shared(catalog: Catalog) -> None:
    other = build_catalog()
    kind = other.kinds()[0]
    other.remove(kind)
    assert catalog.by_kind(kind.group, kind.version, kind.kind) is not None


def test_minimal_objects_are_judged_and_printed_without_a_crash(catalog: Catalog) -> None:
    """Whatever is missing gives a field error, or nothing, but never an exception."""
    for kind in catalog.kinds():
        obj: dict[str, object] = {
            "apiVersion": kind.api_version,
            "kind": kind.kind,
            "metadata": {"name": "x", "namespace": "y"},
        }
        kind.strategy.default(obj)
        kind.strategy.prepare_create(obj)
        kind.strategy.validate_create(obj)
        kind.strategy.validate_update(obj, obj)
        kind.strategy.validate_status(obj, obj)
        kind.strategy.warnings(obj, None)
        for read in kind.strategy.selectable.values():
            assert isinstance(read(obj), str)
        assert kind.printer is not None
        cells = kind.printer.cells(obj, NOW)
        assert len(cells) == len(kind.printer.columns), kind.kind
