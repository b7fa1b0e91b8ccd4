"""First start makes keys; later starts keep them while they are good."""

from __future__ import annotations

import base64
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509

from kcp.base.certs import Authority, CertificateError, load_certificate, load_private_key
from kcp.base.clock import VirtualClock
from kcp.base.entropy import SeededEntropy
from kcp.controlplane import pki


def make(directory: Path, clock: VirtualClock, host: str = "127.0.0.1") -> pki.Pki:
    return pki.ensure(directory, hosts=(host,), service_ip="10.96.0.1", clock=clock, entropy=SeededEntropy(1))


def names(keys: pki.Pki) -> set[str]:
    certificate = load_certificate(keys.serving_paths[0].read_bytes())
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    ips = {str(ip) for ip in found.get_values_for_type(x509.IPAddress)}
    return ips | set(found.get_values_for_type(x509.DNSName))


def test_the_serving_certificate_names_every_way_to_reach_it(tmp_path: Path) -> None:
    keys = make(tmp_path, VirtualClock(), "192.0.2.7")
    assert {"192.0.2.7", "10.96.0.1", "127.0.0.1", "localhost", "kubernetes.default.svc"} <= names(keys)


def test_a_second_start_changes_nothing(tmp_path: Path) -> None:
    clock = VirtualClock()
    before = {p.name: p.read_bytes() for p in make(tmp_path, clock).directory.iterdir()}
    after = {p.name: p.read_bytes() for p in make(tmp_path, clock).directory.iterdir()}
    assert before == after


def test_a_new_address_renews_only_the_serving_certificate(tmp_path: Path) -> None:
    clock = VirtualClock()
    first = make(tmp_path, clock)
    ca, serving = first.ca_path.read_bytes(), first.serving_paths[0].read_bytes()
    second = make(tmp_path, clock, "192.0.2.9")
    assert second.ca_path.read_bytes() == ca
    assert second.serving_paths[0].read_bytes() != serving
    assert "192.0.2.9" in names(second)


def test_a_certificate_near_its_end_is_renewed(tmp_path: Path) -> None:
    clock = VirtualClock()
    serving = make(tmp_path, clock).serving_paths[0]
    old = load_certificate(serving.read_bytes())
    clock.advance((old.not_valid_after_utc - clock.now() - timedelta(days=1)).total_seconds())
    make(tmp_path, clock)
    assert load_certificate(serving.read_bytes()).not_valid_after_utc > old.not_valid_after_utc


def test_keys_are_for_their_owner_alone(tmp_path: Path) -> None:
    keys = make(tmp_path, VirtualClock())
    pki.write_admin_kubeconfig(tmp_path / "kubeconfig", keys, "https://127.0.0.1:6443", VirtualClock())
    for path in [*keys.directory.glob("*.key"), tmp_path / "kubeconfig"]:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_the_admin_is_a_revocable_group_not_system_masters(tmp_path: Path) -> None:
    keys = make(tmp_path, VirtualClock())
    path = tmp_path / "kubeconfig"
    pki.write_admin_kubeconfig(path, keys, "https://127.0.0.1:6443", VirtualClock())
    config = yaml.safe_load(path.read_text())
    assert config["clusters"][0]["cluster"]["server"] == "https://127.0.0.1:6443"
    pem = base64.b64decode(config["users"][0]["user"]["client-certificate-data"])
    subject = load_certificate(pem).subject.rfc4514_string()
    assert "O=kubeadm:cluster-admins" in subject and "system:masters" not in subject


def test_adopted_roots_replace_what_they_signed_and_keep_the_old_ones_beside_them(tmp_path: Path) -> None:
    clock = VirtualClock()
    shared = pki.ensure_roots(tmp_path / "shared", clock, SeededEntropy(2))
    first = make(tmp_path / "own", clock)
    pki.write_admin_kubeconfig(tmp_path / "own" / "kubeconfig", first, "https://127.0.0.1:1", clock)
    old, authority = first.ca_path.read_bytes(), shared.authority
    adopted = pki.adopt(first, authority.certificate_pem, authority.key_pem, shared.service_account_key)
    pki.ensure_serving(adopted, hosts=("127.0.0.1",), service_ip="10.96.0.1", clock=clock)
    pki.write_admin_kubeconfig(tmp_path / "own" / "kubeconfig", adopted, "https://127.0.0.1:1", clock)
    for name in ("apiserver.crt", "admin.crt"):
        certificate = load_certificate((adopted.directory / name).read_bytes())
        certificate.verify_directly_issued_by(authority.certificate)
    assert (adopted.directory / "ca.crt.old").read_bytes() == old
    assert (adopted.directory / "sa.key").read_bytes() == shared.service_account_key
    again = pki.adopt(adopted, authority.certificate_pem, authority.key_pem, shared.service_account_key)
    assert (again.directory / "ca.crt.old").read_bytes() == old


class Crash(Exception):
    """The process ended here."""


CHANGES = ("touch", "replace", "rename", "mkdir", "rmdir", "unlink")


@contextmanager
def crash_at(number: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Let the number-th change of the file system, and none after it, not happen. Gives the changes that did."""
    done: list[str] = []

    def crashing(name: str) -> Callable[..., Any]:
        real = getattr(Path, name)

        def change(self: Path, *args: Any, **options: Any) -> Any:
            if len(done) >= number:
                raise Crash(f"{name} {self}")
            done.append(f"{name} {self.name}")
            return real(self, *args, **options)

        return change

    with monkeypatch.context() as patch:
        for name in CHANGES:
            patch.setattr(Path, name, crashing(name))
        try:
            yield done
        except Crash:
            done.append("crash")


def start(directory: Path, clock: VirtualClock, shared: pki.Pki | None) -> pki.Pki:
    """What a daemon does with its keys, from the beginning to the kubeconfig."""
    keys = pki.ensure_roots(directory, clock, SeededEntropy(5))
    if shared is not None:
        authority = shared.authority
        keys = pki.adopt(keys, authority.certificate_pem, authority.key_pem, shared.service_account_key)
    pki.ensure_serving(keys, hosts=("127.0.0.1",), service_ip="10.96.0.1", clock=clock)
    pki.write_admin_kubeconfig(directory / "kubeconfig", keys, "https://127.0.0.1:1", clock)
    return keys


def check_whole(directory: Path, authority: Authority) -> None:
    """Every pair belongs together and is the authority's; nothing half done lies about."""
    assert (directory / "ca.crt").read_bytes() == authority.certificate_pem
    assert (directory / "ca.key").read_bytes() == authority.key_pem
    for name in ("apiserver", "admin"):
        certificate = load_certificate((directory / f"{name}.crt").read_bytes())
        certificate.verify_directly_issued_by(authority.certificate)
        assert (
            certificate.public_key()
            == load_private_key((directory / f"{name}.key").read_bytes()).public_key()
        )
    assert not [path.name for path in directory.iterdir() if path.is_dir() or path.name.endswith(".new")]


@pytest.mark.parametrize("adopting", [False, True], ids=["first start", "adopting shared keys"])
def test_a_crash_at_any_change_is_made_good_by_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, adopting: bool
) -> None:
    clock = VirtualClock()
    shared = pki.ensure_roots(tmp_path / "shared", clock, SeededEntropy(2)) if adopting else None
    for number in range(100):
        directory = tmp_path / str(number)
        if adopting:
            start(directory, clock, None)
        own = (directory / "pki" / "ca.crt").read_bytes() if adopting else b""
        with crash_at(number, monkeypatch) as done:
            start(directory, clock, shared)
        keys = start(directory, clock, shared)
        check_whole(keys.directory, keys.authority)
        if shared is not None:
            assert keys.authority.certificate_pem == shared.authority.certificate_pem
            assert (keys.directory / "sa.key").read_bytes() == shared.service_account_key
            assert (keys.directory / "ca.crt.old").read_bytes() == own
        if "crash" not in done:
            break
    assert "crash" not in done and number > 15


def test_an_authority_of_two_halves_is_named_or_where_another_follows_set_aside(tmp_path: Path) -> None:
    clock = VirtualClock()
    keys = make(tmp_path, clock)
    other = pki.ensure_roots(tmp_path / "other", clock, SeededEntropy(2))
    (keys.directory / "ca.crt").write_bytes(other.authority.certificate_pem)
    with pytest.raises(CertificateError, match=r"pki: certificate and private key do not belong together"):
        pki.ensure_roots(tmp_path, clock, SeededEntropy(3))
    again = pki.ensure_roots(tmp_path, clock, SeededEntropy(3), replace_damaged=True)
    assert (again.directory / "ca.crt.old").read_bytes() == other.authority.certificate_pem
    assert pki.ensure_roots(tmp_path, clock, SeededEntropy(4)).authority.key_pem == again.authority.key_pem


def test_a_component_has_a_kubeconfig_under_its_own_name(tmp_path: Path) -> None:
    keys, path = make(tmp_path, VirtualClock()), tmp_path / "scheduler.kubeconfig"

    def write() -> x509.Certificate:
        clock, user = VirtualClock(), "system:kube-scheduler"
        pki.write_kubeconfig(path, keys, "https://127.0.0.1:6443", clock, "scheduler", user)
        data = yaml.safe_load(path.read_text())["users"][0]["user"]["client-certificate-data"]
        return load_certificate(base64.b64decode(data))

    certificate = write()
    assert certificate.subject.rfc4514_string() == "CN=system:kube-scheduler"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert write() == certificate
