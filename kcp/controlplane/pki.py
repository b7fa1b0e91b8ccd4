"""First start: the certificate authority, the API server's certificate, the token key, the admin kubeconfig.

    DIR/pki/ca.crt ca.key                  signs everything below
    DIR/pki/apiserver.crt apiserver.key    serving; renewed when it nears its end or its names changed
    DIR/pki/sa.key                         signs service-account tokens
    DIR/kubeconfig                         an admin (group kubeadm:cluster-admins, bound to cluster-admin)

Keys are readable by their owner alone. Nothing that exists and is still good is replaced. Daemons that share a log
share the authority and the token key too (`adopt`); the pairs that these sign stay each daemon's own.
"""

from __future__ import annotations

from base64 import b64encode
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path

import attrs
import yaml
from cryptography import x509
from cryptography.exceptions import InvalidSignature

from kcp.base.certs import Authority, generate_key, load_certificate, private_key_pem
from kcp.base.clock import Clock
from kcp.base.entropy import Entropy

RENEW_BEFORE = timedelta(days=30)
ADMIN_USER = "kubernetes-admin"
ADMIN_GROUP = "kubeadm:cluster-admins"
SERVICE_NAMES = (
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
)


@attrs.frozen
class Pki:
    """Paths of the files, all of which exist, and what was read from them."""

    directory: Path
    authority: Authority
    service_account_key: bytes

    @property
    def ca_path(self) -> Path:
        return self.directory / "ca.crt"

    @property
    def serving_paths(self) -> tuple[Path, Path]:
        return self.directory / "apiserver.crt", self.directory / "apiserver.key"


def ensure(data_dir: Path, *, hosts: tuple[str, ...], service_ip: str, clock: Clock, entropy: Entropy) -> Pki:
    """Create what is missing below `data_dir`. Raises OSError when it cannot be written."""
    keys = ensure_roots(data_dir, clock, entropy)
    ensure_serving(keys, hosts=hosts, service_ip=service_ip, clock=clock)
    return keys


def ensure_roots(data_dir: Path, clock: Clock, entropy: Entropy) -> Pki:
    """What signs: the authority and the token key. Nothing is issued yet."""
    directory = data_dir / "pki"
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(0o700)
    authority = _ensure_authority(directory, clock, entropy)
    key_path = directory / "sa.key"
    if not key_path.exists():
        write_private(key_path, private_key_pem(generate_key(entropy)))
    return Pki(directory, authority, key_path.read_bytes())


def ensure_serving(keys: Pki, *, hosts: tuple[str, ...], service_ip: str, clock: Clock) -> None:
    """The API server's pair, for every name by which it is reached."""
    names = (*hosts, service_ip, *SERVICE_NAMES, "localhost", "127.0.0.1")
    _ensure_serving(keys.directory, keys.authority, names, clock)


def adopt(keys: Pki, ca_certificate: bytes, ca_key: bytes, token_key: bytes) -> Pki:
    """Use these roots from now on; files that differ are kept beside them as `*.old`."""
    authority = Authority.load(ca_certificate, ca_key, keys.authority.clock, keys.authority.entropy)
    for name, pem in (("ca.key", ca_key), ("ca.crt", ca_certificate), ("sa.key", token_key)):
        path = keys.directory / name
        if path.read_bytes() == pem:
            continue
        write_private(path.with_name(f"{name}.old"), path.read_bytes())
        write_private(path, pem)
    return Pki(keys.directory, authority, token_key)


def _ensure_authority(directory: Path, clock: Clock, entropy: Entropy) -> Authority:
    certificate, key = directory / "ca.crt", directory / "ca.key"
    if certificate.exists() and key.exists():
        return Authority.load(certificate.read_bytes(), key.read_bytes(), clock, entropy)
    authority = Authority.create("kubernetes", clock, entropy)
    write_private(key, authority.key_pem)
    certificate.write_bytes(authority.certificate_pem)
    return authority


def _ensure_serving(directory: Path, authority: Authority, names: tuple[str, ...], clock: Clock) -> None:
    certificate, key = directory / "apiserver.crt", directory / "apiserver.key"
    wanted = tuple(dict.fromkeys(names))
    ips = tuple(name for name in wanted if _is_ip(name))
    dns_names = tuple(name for name in wanted if not _is_ip(name))
    if certificate.exists() and key.exists() and _still_good(certificate, authority, ips, dns_names, clock):
        return
    pem, key_pem = authority.issue("kube-apiserver", server=True, client=False, dns_names=dns_names, ips=ips)
    write_private(key, key_pem)
    certificate.write_bytes(pem)


def _still_good(
    path: Path, authority: Authority, ips: tuple[str, ...], dns_names: tuple[str, ...], clock: Clock
) -> bool:
    certificate = load_certificate(path.read_bytes())
    if certificate.not_valid_after_utc - clock.now() < RENEW_BEFORE or not _issued_by(authority, certificate):
        return False
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    have = {str(ip) for ip in names.get_values_for_type(x509.IPAddress)} | set(
        names.get_values_for_type(x509.DNSName)
    )
    return have.issuperset(ips) and have.issuperset(dns_names)


def _issued_by(authority: Authority, certificate: x509.Certificate) -> bool:
    """By this very key: every authority of ours has the same name."""
    try:
        certificate.verify_directly_issued_by(authority.certificate)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _is_ip(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def write_admin_kubeconfig(path: Path, pki: Pki, server: str, clock: Clock) -> None:
    """Write the admin's kubeconfig; an existing one keeps its certificate while that is good and only learns the server."""
    certificate, key = _admin_pair(path, pki, clock)
    write_private(path, kubeconfig(server, pki.authority.certificate_pem, certificate, key, ADMIN_USER))


def _admin_pair(path: Path, pki: Pki, clock: Clock) -> tuple[bytes, bytes]:
    certificate, key = pki.directory / "admin.crt", pki.directory / "admin.key"
    if certificate.exists() and key.exists():
        held = load_certificate(certificate.read_bytes())
        if held.not_valid_after_utc - clock.now() > RENEW_BEFORE and _issued_by(pki.authority, held):
            return certificate.read_bytes(), key.read_bytes()
    pem, key_pem = pki.authority.issue(ADMIN_USER, [ADMIN_GROUP])
    write_private(key, key_pem)
    certificate.write_bytes(pem)
    return pem, key_pem


def kubeconfig(server: str, ca_pem: bytes, certificate_pem: bytes, key_pem: bytes, user: str) -> bytes:
    """A kubeconfig with everything inside, one cluster, one user, one context named `kcp`."""
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": "kcp", "cluster": {"server": server, "certificate-authority-data": _b64(ca_pem)}}
        ],
        "users": [
            {
                "name": user,
                "user": {"client-certificate-data": _b64(certificate_pem), "client-key-data": _b64(key_pem)},
            }
        ],
        "contexts": [{"name": "kcp", "context": {"cluster": "kcp", "user": user}}],
        "current-context": "kcp",
        "preferences": {},
    }
    return yaml.safe_dump(document, sort_keys=False).encode()


def _b64(data: bytes) -> str:
    return b64encode(data).decode()


def write_private(path: Path, data: bytes) -> None:
    """Write a file that only its owner may read, never visible in part."""
    temporary = path.with_name(path.name + ".new")
    temporary.touch(mode=0o600, exist_ok=True)
    temporary.chmod(0o600)
    temporary.write_bytes(data)
    temporary.replace(path)
