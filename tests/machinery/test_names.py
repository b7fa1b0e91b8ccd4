"""Names, keys and values: what is valid, and the exact texts about what is not."""

from __future__ import annotations

import pytest

from kcp.base.entropy import SUFFIX_ALPHABET, SeededEntropy
from kcp.machinery import names

LABEL_TEXT = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end "
    "with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)
SUBDOMAIN_TEXT = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start "
    "and end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    r"'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
KEY_TEXT = (
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character "
    "(e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
    "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)


@pytest.mark.parametrize("name", ["a", "0", "a-b", "a" * 63])
def test_a_dns_label(name: str) -> None:
    assert names.is_dns1123_label(name) == []


@pytest.mark.parametrize(
    ("name", "faults"),
    [
        ("", [LABEL_TEXT]),
        ("A", [LABEL_TEXT]),
        ("a-", [LABEL_TEXT]),
        ("a\n", [LABEL_TEXT]),
        ("é", [LABEL_TEXT]),
        ("a.b", ["must not contain dots"]),
        ("a" * 64, ["must be no more than 63 characters"]),
        ("A" * 64, ["must be no more than 63 characters", LABEL_TEXT]),
    ],
)
def test_no_dns_label(name: str, faults: list[str]) -> None:
    assert names.is_dns1123_label(name) == faults


def test_a_subdomain_may_have_dots_and_253_characters() -> None:
    assert names.is_dns1123_subdomain("a.b-c.0") == []
    assert names.is_dns1123_subdomain("a" * 253) == []
    assert names.is_dns1123_subdomain("a" * 254) == ["must be no more than 253 characters"]
    assert names.is_dns1123_subdomain("a..b") == [SUBDOMAIN_TEXT]


def test_a_1035_label_starts_with_a_letter() -> None:
    assert names.is_dns1035_label("a1") == []
    assert names.is_dns1035_label("1a") == [
        "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic "
        "character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for "
        "validation is '[a-z]([-a-z0-9]*[a-z0-9])?')"
    ]


@pytest.mark.parametrize("host", ["*.bar.com", "*.a"])
def test_a_wildcard(host: str) -> None:
    assert names.is_wildcard_dns1123_subdomain(host) == []


@pytest.mark.parametrize("host", ["*.*.bar.com", "*.foo.*.com", "*bar.com", "f*.bar.com", "*"])
def test_no_wildcard(host: str) -> None:
    assert names.is_wildcard_dns1123_subdomain(host)


@pytest.mark.parametrize(
    "key", ["simple", "now-with-dashes", "1-starts", "1.2.3.4/A_b.c", "a" * 63, "a.b/" + "c" * 63]
)
def test_a_qualified_name(key: str) -> None:
    assert names.is_qualified_name(key) == []


@pytest.mark.parametrize(
    ("key", "faults"),
    [
        ("", ["name part must be non-empty", f"name part {KEY_TEXT}"]),
        ("/a", ["prefix part must be non-empty"]),
        ("a/", ["name part must be non-empty", f"name part {KEY_TEXT}"]),
        ("A.b/c", [f"prefix part {SUBDOMAIN_TEXT}"]),
        ("-a", [f"name part {KEY_TEXT}"]),
        ("a" * 64, ["name part must be no more than 63 bytes"]),
        (
            "a/b/c",
            [
                f"a valid label key {KEY_TEXT} with an optional DNS subdomain prefix and '/' "
                "(e.g. 'example.com/MyName')"
            ],
        ),
    ],
)
def test_no_qualified_name(key: str, faults: list[str]) -> None:
    assert names.is_qualified_name(key) == faults


def test_label_values_may_be_empty() -> None:
    assert names.is_label_value("") == []
    assert names.is_label_value("A_b.c-1") == []
    assert names.is_label_value("a" * 64) == ["must be no more than 63 bytes"]
    assert names.is_label_value("-")[0].startswith(
        "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must "
        "start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex"
    )


def test_lengths_count_bytes() -> None:
    assert "must be no more than 63 bytes" in names.is_label_value("é" * 32)
    assert "must be no more than 63 bytes" not in names.is_label_value("é" * 31)


@pytest.mark.parametrize("key", ["a", "a.b", ".profile", "_", "-"])
def test_a_config_map_key(key: str) -> None:
    assert names.is_config_map_key(key) == []


@pytest.mark.parametrize(
    ("key", "last"),
    [(".", "must not be '.'"), ("..", "must not be '..'"), ("..a", "must not start with '..'")],
)
def test_a_config_map_key_stays_in_its_directory(key: str, last: str) -> None:
    assert names.is_config_map_key(key) == [last]


def test_no_config_map_key() -> None:
    assert names.is_config_map_key("a b") == [
        "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or "
        "'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"
    ]


def test_environment_variables() -> None:
    assert names.is_env_var_name("my.ENV_1-x") == []
    assert names.is_env_var_name("1a") != []
    assert names.is_relaxed_env_var_name("1 a!") == []
    assert names.is_relaxed_env_var_name("") == ["environment variable name must be non-empty"]
    assert names.is_relaxed_env_var_name("a=b") == [
        "a valid environment variable name must consist only of printable ASCII characters other than '='"
    ]


@pytest.mark.parametrize(
    ("name", "faults"),
    [
        ("http", []),
        ("80", ["must contain at least one letter (a-z)"]),
        ("a--b", ["must not contain consecutive hyphens"]),
        ("-a", ["must not begin or end with a hyphen"]),
        ("a" * 16, ["must be no more than 15 characters"]),
        ("A1", ["must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)", "must contain at least one letter (a-z)"]),
    ],
)  # fmt: skip
def test_port_names(name: str, faults: list[str]) -> None:
    assert names.is_port_name(name) == faults


def test_port_numbers() -> None:
    assert names.is_port_num(1) == names.is_port_num(65535) == []
    assert names.is_port_num(0) == ["must be between 1 and 65535, inclusive"]


@pytest.mark.parametrize("ip", ["1.2.3.4", "::", "2001:db8::ffff", "010.1.2.3", "::ffff:1.1.1.1"])
def test_addresses_that_old_fields_take(ip: str) -> None:
    assert names.is_ip(ip) == []


@pytest.mark.parametrize(
    "ip",
    [
        "",
        "a",
        "1.2.3",
        "1.2.3.400",
        "-1.0.0.0",
        "1.2.3.4:80",
        "[::1]",
        "fe80::1%eth0",
        "1.2.3.0/24",
        "¹.1.1.1",
    ],
)
def test_no_addresses(ip: str) -> None:
    assert names.is_ip(ip) == ["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"]


def test_strict_and_canonical_addresses() -> None:
    assert names.is_ip("010.1.2.3", strict=True) == ["must not have leading 0s"]
    assert names.is_ip("::ffff:1.1.1.1", strict=True) == ["must not be an IPv4-mapped IPv6 address"]
    assert names.is_canonical_ip("1234::ABCD") == ['must be in canonical form ("1234::abcd")']
    assert names.is_canonical_ip("1234::abcd") == []
    assert names.is_ipv4("::1") == ["must be a valid IPv4 address"]
    assert names.is_ipv6("1.2.3.4") == ["must be a valid IPv6 address"]


@pytest.mark.parametrize(
    ("cidr", "loose", "strict"),
    [
        ("10.0.0.0/8", "", ""),
        ("::/0", "", ""),
        ("10.0.0.1/8", "", "must not have bits set beyond the prefix length"),
        ("10.0.0.0/08", "", "must not have leading 0s in IP or prefix length"),
        ("::ffff:10.0.0.0/104", "", "must not have an IPv4-mapped IPv6 address"),
        *(
            (bad, "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)", "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)")
            for bad in ("10.0.0.0", "10.0.0.0/33", "10.0.0.0/+8", "10.0.0.0/0/9", "x/8", "10.0.0.0/²")
        ),
    ],
)  # fmt: skip
def test_cidrs(cidr: str, loose: str, strict: str) -> None:
    assert names.is_cidr(cidr) == ([loose] if loose else [])
    assert names.is_cidr(cidr, strict=True) == ([strict] if strict else [])


def test_domain_prefixed_paths() -> None:
    assert names.is_domain_prefixed_path("acme.io/foo/bar", "p") == []
    assert [str(e) for e in names.is_domain_prefixed_path("foo", "p")] == [
        'p: Invalid value: "foo": must be a domain-prefixed path (such as "acme.io/foo")'
    ]
    assert [str(e) for e in names.is_domain_prefixed_path("", "p")] == ["p: Required value"]
    assert len(names.is_domain_prefixed_path("A/ ", "p")) == 2


def test_fully_qualified_names() -> None:
    assert names.is_fully_qualified_name("a.b.c", "p") == []
    assert names.is_fully_qualified_name("a.b", "p")[0].detail == (
        "should be a domain with at least three segments separated by dots"
    )
    assert names.is_fully_qualified_domain_name("a.b.", "p") == []
    assert names.is_fully_qualified_domain_name("a", "p")[0].detail == (
        "should be a domain with at least two segments separated by dots"
    )
    assert names.is_domain_prefixed_key("a.b/c", "p") == []
    assert names.is_domain_prefixed_key("c", "p")[0].detail == (
        'must be a domain-prefixed key (such as "acme.io/foo")'
    )


def test_path_segments() -> None:
    assert names.validate_name("path_segment", "Any:Thing") == []
    assert names.validate_name("path_segment", "..") == ["may not be '..'"]
    assert names.validate_name("path_segment", "a/b%") == ["may not contain '/'", "may not contain '%'"]
    assert names.validate_name("path_segment", "..", prefix=True) == []


@pytest.mark.parametrize("rule", ["dns_subdomain", "dns_label", "dns_1035_label"])
def test_a_generate_name_may_end_in_a_dash(rule: names.NameRule) -> None:
    assert names.validate_name(rule, "web-", prefix=True) == []
    assert names.validate_name(rule, "web-") != []
    assert names.validate_name(rule, "-", prefix=True) != []


def test_every_name_passes_the_rule_any() -> None:
    assert names.validate_name("any", "/ % ..") == []


def test_generated_names_are_cut_to_a_label() -> None:
    entropy = SeededEntropy(7)
    name = names.generate_name("x" * 80, entropy)
    assert len(name) == 63
    assert name[:58] == "x" * 58
    assert set(name[58:]) <= set(SUFFIX_ALPHABET)
    assert names.generate_name("web-", entropy) != names.generate_name("web-", entropy)


def test_long_hostile_names_are_judged_quickly() -> None:
    assert names.is_dns1123_subdomain("a-" * 100_000) != []
    assert names.is_qualified_name("a" * 100_000 + "!") != []


def test_user_and_group_ids_are_what_linux_takes() -> None:
    for check in (names.is_user_id, names.is_group_id):
        assert check(0) == check(2147483647) == []
        assert check(2147483648) == check(-1) == ["must be between 0 and 2147483647, inclusive"]
