"""The laws of DeltaFIFO, and of the store it feeds: whatever happened, in order, to the end state."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kcp.client.cache.delta_fifo import DeletedFinalStateUnknown, Delta, DeltaFIFO, FifoFull
from kcp.client.cache.indexer import Indexer
from kcp.machinery.meta import key_of

Json = dict[str, Any]
NAMES = st.sampled_from(["a", "b", "c", "d", "e"])
LABELS = st.sampled_from(["x", "y", "z"])


def pod(name: str, label: str, rv: int = 0) -> Json:
    return {"metadata": {"name": name, "namespace": "ns", "labels": {"l": label}, "resourceVersion": str(rv)}}


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), NAMES, LABELS),
        st.tuples(st.just("delete"), NAMES, LABELS),
        st.tuples(st.just("replace"), st.lists(NAMES, unique=True, max_size=5), LABELS),
        st.tuples(st.just("bookmark"), NAMES, LABELS),
        st.tuples(st.just("resync"), NAMES, LABELS),
    ),
    max_size=30,
)


def push(fifo: DeltaFIFO, model: dict[str, Json], step: tuple[str, Any, str], rv: int) -> None:
    kind, what, label = step
    if kind == "put":
        obj = pod(what, label, rv)
        (fifo.update if what in model else fifo.add)(obj, rv)
        model[what] = obj
    elif kind == "delete":
        fifo.delete(model.pop(what, pod(what, label, rv)), rv)
    elif kind == "replace":
        objects = [pod(name, label, rv) for name in what]
        fifo.replace(objects, rv)
        model.clear()
        model.update({obj["metadata"]["name"]: obj for obj in objects})
    elif kind == "bookmark":
        fifo.bookmark(rv)
    else:
        fifo.resync()


def applied(indexer: Indexer, delta: Delta) -> None:
    if delta.type in ("Added", "Updated"):
        indexer.put(delta.object)
    elif delta.type == "Deleted":
        indexer.remove(key_of(delta.object))
    elif delta.type == "ReplacedAll":
        indexer.replace(delta.objects, delta.rv)
    indexer.rv = max(indexer.rv, delta.rv)


@given(steps=STEPS, batch=st.integers(1, 7))
@settings(deadline=None)
def test_deltas_come_out_in_order_and_their_fold_is_the_present(steps: list[Any], batch: int) -> None:
    model: dict[str, Json] = {}
    fifo, indexer = DeltaFIFO(), Indexer({"label": lambda o: [o["metadata"]["labels"]["l"]]})
    for rv, step in enumerate(steps, 1):
        push(fifo, model, step, rv)
    seen: list[Delta] = []

    def process(delta: Delta) -> None:
        seen.append(delta)
        applied(indexer, delta)

    while len(fifo):
        assert 1 <= fifo.pop_batch(process, batch) <= batch
    assert len(seen) == len(steps)
    revisions = [delta.rv for delta in seen if delta.rv]
    assert revisions == sorted(revisions)
    assert {obj["metadata"]["name"]: obj for obj in indexer} == model
    assert indexer.keys() == sorted(indexer.keys())
    for label in ("x", "y", "z"):
        expected = [o for o in indexer if o["metadata"]["labels"]["l"] == label]
        assert indexer.index("label", label) == expected


@given(steps=STEPS)
@settings(deadline=None)
def test_an_index_equals_one_built_from_scratch(steps: list[Any]) -> None:
    def by_label(obj: Json) -> list[str]:
        return [obj["metadata"]["labels"]["l"], "all"]

    model: dict[str, Json] = {}
    fifo, indexer = DeltaFIFO(), Indexer({"label": by_label})
    for rv, step in enumerate(steps, 1):
        push(fifo, model, step, rv)
        fifo.pop_batch(lambda delta: applied(indexer, delta))
        fresh = Indexer({"label": by_label})
        fresh.replace(list(indexer), 0)
        assert indexer.index_values("label") == fresh.index_values("label")
        for value in fresh.index_values("label"):
            assert indexer.index_keys("label", value) == fresh.index_keys("label", value)
        assert indexer._by_namespace == fresh._by_namespace
        assert indexer.index("label", "all") == list(indexer)


def test_synced_once_the_first_replace_was_processed() -> None:
    fifo = DeltaFIFO()
    assert not fifo.has_synced
    fifo.replace([pod("a", "x", 1)], 1)
    assert not fifo.has_synced
    synced_during: list[bool] = []
    fifo.pop_batch(lambda _: synced_during.append(fifo.has_synced))
    assert (synced_during, fifo.has_synced) == ([False], True)
    fifo.replace([], 2)
    assert fifo.has_synced, "a later replace does not take it back"


def test_an_empty_replace_syncs_too() -> None:
    fifo = DeltaFIFO()
    fifo.replace([], 1)
    fifo.pop_batch(lambda _: None)
    assert fifo.has_synced


def test_a_failed_delta_counts_as_popped_and_the_next_one_follows() -> None:
    fifo = DeltaFIFO()
    fifo.add(pod("a", "x", 1), 1)
    fifo.add(pod("b", "x", 2), 2)

    def fail(delta: Delta) -> None:
        raise RuntimeError(delta.rv)

    with pytest.raises(RuntimeError):
        fifo.pop_batch(fail)
    seen: list[int] = []
    fifo.pop_batch(lambda delta: seen.append(delta.rv))
    assert seen == [2]


def test_the_queue_is_bounded() -> None:
    fifo = DeltaFIFO(capacity=2)
    fifo.bookmark(1)
    fifo.bookmark(2)
    with pytest.raises(FifoFull):
        fifo.bookmark(3)


def test_a_tombstone_carries_the_last_known_state() -> None:
    fifo = DeltaFIFO()
    fifo.delete(DeletedFinalStateUnknown("ns/a", pod("a", "x", 1)), 5)
    seen: list[Delta] = []
    fifo.pop_batch(seen.append)
    assert seen[0].object.key == "ns/a"
