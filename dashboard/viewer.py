"""Who looks at the page, and whose drops and runs they may see.

In front of the page stands Identity-Aware Proxy: it lets only people in who have signed in, and says with each
connection who it is, in a token that it has signed. Nothing else that a browser sends is believed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from google.auth import jwt
from google.auth.exceptions import GoogleAuthError

from schemas.manifest import is_drop_name

ASSERTION = "X-Goog-IAP-JWT-Assertion"
CERTIFICATES = "https://www.gstatic.com/iap/verify/public_key"
ISSUER = "https://cloud.google.com/iap"

OPEN_TO = "ADAPTML_DASHBOARD_TENANTS"
"""Tenants of whoever comes, without a sign-in: for the local cloud alone. Where it is set, no token is looked at."""
AUDIENCE = "ADAPTML_IAP_AUDIENCE"
"""Whom the proxy's tokens are for: this service. A token for another one is refused."""


class NotAllowed(Exception):  # noqa: N818 - says what is the matter
    """Raised with what to tell somebody who may see nothing."""


@dataclass(frozen=True)
class Viewer:
    """A person, and what they are in each of their tenants: writer or reader."""

    name: str
    roles: Mapping[str, str]

    @property
    def tenants(self) -> list[str]:
        """By name."""
        return sorted(self.roles)

    def may_see(self, tenant: str) -> bool:
        """True for a tenant of theirs."""
        return tenant in self.roles

    def may_write(self, tenant: str) -> bool:
        """True where they may start and end runs and move aliases."""
        return self.roles.get(tenant) == "writer"


def everybody(tenants: str) -> Viewer:
    """Whoever comes, where no sign-in is asked for. Raises NotAllowed for a setting that names no tenant."""
    names = [name.strip() for name in tenants.split(",") if is_drop_name(name.strip())]
    if not names:
        raise NotAllowed(f"{OPEN_TO} names no tenant.")
    return Viewer("development", dict.fromkeys(names, "writer"))


def signed_in(token: str | None, certificates: Mapping[str, str], audience: str) -> str:
    """The address of whom the proxy let in. Raises NotAllowed for what the proxy has not said."""
    if not token:
        raise NotAllowed("You have not come through Identity-Aware Proxy.")
    try:
        said: Mapping[str, Any] = jwt.decode(token, certs=certificates, audience=audience)
    except (ValueError, GoogleAuthError):
        raise NotAllowed("What says who you are is not from Identity-Aware Proxy, or is out of date.") from None
    if said.get("iss") != ISSUER or not isinstance(said.get("email"), str):
        raise NotAllowed("What says who you are is not from Identity-Aware Proxy.")
    email: str = said["email"]
    return email.rpartition(":")[2].lower()


def member(address: str, members: Mapping[str, Mapping[str, str]]) -> Viewer:
    """What somebody with this address is in which tenant; `members` are those of the API. Raises NotAllowed."""
    roles = members.get(address)
    if not roles:
        raise NotAllowed(f"{address} is a member of no tenant.")
    return Viewer(address, roles)
