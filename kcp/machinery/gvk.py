"""Group, version, kind, resource: how Kubernetes names types."""

from __future__ import annotations

from kcp.base.values import frozen


@frozen(cache_hash=True)
class GroupVersion:
    group: str
    version: str

    def __str__(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @classmethod
    def parse(cls, api_version: str) -> GroupVersion:
        """From an apiVersion.

        Raises ValueError("unexpected GroupVersion string: …") when it has more than one slash.
        Source: k8s v1.36 apimachinery/pkg/runtime/schema/group_version.go.
        """
        if not api_version or api_version == "/":
            return cls("", "")
        head, slash, tail = api_version.partition("/")
        if not slash:
            return cls("", head)
        if "/" in tail:
            raise ValueError(f"unexpected GroupVersion string: {api_version}")
        return cls(head, tail)


@frozen(cache_hash=True)
class GroupVersionKind:
    group: str
    version: str
    kind: str

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def group_version(self) -> GroupVersion:
        return GroupVersion(self.group, self.version)

    def __str__(self) -> str:
        """As Kubernetes prints it: `apps/v1, Kind=Deployment`; the core group gives `/v1, Kind=Pod`."""
        return f"{self.group}/{self.version}, Kind={self.kind}"


@frozen(cache_hash=True)
class GroupVersionResource:
    group: str
    version: str
    resource: str

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def group_resource(self) -> str:
        """`deployments.apps`; the core group gives the bare resource: `pods`."""
        return f"{self.resource}.{self.group}" if self.group else self.resource

    def __str__(self) -> str:
        return f"{self.group}/{self.version}, Resource={self.resource}"


def group_resource(group: str, resource: str) -> str:
    """`deployments.apps` or `pods`: how error messages and the store name a resource."""
    return f"{resource}.{group}" if group else resource
