from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kcp.base.entropy import SeededEntropy
from kcp.base.ipam import (
    AddressRange,
    AlreadyAllocated,
    OutOfRange,
    PortRange,
    RangeFull,
    SubnetRange,
    static_band,
)


def test_every_usable_address_is_given_once_and_no_other() -> None:
    addresses = AddressRange("10.0.0.0/28")
    given_out = [addresses.allocate_next() for _ in range(14)]
    assert sorted(given_out, key=ipaddress.ip_address) == [f"10.0.0.{i}" for i in range(1, 15)]
    with pytest.raises(RangeFull, match="range is full"):
        addresses.allocate_next()
    assert addresses.free == 0
    addresses.release("10.0.0.7")
    assert addresses.allocate_next() == "10.0.0.7"


def test_requests_for_one_address() -> None:
    addresses = AddressRange("10.96.0.0/12")
    addresses.allocate("10.96.0.1")
    assert addresses.has("10.96.0.1")
    with pytest.raises(AlreadyAllocated, match="provided IP is already allocated"):
        addresses.allocate("10.96.0.1")
    for outside in ("10.96.0.0", "10.111.255.255", "10.112.0.1", "fd00::1"):
        assert outside not in addresses
    with pytest.raises(OutOfRange, match=r"the provided IP \(10\.112\.0\.1\) is not in the valid range"):
        addresses.allocate("10.112.0.1")
    assert list(addresses) == ["10.96.0.1"]


def test_draws_leave_the_low_band_for_static_requests_until_the_upper_is_full() -> None:
    assert [static_band(size, 16, 256) for size in (8, 254, 4094, 65534)] == [0, 16, 255, 256]
    addresses = AddressRange("10.0.0.0/24")
    drawn = [int(addresses.allocate_next(SeededEntropy(3)).rsplit(".", 1)[1]) for _ in range(238)]
    assert min(drawn) == 17
    assert int(addresses.allocate_next().rsplit(".", 1)[1]) <= 16


def test_the_same_seed_draws_the_same_addresses() -> None:
    one, two = AddressRange("10.96.0.0/16"), AddressRange("10.96.0.0/16")
    entropy, again = SeededEntropy(9), SeededEntropy(9)
    first = [one.allocate_next(entropy) for _ in range(20)]
    assert first == [two.allocate_next(again) for _ in range(20)]
    assert len(set(first)) == 20


def test_ipv6_ranges_use_what_fits() -> None:
    addresses = AddressRange("fd00::/64")
    assert addresses.allocate_next() == "fd00::101"
    addresses.allocate("fd00::a")
    assert addresses.has("fd00::a")
    assert addresses.used == 2


def test_ports() -> None:
    ports = PortRange(30000, 32767)
    ports.allocate(30080)
    assert ports.has(30080)
    with pytest.raises(AlreadyAllocated, match="provided port is already allocated"):
        ports.allocate(30080)
    with pytest.raises(
        OutOfRange, match=r"provided port is not in the valid range\. The range of valid ports is 30000-32767"
    ):
        ports.allocate(80)
    assert ports.allocate_next() == 30086
    ports.release(30080)
    assert not ports.has(30080)
    assert list(ports) == [30086]
    assert ports.free == 2767


def test_node_subnets_go_round_before_one_is_used_again() -> None:
    subnets = SubnetRange("10.244.0.0/22", 24)
    assert [subnets.allocate_next() for _ in range(2)] == ["10.244.0.0/24", "10.244.1.0/24"]
    subnets.release("10.244.0.0/24")
    assert [subnets.allocate_next() for _ in range(3)] == ["10.244.2.0/24", "10.244.3.0/24", "10.244.0.0/24"]
    with pytest.raises(RangeFull):
        subnets.allocate_next()


def test_occupying_marks_every_subnet_that_is_touched() -> None:
    subnets = SubnetRange("10.0.0.0/16", 24)
    subnets.occupy("10.0.2.0/23")
    subnets.occupy("10.0.1.128/25")
    assert [subnets.allocate_next() for _ in range(2)] == ["10.0.0.0/24", "10.0.4.0/24"]
    with pytest.raises(OutOfRange):
        subnets.occupy("192.168.0.0/24")
    with pytest.raises(ValueError, match="node CIDR mask"):
        SubnetRange("10.0.0.0/16", 8)


@given(wanted=st.lists(st.integers(0, 40), max_size=60), seed=st.integers(0, 99))
@settings(deadline=None)
def test_no_address_is_held_twice_whatever_is_asked_for(wanted: list[int], seed: int) -> None:
    addresses, entropy, held = AddressRange("10.0.0.0/27"), SeededEntropy(seed), set[str]()
    for offset in wanted:
        if offset >= 30 and held:
            addresses.release(sorted(held)[0])
            held.discard(sorted(held)[0])
            continue
        try:
            got = addresses.allocate_next(entropy) if offset % 2 else f"10.0.0.{offset + 1}"
            if not offset % 2:
                addresses.allocate(got)
        except (AlreadyAllocated, OutOfRange, RangeFull):
            continue
        assert got not in held
        held.add(got)
    assert sorted(held) == sorted(addresses)
    assert addresses.used == len(held)
