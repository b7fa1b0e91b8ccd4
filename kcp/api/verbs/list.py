"""list: a page of a resource, now or as of a revision.

Source: k8s v1.36 apiserver/pkg/storage/etcd3/store.go (GetList), apiserver/pkg/storage/continue.go.
"""

from __future__ import annotations

import base64
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

import orjson

from kcp.api.context import Call, Server
from kcp.api.documents import served
from kcp.api.options import ListOptions, list_options, revision
from kcp.api.results import ListResult, Result
from kcp.api.selection import Selection, select
from kcp.api.verbs.freshness import wait_until_fresh
from kcp.apis.kind import Kind
from kcp.base.values import frozen
from kcp.machinery.codec.json import decode_json, go_type
from kcp.machinery.errors import BadRequest, Expired
from kcp.machinery.schema.validate import base64_error
from kcp.store.protocol import Key, Record

TOKEN_VERSION = "meta.k8s.io/v1"
PAGE = 2000
"""Rows fetched at once when a page is read from history."""

EXPIRED_CONTINUE = (
    "The provided continue parameter is too old to display a consistent list result. You can start a new list without"
    " the continue parameter, or use the continue token in this response to retrieve the remainder of the results."
    " Continuing with the provided token results in an inconsistent list - objects that were created, modified, or"
    " deleted between the time the first chunk was returned and now may show up in the list."
)
EXPIRED_LIST = "The resourceVersion for the provided list is too old."


@frozen
class Token:
    """Where a list goes on: at revision `rv` (-1: whatever is newest), strictly after (namespace, name)."""

    rv: int
    after: tuple[str, str]


def encode_token(token: Token, namespace: str | None) -> str:
    """The key in the token is relative to what is listed: `ns/name` for all namespaces, else the bare name."""
    inner, name = token.after
    start = f"{inner}/{name}" if namespace is None and inner else name
    body = orjson.dumps({"v": TOKEN_VERSION, "rv": token.rv, "start": f"{start}\0"})
    return base64.urlsafe_b64encode(body).rstrip(b"=").decode()


def _bad_token(why: str) -> BadRequest:
    """Source: k8s v1.36 apiserver/pkg/storage/continue.go."""
    return BadRequest(f"invalid continue token: continue key is not valid{why}")


def _token_body(text: str) -> dict[str, Any]:
    standard = text.translate({ord("-"): "+", ord("_"): "/"})
    try:
        raw = base64.b64decode(standard + "=" * (-len(text) % 4), validate=True)
    except ValueError:
        raise _bad_token(f": {base64_error(standard)}") from None
    try:
        body, _ = decode_json(raw)
    except ValueError as error:
        raise _bad_token(f": {error}") from None
    if not isinstance(body, dict):
        raise _bad_token(
            f": json: cannot unmarshal {go_type(body)} into Go value of type storage.continueToken"
        )
    return body


def decode_token(text: str, kind: Kind, namespace: str | None) -> Token:
    """Raises BadRequest."""
    body = _token_body(text)
    version, rv, start = (body.get(key) for key in ("v", "rv", "start"))
    if version != TOKEN_VERSION:
        raise _bad_token(f': server does not recognize this encoded version "{version or ""}"')
    if not isinstance(rv, int) or rv == 0:
        raise _bad_token(f": incorrect encoded start resourceVersion (version {TOKEN_VERSION})")
    if not isinstance(start, str) or not start:
        raise _bad_token(f": encoded start key empty (version {TOKEN_VERSION})")
    start = start.rstrip("\0")
    if kind.namespaced and namespace is None:
        inner, _, name = start.partition("/")
        return Token(rv, (inner, name))
    return Token(rv, (namespace or "", start))


def matching(server: Server, kind: Kind, namespace: str | None, selection: Selection) -> list[Record]:
    """The live objects that a selection means, in key order."""
    store = server.store
    if selection.name and (namespace is not None or not kind.namespaced):
        record = store.get(Key(kind.resource, namespace or "", selection.name))
        return [record] if record is not None and _matches(kind, selection, record) else []
    records = store.list(kind.resource, namespace)
    if selection.empty:
        return list(records)
    return [record for record in records if _matches(kind, selection, record)]


def _matches(kind: Kind, selection: Selection, record: Record) -> bool:
    return selection.matches(served(kind, record.document).value)


@frozen
class _Reading:
    """One list request on its way: what is listed, and from where."""

    server: Server
    kind: Kind
    namespace: str | None
    options: ListOptions
    selection: Selection

    async def page(self, rv: int, after: tuple[str, str] | None) -> ListResult:
        """The page at a revision, from memory when nothing of the resource changed since."""
        store, kind = self.server.store, self.kind
        if rv == store.rv or self.server.caches.unchanged_since(kind.resource, rv):
            return self._live(rv, after)
        return await self._historic(rv, after)

    def _live(self, rv: int, after: tuple[str, str] | None) -> ListResult:
        records = matching(self.server, self.kind, self.namespace, self.selection)
        if after is not None:
            records = records[bisect_right(records, after, key=_position) :]
        return self._cut(records, rv)

    async def _historic(self, rv: int, after: tuple[str, str] | None) -> ListResult:
        """Without selectors everything that follows is read, because remainingItemCount must be told."""
        found: list[Record] = []
        limit, store = self.options.limit, self.server.store
        while not limit or self.selection.empty or len(found) <= limit:
            records = await store.list_at(self.kind.resource, rv, self.namespace, after, PAGE)
            found += [r for r in records if self.selection.empty or _matches(self.kind, self.selection, r)]
            if len(records) < PAGE:
                break
            after = _position(records[-1])
        return self._cut(found, rv)

    def _cut(self, records: Sequence[Record], rv: int) -> ListResult:
        limit, token, remaining = self.options.limit, "", None
        if limit and len(records) > limit:
            remaining = len(records) - limit if self.selection.empty else None
            records = records[:limit]
            token = encode_token(Token(rv, _position(records[-1])), self.namespace)
        documents = [served(self.kind, record.document) for record in records]
        return ListResult(self.kind, documents, rv, token, remaining)

    async def continued(self) -> ListResult:
        """The next page. Raises Expired with a fresh token for an inconsistent continuation."""
        options, store = self.options, self.server.store
        token = decode_token(options.continue_token, self.kind, self.namespace)
        if options.resource_version not in ("", "0"):
            raise BadRequest("specifying resource version is not allowed when using continue")
        if token.rv < 0:
            return await self.page(store.rv, token.after)
        await wait_until_fresh(self.server, token.rv)
        if token.rv < store.horizon:
            error = Expired(EXPIRED_CONTINUE)
            error.metadata = {"continue": encode_token(Token(-1, token.after), self.namespace)}
            raise error
        return await self.page(token.rv, token.after)

    async def exact(self, rv: int) -> ListResult:
        await wait_until_fresh(self.server, rv)
        if rv < self.server.store.horizon:
            raise Expired(EXPIRED_LIST)
        return await self.page(rv, None)


def _position(record: Record) -> tuple[str, str]:
    return record.key.namespace, record.key.name


def _wants_exact(options: ListOptions, rv: int) -> bool:
    """A limit with a resourceVersion and no match is the old way of asking for exactly that revision."""
    return options.match == "Exact" or (options.match == "" and options.limit > 0 and rv > 0)


async def handle(server: Server, call: Call) -> Result:
    kind, info = call.kind, call.info
    assert kind is not None
    options = list_options(call, watch=False)
    selection = select(kind, options.label_selector, options.field_selector, info.name)
    namespace = (info.namespace or None) if kind.namespaced else None
    reading = _Reading(server, kind, namespace, options, selection)
    if options.continue_token:
        return await reading.continued()
    rv = revision(options.resource_version)
    if _wants_exact(options, rv):
        return await reading.exact(rv)
    if rv:
        await wait_until_fresh(server, rv)
    elif not options.resource_version:
        await server.store.catch_up()
    return await reading.page(server.store.rv, None)
