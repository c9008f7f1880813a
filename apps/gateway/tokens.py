"""JSON Web Tokens: whose a token is, and until when it holds. The one importer of PyJWT, which is loaded if wanted."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from apps.gateway.settings import TokenSettings
from apps.gateway.tenants import OF_ALL, TENANT, BadCredential
from apps.gateway.watched import Watched
from pipeline.errors import SettingsError

if TYPE_CHECKING:
    import jwt

REQUIRED = ("exp",)
EXTRA = "gateway.jwt"


class Token(NamedTuple):
    """A token that holds: whose it is, and until when (seconds since 1970)."""

    tenant: str
    expires_at: float


class Tokens:
    """Checks tokens with the key, or the keys of the file, that the settings name.

    Raises:
        SettingsError: PyJWT is not there, or a key cannot be read.
    """

    def __init__(self, settings: TokenSettings) -> None:
        try:
            import jwt
        except ModuleNotFoundError:
            raise SettingsError(EXTRA, "tokens need PyJWT: pip install 'penstock[jwt]'") from None
        self._jwt, self._settings = jwt, settings
        secret = settings.key.reveal()
        self._file: Watched[Any] | None = None
        if not secret:
            path = settings.jwks_file or settings.key_file
            assert path is not None
            self._file = Watched(path, self._set if settings.jwks_file else self._pem)
        self._secret = secret

    def look(self) -> None:
        """Read the file of keys again if it has changed."""
        if self._file is not None:
            self._file.look()

    def checked(self, token: str) -> Token:
        """What `token` says.

        Raises:
            BadCredential: it does not hold.
        """
        settings = self._settings
        try:
            claims = self._jwt.decode(
                token,
                self._key(token),
                algorithms=list(settings.allowed),
                issuer=settings.issuer or None,
                audience=settings.audience or None,
                leeway=settings.leeway_s,
                options={"require": [*REQUIRED, settings.tenant_claim], "verify_aud": bool(settings.audience)},
            )
            tenant, ends = claims[settings.tenant_claim], float(claims["exp"])
        except (self._jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError) as error:
            raise BadCredential(f"a token: {type(error).__name__}") from None
        if not isinstance(tenant, str) or not TENANT.fullmatch(tenant) or tenant == OF_ALL:
            raise BadCredential(f"a token: its {settings.tenant_claim!r} is no tenant's name")
        return Token(tenant, ends + settings.leeway_s)

    def _key(self, token: str) -> Any:
        if self._file is None:
            return self._secret
        if self._settings.jwks_file is None:
            return self._file.value
        name = self._jwt.get_unverified_header(token).get("kid")
        found = self._file.value.get(name)
        if found is None:
            raise self._jwt.InvalidKeyError("no such key in the set")
        return found

    def _pem(self, path: Path) -> str:
        name = f"{EXTRA}.key_file"
        text = _text(path, name)
        for algorithm in self._settings.allowed if "PUBLIC KEY" in text else ():
            with suppress(self._jwt.PyJWTError, ValueError, TypeError):
                self._jwt.PyJWS().get_algorithm_by_name(algorithm).prepare_key(text)
                return text
        raise SettingsError(name, f"{path} holds no public key (PEM) for {', '.join(self._settings.allowed)}")

    def _set(self, path: Path) -> dict[str | None, jwt.PyJWK]:
        """The keys of a JWKS by their id."""
        name = f"{EXTRA}.jwks_file"
        try:
            keys = self._jwt.PyJWKSet.from_dict(json.loads(_text(path, name))).keys
        except (self._jwt.PyJWTError, ValueError, TypeError, AttributeError, RecursionError) as error:
            raise SettingsError(name, f"{path} is no set of keys (JWKS): {error}") from None
        if any(key.key_type == "oct" for key in keys):
            raise SettingsError(name, f"{path} holds a symmetric key; such a one belongs into {EXTRA}.key")
        return {key.key_id: key for key in keys}


def _text(path: Path, name: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise SettingsError(name, f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError:
        raise SettingsError(name, f"{path} is no text") from None
