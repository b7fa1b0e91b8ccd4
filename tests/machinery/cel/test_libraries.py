"""The libraries beyond CEL's own functions, after the examples of their documentation and cel-spec's tests."""

from __future__ import annotations

import pytest

from kcp.machinery.cel.environment import compile, environment
from kcp.machinery.cel.libraries import authorizer, mutations
from kcp.machinery.cel.source import CompileError
from kcp.machinery.cel.types import BOOL
from kcp.machinery.cel.values import CelError, Struct, plain
from tests.machinery.cel.support import ALL, cost, value

DIGEST = "sha256:" + "6a" * 32
TRUE = f"""
'tacocat'.charAt(3) == 'o' && 'tacocat'.charAt(7) == '' && '©αT'.charAt(1) == 'α'
'tacocat'.indexOf('ac') == 1 && 'tacocat'.indexOf('none') == -1 && 'tacocat'.indexOf('', 3) == 3 && 'ta©o©αT'.indexOf('©', 3) == 4
'tacocat'.lastIndexOf('at') == 5 && 'tacocat'.lastIndexOf('a', 3) == 1 && 'bananananana'.lastIndexOf('nana', 7) == 6 && ''.lastIndexOf('@@') == -1
'hello wello'.lastIndexOf('ello', 6) == 1 && 'tacocat'.lastIndexOf('') == 7 && 'tacocat'.lastIndexOf('', 3) == 3
'TacoCÆt'.lowerAscii() == 'tacocÆt' && 'tacoCαt'.upperAscii() == 'TACOCαT'
'{{0}} days {{0}} hours'.replace('{{0}}', '2', 1).replace('{{0}}', '23') == '2 days 23 hours' && 'abc'.replace('', '_') == '_a_b_c_'
'hello world events!'.split(' ', 0) == [] && 'hello world events!'.split(' ', 2) == ['hello', 'world events!'] && 'abc'.split('') == ['a', 'b', 'c']
'tacocat'.substring(4) == 'cat' && 'ta©o©αT'.substring(2, 6) == '©o©α' && 'tacocat'.substring(7) == ''
' \\f\\n\\r\\t\\vtext  '.trim() == 'text' && '\\u0085\\u00a0\\u1680text'.trim() == 'text' && '\\u180etext\\u200b'.trim() == '\\u180etext\\u200b'
['x', 'y'].join('-') == 'x-y' && ['x', 'y'].join() == 'xy' && [].join('-') == ''
strings.quote('first\\nsecond \\"q\\"') == '\\"first\\\\nsecond \\\\\\"q\\\\\\"\\"' && 'abc'.reverse() == 'cba'
'%% and %s'.format(['x']) == '% and x' && '%.3f'.format([1.2345]) == '1.234' && '%b %o %x %X'.format([5, 11, 30, 30]) == '101 13 1e 1E'
'%x'.format(['Hello']) == '48656c6c6f' && '%.6e'.format([1052.032911275]) == '1.052033\\u202f×\\u202f10⁰³' && '%e'.format([double('NaN')]) == 'NaN' && '%.1f'.format([12345.678]) == '12,345.7' && '%.0e'.format([0.001]) == '1\\u202f×\\u202f10⁻⁰³'
'%s %s'.format([dyn([1, 2]), dyn({{'b': 1, 'a': 2}})]) == '[1, 2] {{\"a\":2, \"b\":1}}'
'%s'.format([[dyn('abc'), 3.14, null, timestamp('2023-02-03T23:31:20Z'), duration('1h45m47s')]]) == '[\"abc\", 3.140000, null, timestamp(\"2023-02-03T23:31:20Z\"), duration(\"6347s\")]'
'%d'.format([dyn(64u)]) == '64' && '%s'.format([type('x')]) == 'string' && '%f'.format([2.0]) == '2.000000' && '%f'.format(['-Infinity']) == '-∞' && '%b'.format([true]) == '1'
[1, 2, 2].isSorted() && !['b', 'a'].isSorted() && [1, 3].sum() == 4 && [1.5, 2.0].sum() == 3.5 && [1u].sum() == 1u && [duration('1s')].sum() == duration('1s')
[].sum() == 0 && [3, 1, 2].min() == 1 && ['a', 'b'].max() == 'b' && [1, 2, 1].indexOf(1) == 0 && [1, 2, 1].lastIndexOf(1) == 2 && [1].indexOf(9) == -1
sets.contains([1, 2], [2, 1, 1]) && sets.equivalent([1, 1], [1]) && sets.intersects([1, 2], [2, 3]) && !sets.intersects([1], []) && sets.contains([], [])
'abc 123'.find('[0-9]+') == '123' && 'abc'.find('[0-9]+') == '' && '123 abc 456'.findAll('[0-9]+') == ['123', '456'] && '1 2 3'.findAll('[0-9]', 2) == ['1', '2']
url('https://user:pw@example.com:80/a?k=v').getScheme() == 'https' && url('https://example.com:80/').getHost() == 'example.com:80'
url('https://example.com:80/').getPort() == '80' && url('https://[::1]:80/').getHostname() == '::1' && url('/path').getHost() == ''
url('https://example.com/path with spaces/').getEscapedPath() == '/path%20with%20spaces/' && url('https://example.com').getEscapedPath() == ''
url('https://e.com/p?k1=a&k2=b&k2=c&k4=a%20b+c').getQuery() == {{'k1': ['a'], 'k2': ['b', 'c'], 'k4': ['a b c']}}
isURL('https://user:pass@example.com:80/path?query=val#fragment') && isURL('/absolute-path') && !isURL('https://a:b:c/') && !isURL('../relative-path') && !isURL('')
isIP('127.0.0.1') && isIP('::1') && !isIP('127.0.0.256') && !isIP('::ffff:1.2.3.4') && !isIP('fe80::1%eth0') && !isIP('01.2.3.4')
ip('127.0.0.1').family() == 4 && ip('::1').family() == 6 && ip('::1').isLoopback() && ip('0.0.0.0').isUnspecified() && ip('224.0.0.1').isLinkLocalMulticast()
ip('169.254.1.1').isLinkLocalUnicast() && ip('192.168.0.1').isGlobalUnicast() && !ip('255.255.255.255').isGlobalUnicast() && ip('fd00::1').isGlobalUnicast()
ip.isCanonical('2001:db8::abcd') && !ip.isCanonical('2001:DB8::ABCD') && ip('2001:db8::abcd') == ip('2001:DB8::ABCD') && string(ip('2001:DB8::1')) == '2001:db8::1'
isCIDR('192.168.0.0/16') && !isCIDR('192.168.0.0/33') && !isCIDR('10.0.0.0') && cidr('192.168.0.0/24').containsIP('192.168.0.1') && !cidr('10.0.0.0/8').containsIP('::1')
cidr('192.168.0.0/24').containsIP(ip('192.168.0.9')) && cidr('192.168.0.0/16').containsCIDR('192.168.10.0/24') && !cidr('192.168.0.0/24').containsCIDR(cidr('192.168.0.0/23'))
cidr('192.168.0.1/24').masked() == cidr('192.168.0.0/24') && cidr('::1/128').prefixLength() == 128 && cidr('192.168.0.1/24').ip() == ip('192.168.0.1')
quantity('1Gi') == quantity('1024Mi') && quantity('200M').isGreaterThan(quantity('100M')) && quantity('50k') == quantity('50000') && isQuantity('1.3Gi') && !isQuantity('20 Mi')
quantity('50k').asInteger() == 50000 && quantity('50703k').isInteger() && !quantity('1.5').isInteger() && quantity('50.703').asApproximateFloat() > 50.7
quantity('50k').add(20).sub(quantity('20')) == quantity('50k') && quantity('-5').sign() == -1 && quantity('1').compareTo(quantity('2')) == -1
isSemver('1.0.0') && !isSemver('v1.0') && isSemver('v1.0', true) && semver('1.2.3').isLessThan(semver('1.10.0')) && semver('v01.2', true) == semver('1.2.0')
semver('1.2.3-rc.1').isLessThan(semver('1.2.3')) && semver('1.0.0-rc.2').isLessThan(semver('1.0.0-rc.10')) && semver('1.0.0+a') == semver('1.0.0+b')
semver('1.2.3').major() == 1 && semver('1.2.3').minor() == 2 && semver('1.2.3').patch() == 3 && semver('1.0.0').compareTo(semver('2.0.0')) == -1
!format.dns1123Label().validate('my-label').hasValue() && format.dns1123Label().validate('My').value()[0].startsWith('a lowercase RFC 1123 label')
format.named('uuid').value().validate('x').value() == ['does not match the UUID format'] && !format.named('nope').hasValue() && !format.uuid().validate('123e4567-e89b-12d3-a456-426614174000').hasValue()
!format.byte().validate('aGVsbG8=').hasValue() && format.date().validate('2021-13-01').value() == ['invalid date'] && !format.datetime().validate('2021-01-01T00:00:00Z').hasValue()
!format.dns1123LabelPrefix().validate('prefix-').hasValue() && !format.labelValue().validate('a_b').hasValue() && format.uri().validate('x').value() == ['parse \\"x\\": invalid URI for request']
image('nginx').registry() == 'index.docker.io' && image('nginx').tag() == 'latest' && image('registry.k8s.io/pause:3.10').tag() == '3.10' && image('r.io/a/b').repository() == 'a/b'
image('r.io/ab:t@{DIGEST}').containsDigest() && image('r.io/ab@{DIGEST}').identifier() == '{DIGEST}' && !isImage('r.io//a') && isImage('localhost:5000/ab') && !isImage('r.io/a')
base64.encode(b'hello') == 'aGVsbG8=' && base64.decode('aGVsbG8') == b'hello'
"""


@pytest.mark.parametrize("source", TRUE.strip().splitlines())
def test_what_is_true(source: str) -> None:
    assert value(source) is True


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("'abc'.charAt(4)", "index out of range: 4"), ("'abc'.substring(2, 1)", "invalid substring range. start: 2, end: 1"),
        ("'abc'.substring(-1)", "index out of range: -1"), ("[1].filter(e, e > 1).min()", "min called on empty list"),
        ("names.filter(n, false).max()", "max called on empty list"), ("'%d'.format([])", "index 0 out of range"),
        ("'%d'.format(['x'])", "error during formatting: decimal clause can only be used on integers, was given string"),
        ("'%q'.format(['x'])", 'could not parse formatting clause: unrecognized formatting clause "q"'),
        ("'%f'.format([1])", "error during formatting: fixed-point clause can only be used on doubles, was given int"),
        ("'%x'.format([0.5])", "error during formatting: only integers, byte buffers, and strings can be formatted as hex, was given double"),
        ("'%b'.format(['a'])", "error during formatting: only integers and bools can be formatted as binary, was given string"),
        ("'tacocat'.indexOf('a', 30)", "index out of range: 30"), ("'tacocat'.lastIndexOf('a', -1)", "index out of range: -1"),
        ("ip('x')", 'IP Address "x" parse error during conversion from string: ParseAddr("x"): unable to parse IP'),
        ("url('x')", 'URL parse error during conversion from string: parse "x": invalid URI for request'),
        ("quantity('1 Gi')", "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"),
        ("quantity('1.5').asInteger()", "cannot convert value to integer"), ("semver('1.0')", "No Major.Minor.Patch elements found"),
        ("semver('01.0.0')", 'Major number must not contain leading zeroes "01"'), ("image('A B')", "could not parse reference: A B"),
        ("'x'.find('(')", "error parsing regexp: missing closing ): `(`"), ("base64.decode('*')", "illegal base64 data"),
    ],
)  # fmt: skip
def test_errors(source: str, message: str) -> None:
    with pytest.raises(CelError) as caught:
        value(source)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("ip('192.168.0.1').family()", 3), ("ip('2001:db8:3333:4444:5555:6666:7777:8888')", 4), ("ip.isCanonical('192.168.0.1')", 3),
        ("cidr('192.168.0.0/16').containsCIDR('192.0.0.0/30')", 7), ("cidr('192.168.0.0/16').containsIP(ip('192.0.0.1'))", 4),
        ("url('https:://kubernetes.io/').getHost()", 4), ("quantity('1Gi').isGreaterThan(quantity('1Mi'))", 3),
        ("sets.contains([1, 2], [1])", 3), ("sets.equivalent([1, 2], [1])", 5),
    ],
)  # fmt: skip
def test_what_the_libraries_cost(source: str, expected: int) -> None:
    try:
        assert cost(source) == expected
    except CelError as error:
        assert error.cost == expected


class _Answers:
    """Allows get and /healthz; reports what it was asked."""

    def resource(
        self, attributes: authorizer.ResourceAttributes, service_account: tuple[str, str] | None
    ) -> authorizer.Decision:
        asked = f"{attributes.verb} {attributes.group}/{attributes.resource}/{attributes.subresource} {attributes.namespace}/{attributes.name}"
        selectors = f" {attributes.field_selector}{attributes.label_selector} {service_account}"
        return authorizer.Decision(
            attributes.verb == "get", asked + selectors, "" if attributes.verb != "fail" else "no answer"
        )

    def path(self, verb: str, path: str, service_account: tuple[str, str] | None) -> authorizer.Decision:
        return authorizer.Decision(path == "/healthz", verb)


USER = authorizer.Authorizer(_Answers())
AUTHORIZED = environment(
    {"authorizer": authorizer.AUTHORIZER, "authorizer.requestResource": authorizer.RESOURCE_CHECK}
)
BOUND = {
    "authorizer": USER,
    "authorizer.requestResource": authorizer.ResourceCheck(
        USER, authorizer.ResourceAttributes("", "apps", "deployments", name="web")
    ),
}


@pytest.mark.parametrize(
    "source",
    [
        "authorizer.path('/healthz').check('get').allowed() && !authorizer.path('/x').check('get').allowed()",
        "authorizer.group('').resource('pods').subresource('log').namespace('a').name('b').check('get').reason() == 'get /pods/log a/b  None'",
        "authorizer.serviceAccount('a', 'b').group('').resource('pods').fieldSelector('x=y').check('list').reason() == \"list /pods/ / x=y ('a', 'b')\"",
        "authorizer.requestResource.check('get').allowed() && authorizer.requestResource.check('get').reason().startsWith('get apps/deployments/ /web')",
        "!authorizer.group('').resource('pods').check('fail').allowed() && authorizer.group('').resource('pods').check('fail').errored()",
    ],
)
def test_authorizer_asks_the_caller(source: str) -> None:
    assert compile(AUTHORIZED, source, BOOL)(BOUND) is True


def test_an_expression_has_room_for_two_checks() -> None:
    check = "authorizer.path('/healthz').check('get').allowed()"
    assert compile(AUTHORIZED, f"{check} && {check}")(BOUND) is True
    with pytest.raises(CelError, match="cost limit exceeded"):
        compile(AUTHORIZED, f"{check} && {check} && {check}")(BOUND)
    with pytest.raises(CelError, match="path must not be empty"):
        compile(AUTHORIZED, "authorizer.path('').check('get').allowed()")(BOUND)


def test_mutations_make_objects_and_patches() -> None:
    made = value(
        "Object{spec: Object.spec{replicas: i, ?paused: optional.none(), containers: [Object.spec.containers{name: 'a'}]}}"
    )
    assert isinstance(made, Struct) and plain(made) == {
        "spec": {"replicas": 3, "containers": [{"name": "a"}]}
    }
    patches = value(
        "[JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey('a/b~c'), value: {'x': [1u]}}]"
    )
    assert [mutations.patch(each) for each in patches] == [
        {"op": "add", "path": "/metadata/labels/a~1b~0c", "value": {"x": [1]}}
    ]
    with pytest.raises(
        CelError,
        match=r'unexpected type name "Object.foo", expected "Object.spec", which matches field name path',
    ):
        value("Object{spec: Object.foo{a: 1}}")


def test_what_kubernetes_does_not_have_is_not_in_its_environment() -> None:
    for source in (
        "'a'.reverse()",
        "base64.encode(b'')",
        "cel.bind(v, 1, v)",
        "Object{}",
        "math.greatest(1, 2)",
    ):
        with pytest.raises(CompileError):
            compile(environment({}), source)
    assert compile(ALL, "'a'.reverse()")
