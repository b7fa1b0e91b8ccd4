"""What controllers ask for outside the API: signatures of keys that planners never see.

    externals = providers(authority, token_key)
    await externals["certificates"]("sign", {"request": …, "usages": […], "lifetime_s": 3600})

A call takes and returns JSON, so that it can be recorded.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from kcp.api.auth import legacy_tokens
from kcp.api.auth.service_account import SigningKey
from kcp.base.certs import Authority, CertificateError
from kcp.base.values import frozen
from kcp.controllers.certificates.signing import PROVIDER as CERTIFICATES
from kcp.controllers.execute import External
from kcp.controllers.service_account_tokens import PROVIDER as TOKENS
from kcp.machinery.errors import BadRequest

Json = dict[str, Any]


def providers(authority: Authority, token_key: SigningKey) -> Mapping[str, External]:
    return {CERTIFICATES: Certificates(authority), TOKENS: Tokens(token_key)}


@frozen
class Certificates:
    """`sign`: request (base64 of its PEM), usages, lifetime_s -> certificate (PEM)."""

    authority: Authority

    async def __call__(self, call: str, args: Json) -> Json:
        _expect(call, "sign")
        try:
            pem = self.authority.sign_for(
                base64.b64decode(args["request"]), args["usages"], timedelta(seconds=args["lifetime_s"])
            )
        except CertificateError as error:
            raise BadRequest(str(error)) from error
        return {"certificate": pem.decode()}


@frozen
class Tokens:
    """`issue`: namespace, account, uid, secret -> a Secret with `token`, valid while that Secret holds it.

    It comes as a Secret, so that whoever redacts Secrets in what was recorded finds it.
    """

    key: SigningKey

    async def __call__(self, call: str, args: Json) -> Json:
        _expect(call, "issue")
        token = legacy_tokens.issue(self.key, **args)
        data = {"token": base64.b64encode(token.encode()).decode()}
        return {"apiVersion": "v1", "kind": "Secret", "data": data}


def _expect(call: str, known: str) -> None:
    if call != known:
        raise BadRequest(f"unknown call {call!r}")
