"""Who asks. In-process callers are trusted with the identity they bring; everybody else is authenticated.

Source: k8s v1.36 apiserver/pkg/endpoints/filters/authentication.go.
"""

from __future__ import annotations

from collections.abc import Awaitable

import attrs

from kcp.api.auth.protocol import ALL_UNAUTHENTICATED, ANONYMOUS, Authenticator, UserInfo
from kcp.api.context import Call, Server
from kcp.machinery.errors import Unauthorized

NOBODY = UserInfo(ANONYMOUS, groups=(ALL_UNAUTHENTICATED,))
"""Who a request comes from before it is authenticated."""


@attrs.define
class Authentication:
    authenticator: Authenticator

    @classmethod
    def of(cls, server: Server) -> Authentication:
        return cls(server.authenticator)

    def enter(self, call: Call) -> Awaitable[None] | None:
        identity = call.request.identity
        if identity is not None:
            call.user = identity
            return None
        return self._authenticate(call)

    async def _authenticate(self, call: Call) -> None:
        """Raises Unauthorized for wrong credentials, and for none when anonymous requests are off."""
        user = await self.authenticator.authenticate(call.request)
        if user is None:
            raise Unauthorized()
        call.user = user
