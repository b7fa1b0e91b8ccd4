"""First start: the certificate authority, the API server's certificate, the token key, the admin kubeconfig.

    DIR/pki/ca.crt ca.key                  signs everything below
    DIR/pki/apiserver.crt apiserver.key    serving; renewed when it nears its end or its names changed
    DIR/pki/sa.key                         signs service-account tokens
    DIR/kubeconfig                         an admin (group kubeadm:cluster-admins, bound to cluster-admin)
    DIR/NAME.kubeconfig                    controller-manager, scheduler: where these run as processes of their own

Keys are readable by their owner alone. Nothing that exists and is still good is replaced. Daemons that share a log
share the authority and the token key too (`adopt`); the pairs that these sign stay each daemon's own.

A crash between any two writes leaves what the next start makes good. A file is whole or not there. A pair of which only
the key was written, or of which the files do not belong together, is made anew if it can be: all but the authority's.
Roots that are adopted are first put together in DIR/pki/adopting, which appears at once; from then on every start
goes on moving them to their places until that directory is empty and gone.
"""

from __future__ import annotations

import os
from base64 import b64encode
from collections.abc import Mapping, Sequence
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path

import structlog
import yaml
from cryptography import x509
from cryptography.exceptions import InvalidSignature

from kcp.base.certs import (
    Authority,
    CertificateError,
    generate_key,
    load_certificate,
    load_private_key,
    private_key_pem,
)
from kcp.base.clock import Clock
from kcp.base.entropy import Entropy
from kcp.base.values import frozen

log = structlog.get_logger()

ADOPTING = "adopting"
RENEW_BEFORE = timedelta(days=30)
ADMIN_USER = "kubernetes-admin"
ADMIN_GROUP = "kubeadm:cluster-admins"
SERVICE_NAMES = (
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
)


@frozen
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


def ensure_roots(data_dir: Path, clock: Clock, entropy: Entropy, *, replace_damaged: bool = False) -> Pki:
    """What signs: the authority and the token key. Nothing is issued yet.

    `replace_damaged`: an authority whose files cannot be used is set aside as `*.old` for a new one, since `adopt`
    follows. Raises CertificateError for one otherwise.
    """
    directory = data_dir / "pki"
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(0o700)
    _finish_adoption(directory)
    try:
        authority = _ensure_authority(directory, clock, entropy)
    except CertificateError as error:
        if not replace_damaged:
            raise CertificateError(f"{directory}: {error}") from error
        log.warning("authority set aside", directory=str(directory), error=str(error))
        _set_aside(directory)
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
    wanted = {"ca.key": ca_key, "ca.crt": ca_certificate, "sa.key": token_key}
    if any((keys.directory / name).read_bytes() != pem for name, pem in wanted.items()):
        _begin_adoption(keys.directory, wanted)
        _finish_adoption(keys.directory)
    return Pki(keys.directory, authority, token_key)


def _begin_adoption(directory: Path, wanted: Mapping[str, bytes]) -> None:
    """All files or none: the directory gets its name once they are in it."""
    unfinished = directory / f"{ADOPTING}.new"
    unfinished.mkdir(mode=0o700, exist_ok=True)
    for name, pem in wanted.items():
        write_private(unfinished / name, pem)
    unfinished.rename(directory / ADOPTING)
    _to_disk(directory)


def _finish_adoption(directory: Path) -> None:
    """Move adopted files to their places; begun by `adopt`, gone on with by any later start."""
    adopting = directory / ADOPTING
    if not adopting.is_dir():
        return
    for staged in sorted(adopting.iterdir()):
        path = directory / staged.name
        if path.exists() and path.read_bytes() != staged.read_bytes():
            write_private(path.with_name(f"{path.name}.old"), path.read_bytes())
        staged.replace(path)
    _to_disk(directory)
    adopting.rmdir()


def _set_aside(directory: Path) -> None:
    for name in ("ca.key", "ca.crt"):
        path = directory / name
        if path.exists():
            path.replace(path.with_name(f"{name}.old"))


def _ensure_authority(directory: Path, clock: Clock, entropy: Entropy) -> Authority:
    certificate, key = directory / "ca.crt", directory / "ca.key"
    if certificate.exists() and key.exists():
        return Authority.load(certificate.read_bytes(), key.read_bytes(), clock, entropy)
    authority = Authority.create("kubernetes", clock, entropy)
    write_private(key, authority.key_pem)
    write_private(certificate, authority.certificate_pem)
    return authority


def _ensure_serving(directory: Path, authority: Authority, names: tuple[str, ...], clock: Clock) -> None:
    certificate, key = directory / "apiserver.crt", directory / "apiserver.key"
    wanted = tuple(dict.fromkeys(names))
    ips = tuple(name for name in wanted if _is_ip(name))
    dns_names = tuple(name for name in wanted if not _is_ip(name))
    held = _good_pair(certificate, key, authority, clock)
    if held is not None and _names(held, ips, dns_names):
        return
    pem, key_pem = authority.issue("kube-apiserver", server=True, client=False, dns_names=dns_names, ips=ips)
    write_private(key, key_pem)
    write_private(certificate, pem)


def _good_pair(
    certificate_path: Path, key_path: Path, authority: Authority, clock: Clock
) -> x509.Certificate | None:
    """The certificate, if it is this authority's, has time left, and the key belongs to it."""
    try:
        certificate = load_certificate(certificate_path.read_bytes())
        key = load_private_key(key_path.read_bytes())
    except (FileNotFoundError, CertificateError):
        return None
    if certificate.not_valid_after_utc - clock.now() < RENEW_BEFORE or not _issued_by(authority, certificate):
        return None
    return certificate if certificate.public_key() == key.public_key() else None


def _names(certificate: x509.Certificate, ips: tuple[str, ...], dns_names: tuple[str, ...]) -> bool:
    """Whether it is for all of these."""
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
    write_kubeconfig(path, pki, server, clock, "admin", ADMIN_USER, (ADMIN_GROUP,))


def write_kubeconfig(
    path: Path, pki: Pki, server: str, clock: Clock, pair: str, user: str, groups: Sequence[str] = ()
) -> None:
    """Write a user's kubeconfig. The certificate is kept as DIR/pki/<pair>.crt and used again while it is good."""
    certificate, key = _client_pair(pki, clock, pair, user, groups)
    write_private(path, kubeconfig(server, pki.authority.certificate_pem, certificate, key, user))


def _client_pair(pki: Pki, clock: Clock, name: str, user: str, groups: Sequence[str]) -> tuple[bytes, bytes]:
    certificate, key = pki.directory / f"{name}.crt", pki.directory / f"{name}.key"
    if _good_pair(certificate, key, pki.authority, clock) is not None:
        return certificate.read_bytes(), key.read_bytes()
    pem, key_pem = pki.authority.issue(user, groups)
    write_private(key, key_pem)
    write_private(certificate, pem)
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
    """Write a file that only its owner may read, never visible in part, even after a loss of power."""
    temporary = path.with_name(path.name + ".new")
    temporary.touch(mode=0o600, exist_ok=True)
    temporary.chmod(0o600)
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _to_disk(directory: Path) -> None:
    """What was renamed in it stays so."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
