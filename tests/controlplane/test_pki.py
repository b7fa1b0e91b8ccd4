"""First start makes keys; later starts keep them while they are good."""

from __future__ import annotations

import base64
import stat
from datetime import timedelta
from pathlib import Path

import yaml
from cryptography import x509

from kcp.base.certs import load_certificate
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
