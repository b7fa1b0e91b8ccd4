"""Carries out effects through a client: every one with a deadline, its cause and its fence.

The outcome of a failed effect holds the API error; nothing here raises but cancellation and bugs.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, cast

import anyio
import attrs

from kcp.client.answers import WriteResult
from kcp.client.client import Client
from kcp.controllers import effects as fx
from kcp.machinery.errors import ApiError, NotFound, Timeout

Json = dict[str, Any]
DEADLINE_S = 10.0
"""How long one effect may take. Source: DESIGN decision 14: every wait has a deadline."""

WRITES = (fx.Create, fx.Update, fx.Status, fx.Patch, fx.Delete)
SKIPPED = fx.Outcome(skipped=True)
External = Callable[[str, Json], Awaitable[Json]]
Together = Callable[["Executor", Sequence[Any]], Awaitable[Sequence[WriteResult | ApiError]]]
MAX_TOGETHER = 500
"""How many effects are asked for in one request at most; each such request has a deadline of its own."""


@attrs.define
class Executor:
    """One per decision: `cause` is its id. Writes are remembered per resource for the barrier."""

    client: Client
    cause: int
    record_event: Callable[[fx.Event], None]
    externals: Mapping[str, External] = {}
    written: dict[str, int] = attrs.field(factory=dict)
    uncertain: dict[str, None] = attrs.field(factory=dict)
    """Resources of writes that failed in a way that does not tell whether they were done."""

    async def perform(self, effect: fx.Effect) -> fx.Outcome:
        if isinstance(effect, fx.All):
            return await self._all(effect)
        if isinstance(effect, fx.Event):
            self.record_event(effect)
            return fx.Outcome()
        if isinstance(effect, (fx.RequeueAfter, fx.Memo)):
            return fx.Outcome()  # the driver's own business
        timeout_s = effect.timeout_s if isinstance(effect, fx.External) else DEADLINE_S
        try:
            with anyio.fail_after(timeout_s):
                return await _PERFORM[type(effect)](self, effect)
        except TimeoutError:
            return self._failed(effect, Timeout(f"{type(effect).__name__} took longer than {timeout_s:g} s"))
        except ApiError as error:
            return self._failed(effect, error)
        except BaseException:
            self._left(effect)
            raise

    def _failed(self, effect: fx.Effect, error: ApiError) -> fx.Outcome:
        if error.code >= 500:
            self._left(effect)
        return fx.Outcome(error=error)

    def _left(self, effect: fx.Effect) -> None:
        """Nobody waits for the answer any more: what was asked for may be done, or not."""
        if isinstance(effect, WRITES):
            self.uncertain[effect.resource] = None

    async def _all(self, effect: fx.All) -> fx.Outcome:
        outcomes: list[fx.Outcome] = [SKIPPED] * len(effect.effects)
        start, size = 0, 1 if effect.slow_start else len(effect.effects)
        while start < len(effect.effects):
            await self._batch(effect.effects[start : start + size], outcomes, start)
            if effect.slow_start and any(o.error is not None for o in outcomes[start : start + size]):
                break
            start, size = start + size, size * 2
        return fx.Outcome(all=outcomes)

    async def _batch(self, batch: Any, outcomes: list[fx.Outcome], start: int) -> None:
        if len(batch) == 1:
            outcomes[start] = await self.perform(batch[0])
            return
        for kind, together in _TOGETHER if self.client.transport.in_process else ():
            if all(type(effect) is kind for effect in batch):
                outcomes[start : start + len(batch)] = await self._together(batch, together)
                return

        async def one(index: int, effect: fx.Effect) -> None:
            outcomes[index] = await self.perform(effect)

        async with anyio.create_task_group() as group:
            for offset, effect in enumerate(batch):
                group.start_soon(one, start + offset, effect)

    async def _together(self, batch: Sequence[Any], together: Together) -> list[fx.Outcome]:
        """As few requests and commits as can be; an outcome each."""
        outcomes: list[fx.Outcome] = []
        for start in range(0, len(batch), MAX_TOGETHER):
            outcomes += await self._one_request(batch[start : start + MAX_TOGETHER], together)
        return outcomes

    async def _one_request(self, batch: Sequence[Any], together: Together) -> list[fx.Outcome]:
        try:
            with anyio.fail_after(DEADLINE_S):
                results = await together(self, batch)
        except TimeoutError:
            late = Timeout(f"{type(batch[0]).__name__} took longer than {DEADLINE_S:g} s")
            return [self._failed(effect, late) for effect in batch]
        except ApiError as error:
            return [self._failed(effect, error) for effect in batch]
        except BaseException:
            self._left(batch[0])
            raise
        return [
            self._failed(effect, result)
            if isinstance(result, ApiError)
            else self._wrote(effect.resource, result)
            for effect, result in zip(batch, results, strict=True)
        ]

    async def _create_all(self, batch: Sequence[fx.Create]) -> Sequence[WriteResult | ApiError]:
        creates = [(effect.resource, effect.object, effect.namespace) for effect in batch]
        return await self.client.create_all(creates, cause=self.cause)

    async def _delete_all(self, batch: Sequence[fx.Delete]) -> Sequence[WriteResult | ApiError]:
        return await self.client.delete_all(batch, cause=self.cause)

    def _wrote(self, resource: str, written: WriteResult) -> fx.Outcome:
        if written.revision:
            self.written[resource] = max(written.revision, self.written.get(resource, 0))
        return fx.Outcome(object=written.object, rv=written.revision)

    async def _create(self, effect: fx.Create) -> fx.Outcome:
        written = await self.client.create(effect.resource, effect.object, effect.namespace, cause=self.cause)
        return self._wrote(effect.resource, written)

    async def _update(self, effect: fx.Update) -> fx.Outcome:
        written = await self.client.update(
            effect.resource, effect.object, subresource=effect.subresource, cause=self.cause
        )
        return self._wrote(effect.resource, written)

    async def _status(self, effect: fx.Status) -> fx.Outcome:
        if effect.object.get("status") == effect.status:
            return fx.Outcome(object=effect.object)
        changed = {**effect.object, "status": effect.status}
        written = await self.client.update(effect.resource, changed, subresource="status", cause=self.cause)
        return self._wrote(effect.resource, written)

    async def _patch(self, effect: fx.Patch) -> fx.Outcome:
        patch = _with_preconditions(effect)
        written = await self.client.patch(
            effect.resource,
            effect.name,
            patch,
            effect.type,
            effect.namespace,
            subresource=effect.subresource,
            field_manager=effect.field_manager,
            force=effect.force,
            cause=self.cause,
        )
        return self._wrote(effect.resource, written)

    async def _delete(self, effect: fx.Delete) -> fx.Outcome:
        written = await self.client.delete(
            effect.resource,
            effect.name,
            effect.namespace,
            uid=effect.uid,
            rv=effect.rv,
            propagation=effect.propagation,
            grace_s=effect.grace_s,
            cause=self.cause,
        )
        return self._wrote(effect.resource, written)

    async def _live(self, effect: fx.Live) -> fx.Outcome:
        try:
            return fx.Outcome(object=await self.client.get(effect.resource, effect.name, effect.namespace))
        except NotFound:
            return fx.Outcome()

    async def _live_list(self, effect: fx.LiveList) -> fx.Outcome:
        page = await self.client.list(
            effect.resource,
            effect.namespace,
            label_selector=effect.label_selector,
            field_selector=effect.field_selector,
        )
        return fx.Outcome(items=page.items)

    async def _request(self, effect: fx.Request) -> fx.Outcome:
        written = await self.client.request(
            effect.method, effect.path, body=effect.body, query=effect.query, cause=self.cause
        )
        return self._wrote("", written)

    async def _external(self, effect: fx.External) -> fx.Outcome:
        provider = self.externals.get(effect.provider)
        if provider is None:
            return fx.Outcome(error=NotFound(f"no provider {effect.provider!r}"))
        return fx.Outcome(object=await provider(effect.call, effect.args))


def _with_preconditions(effect: fx.Patch) -> Any:
    """uid and resourceVersion travel inside a merge-like patch, as Kubernetes' own controllers send them."""
    if effect.type == "json" or not (effect.uid or effect.rv):
        return effect.patch
    metadata = dict(effect.patch.get("metadata", {}))
    if effect.uid:
        metadata["uid"] = effect.uid
    if effect.rv:
        metadata["resourceVersion"] = effect.rv
    return {**effect.patch, "metadata": metadata}


_PERFORM = cast(
    "Mapping[type, Callable[[Executor, Any], Awaitable[fx.Outcome]]]",
    {
        fx.Create: Executor._create,
        fx.Update: Executor._update,
        fx.Status: Executor._status,
        fx.Patch: Executor._patch,
        fx.Delete: Executor._delete,
        fx.Live: Executor._live,
        fx.LiveList: Executor._live_list,
        fx.Request: Executor._request,
        fx.External: Executor._external,
    },
)


_TOGETHER = cast(
    "Sequence[tuple[type, Together]]",
    ((fx.Create, Executor._create_all), (fx.Delete, Executor._delete_all)),
)
"""What several of a kind can be asked for in one request."""


def benign(effect: fx.Effect, error: ApiError) -> bool:
    """Failures that need no retry: the target is gone, or its whole namespace is going."""
    if error.has_cause("NamespaceTerminating"):
        return True
    return isinstance(error, NotFound) and isinstance(effect, (fx.Patch, fx.Delete, fx.Status))


def failures(effect: fx.Effect, outcome: fx.Outcome) -> list[ApiError]:
    """The errors of an effect that ask for a retry."""
    if isinstance(effect, fx.All):
        pairs = zip(effect.effects, outcome.all, strict=True)
        return [error for part, part_outcome in pairs for error in failures(part, part_outcome)]
    if outcome.error is None or benign(effect, outcome.error):
        return []
    return [outcome.error]
