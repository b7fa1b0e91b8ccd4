"""What the suites of the store share: readable names, and the worked example of the protocol."""

from __future__ import annotations

from collections.abc import Sequence

from kcp.store.log import EventLog
from kcp.store.protocol import (
    Key,
    Record,
)
from tests.store.changes import (
    create,
    delete,
    key,
    update,
)


def names(records: Sequence[Record]) -> list[str]:
    return [f"{r.key.namespace}/{r.key.name}" if r.key.namespace else r.key.name for r in records]


async def story(store: EventLog) -> Key:
    """The worked example of the protocol: revisions 7, 9, 12, 15 of one object among others."""
    a = key("a")
    for i in range(6):
        await store.append(create(key(f"other-{i}")))
    assert (await store.append(create(a, data={"v": "A"}))).rv == 7
    await store.append(update(key("other-0"), data={"x": "1"}))
    assert (await store.append(update(a, data={"v": "B"}))).rv == 9
    await store.append(update(key("other-1"), data={"x": "1"}))
    await store.append(update(key("other-2"), data={"x": "1"}))
    assert (await store.append(delete(a))).rv == 12
    await store.append(update(key("other-3"), data={"x": "1"}))
    await store.append(update(key("other-4"), data={"x": "1"}))
    assert (await store.append(create(a, data={"v": "C"}))).rv == 15
    return a
