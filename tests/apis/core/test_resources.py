from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kcp.apis.core.resources import is_extended, is_integer, sum_containers
from kcp.machinery.quantity import parse

Json = dict[str, Any]


def _container(milli: int, **fields: Any) -> Json:
    return {"resources": {"requests": {"cpu": f"{milli}m"}}, **fields}


def _cpu(spec: Json) -> int:
    return sum_containers(spec, "requests")["cpu"].milli_value()


@pytest.mark.parametrize(
    ("init", "wanted"),
    [
        ([], 300),
        ([_container(200)], 300),
        ([_container(400), _container(500)], 500),
        ([_container(50, restartPolicy="Always")], 350),
        ([_container(50, restartPolicy="Always"), _container(400)], 450),
        ([_container(400), _container(50, restartPolicy="Always")], 400),
    ],
)
def test_init_containers_run_before_and_sidecars_beside(init: list[Json], wanted: int) -> None:
    assert _cpu({"containers": [_container(100), _container(200)], "initContainers": init}) == wanted


_AMOUNTS = st.lists(st.integers(1, 10_000), min_size=1, max_size=5)


@given(main=_AMOUNTS, init=_AMOUNTS, sidecars=st.lists(st.booleans(), min_size=5, max_size=5))
def test_the_sum_covers_every_moment_of_the_pod(
    main: list[int], init: list[int], sidecars: list[bool]
) -> None:
    steps = list(zip(init, sidecars, strict=False))
    found = [_container(milli, **({"restartPolicy": "Always"} if stays else {})) for milli, stays in steps]
    beside = sum(milli for milli, stays in steps if stays)
    needs = _cpu({"containers": [_container(milli) for milli in main], "initContainers": found})
    assert needs >= sum(main) + beside
    assert needs >= max(init)
    assert needs <= sum(main) + sum(init)


def test_names_of_resources() -> None:
    assert is_extended("example.com/gpu")
    assert not is_extended("kubernetes.io/gpu")
    assert not is_extended("cpu")
    assert not is_extended("requests.example.com/gpu")
    assert is_integer("example.com/gpu")
    assert not is_integer("memory")


def test_quantities_add_exactly() -> None:
    spec = {
        "containers": [
            {"resources": {"limits": {"memory": "1Gi"}}},
            {"resources": {"limits": {"memory": "1M"}}},
        ]
    }
    assert sum_containers(spec, "limits")["memory"] == parse(2**30 + 10**6)
