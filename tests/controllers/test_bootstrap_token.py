"""Bootstrap tokens: signatures of cluster-info come and go with them; expired ones are removed."""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Any

import orjson

from kcp.controllers import effects as fx
from kcp.controllers.bootstrap_token import CLEANER, CLUSTER_INFO, SIGNER, sign, touched_info, touched_token
from tests.support.builders import metadata
from tests.support.planning import World, of_type, writes

Json = dict[str, Any]
SECRET = "0123456789abcdef"
INFO = "kube-public/cluster-info"


def token(token_id: str = "abcdef", *, signs: str = "true", **data: str) -> Json:
    texts = {"token-id": token_id, "token-secret": SECRET, "usage-bootstrap-signing": signs, **data}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": metadata(f"bootstrap-token-{token_id}", "kube-system"),
        "type": "bootstrap.kubernetes.io/token",
        "data": {key: base64.b64encode(text.encode()).decode() for key, text in texts.items()},
    }


def info(**data: str) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata("cluster-info", "kube-public"),
        "data": {"kubeconfig": "here: it is", **data},
    }


def signatures(world: World) -> list[str]:
    data = world.get("configmaps", INFO)["data"]
    return sorted(key for key in data if key.startswith("jws-kubeconfig-"))


def decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def test_a_signature_can_be_checked_with_the_secret() -> None:
    header, payload, signature = sign("content", "abcdef", SECRET).split(".")
    assert orjson.loads(decoded(header)) == {"alg": "HS256", "kid": "abcdef"}
    assert payload == ""
    content = base64.urlsafe_b64encode(b"content").rstrip(b"=").decode()
    expected = hmac.digest(SECRET.encode(), f"{header}.{content}".encode(), hashlib.sha256)
    assert decoded(signature) == expected


def test_every_usable_token_signs_and_vanished_ones_do_not() -> None:
    world = World(info(**{"jws-kubeconfig-gone00": "x"}), token(), token("zzzzzz", signs="false"))
    world.plan(SIGNER, CLUSTER_INFO)
    assert signatures(world) == ["jws-kubeconfig-abcdef"]
    assert writes(world.plan(SIGNER, CLUSTER_INFO)) == []


def test_an_expired_token_signs_no_more() -> None:
    world = World(info(), token(expiration="2026-01-01T00:01:00Z"))
    effects = world.plan(SIGNER, CLUSTER_INFO)
    assert of_type(effects, fx.RequeueAfter) == [fx.RequeueAfter(60.0)]
    world.sleep(60)
    world.plan(SIGNER, CLUSTER_INFO)
    assert signatures(world) == []


def test_malformed_tokens_do_not_sign() -> None:
    renamed = token()
    renamed["metadata"] = metadata("bootstrap-token-other0", "kube-system")
    world = World(info(), renamed, token("UPPER1"), {**token("opaque"), "type": "Opaque"})
    assert writes(world.plan(SIGNER, CLUSTER_INFO)) == []


def test_expired_tokens_are_removed_and_others_come_back_in_time() -> None:
    world = World(
        token(expiration="2026-01-01T00:01:00Z"), token("foreve"), token("broken", expiration="soon")
    )
    assert world.plan(CLEANER, "kube-system/bootstrap-token-abcdef") == [fx.RequeueAfter(60.0)]
    assert world.plan(CLEANER, "kube-system/bootstrap-token-foreve") == []
    world.plan(CLEANER, "kube-system/bootstrap-token-broken")
    world.sleep(61)
    (deleted,) = world.plan(CLEANER, "kube-system/bootstrap-token-abcdef")
    assert isinstance(deleted, fx.Delete) and deleted.uid
    assert [s["metadata"]["name"] for s in world.all("secrets")] == ["bootstrap-token-foreve"]


def test_what_queues_the_signer() -> None:
    assert touched_info(None, info(), {}) == [INFO]
    assert touched_token(token(), None, {}) == [INFO]
    assert touched_token(None, {**token(), "type": "Opaque"}, {}) == []
