"""TLS from files: checked contexts for both roles, and what a client's certificate says.

Servers and clients speak TLS 1.2 or newer. With 1.2 only ECDHE with AEAD is offered, as HTTP/2 demands.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from servable.core.errors import Code, ServingError, invalid_argument, not_found
from servable.transport.exchange import ClientCertificate
from servable.transport.tls_alerts import ServerContext

CLIENT_AUTH = {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}
"""Whether a client must show a certificate. One that is shown is always verified, unless it is ``none``."""
H2, H1 = "h2", "http/1.1"
"""Names of protocols in ALPN."""
_GOODBYE_S = 2.0
"""How long a client waits for the server's goodbye when it closes."""
_SUITES_OF_TLS_1_2 = "ECDHE+AESGCM:ECDHE+CHACHA20"


@dataclass(frozen=True, slots=True)
class TlsOptions:
    """Files in PEM. ``certificate`` is the server's with the chain below its root; ``key`` may be in the same file."""

    certificate: str
    key: str = ""
    client_ca: str = ""
    """Authorities that sign certificates of clients."""
    client_auth: str = "none"
    """``none``, ``optional`` or ``required``."""

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if self.client_auth not in CLIENT_AUTH:
            raise invalid_argument(f"client_auth is one of {', '.join(CLIENT_AUTH)}, not {self.client_auth!r}")
        if not self.certificate:
            raise invalid_argument("TLS needs a certificate: only its key or the authority of its clients is given")
        if self.client_auth != "none" and not self.client_ca:
            raise invalid_argument(f"client_auth {self.client_auth} needs a client_ca to verify certificates with")
        if self.client_auth == "none" and self.client_ca:
            raise invalid_argument("a client_ca is given, but client_auth is none: say optional or required")

    @property
    def files(self) -> tuple[str, ...]:
        """Return the files that are read, each once."""
        return tuple(dict.fromkeys(name for name in (self.certificate, self.key, self.client_ca) if name))


def server_context(options: TlsOptions, alpn: list[str]) -> ssl.SSLContext:
    """Return a context that offers these protocols. Raises ``ServingError`` with the file and what is wrong in it."""
    context = _restrict(ServerContext(ssl.PROTOCOL_TLS_SERVER), alpn)
    _load_certificate(context, options.certificate, options.key)
    if options.client_ca:
        _trust(context, options.client_ca)
    context.verify_mode = CLIENT_AUTH[options.client_auth]
    return context


@dataclass(frozen=True, slots=True)
class ClientTlsOptions:
    """Files in PEM, "" for none: who is trusted instead of the system's authorities, and what this side shows."""

    ca: str = ""
    certificate: str = ""
    key: str = ""
    """By default in the same file as ``certificate``."""


def client_context(options: ClientTlsOptions, alpn: list[str]) -> ssl.SSLContext:
    """Return a context that verifies the server and its name. Raises ``ServingError`` with the file that is wrong."""
    context = _restrict(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), alpn)
    if options.ca:
        _trust(context, options.ca)
    else:
        context.load_default_certs()
    if options.certificate:
        _load_certificate(context, options.certificate, options.key)
    elif options.key:
        raise invalid_argument(f"the key {options.key} is given without its certificate")
    return context


def dialing(context: ssl.SSLContext | None) -> dict[str, Any]:
    """Return what ``create_connection`` needs to speak TLS; nothing for a plain connection."""
    return {} if context is None else {"ssl": context, "ssl_shutdown_timeout": _GOODBYE_S}


def client_certificate(found: Mapping[str, Any] | None) -> ClientCertificate | None:
    """Return the identity in a verified certificate as the ``ssl`` module describes it; ``None`` if there is none."""
    if not found:
        return None
    subject = ",".join(f"{_SHORT.get(name, name)}={value}" for part in found.get("subject", ()) for name, value in part)
    names = tuple(f"{kind}:{value}" for kind, value in found.get("subjectAltName", ()))
    return ClientCertificate(subject, names)


_SHORT = {"commonName": "CN", "organizationName": "O", "organizationalUnitName": "OU", "countryName": "C"}


def why_not_connected(error: OSError) -> str:
    """Return what a failed connection, or handshake, means for the one who connects."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the server's certificate is not trusted: {error.verify_message}"
    if not isinstance(error, ssl.SSLError):
        return str(error) or "the server closed it in the TLS handshake: perhaps this port has no TLS"
    reason = reason_of(error)
    if reason in {"wrong version number", "packet length too long"}:
        return "the server does not speak TLS on this port"
    return f"the TLS handshake failed: {reason}"


def why_lost(error: Exception | None) -> str:
    """Return how a connection ended that had been made. With TLS 1.3 a refused client learns of it only here."""
    if error is None:
        return "the connection was lost"
    if not isinstance(error, ssl.SSLError):
        return f"the connection was lost: {error}"
    _, is_alert, alert = reason_of(error).partition(" alert ")
    return f"the peer refused the TLS connection: {alert}" if is_alert else f"TLS failed: {reason_of(error)}"


def reason_of(error: ssl.SSLError) -> str:
    """Return OpenSSL's reason in words."""
    return (error.reason or str(error)).lower().replace("_", " ")


def _restrict(context: ssl.SSLContext, alpn: list[str]) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_SUITES_OF_TLS_1_2)
    context.set_alpn_protocols(alpn)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    return context


def _load_certificate(context: ssl.SSLContext, certificate: str, key: str) -> None:
    """Load a chain and its key, each looked at alone first: OpenSSL's errors do not say which file they are about."""
    _read_certificates(certificate)
    key = key or certificate
    if b"PRIVATE KEY-----" not in _read(key):
        raise invalid_argument(f"{key}: no private key in PEM")

    def refuse_passphrase() -> str:
        # Without this OpenSSL would ask the terminal.
        raise invalid_argument(f"{key}: the private key is encrypted; give one without a passphrase")

    try:
        context.load_cert_chain(certificate, key, refuse_passphrase)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise invalid_argument(f"{key}: this is not the key of the certificate in {certificate}") from None
        raise invalid_argument(f"{certificate} with the key {key}: {reason_of(error)}") from None
    except OSError as error:  # the file went away between two looks
        raise _unreadable(certificate, error) from None


def _trust(context: ssl.SSLContext, ca: str) -> None:
    context.load_verify_locations(cadata=_read_certificates(ca))


def _read_certificates(path: str) -> str:
    """Return the certificates of a file in PEM, all of which can be parsed."""
    text = _read(path).decode("ascii", "replace")
    if "-----BEGIN CERTIFICATE-----" not in text:
        raise invalid_argument(f"{path}: no certificate in PEM")
    text = text[text.index("-----BEGIN CERTIFICATE-----") :]
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=text)
    except ssl.SSLError as error:
        raise invalid_argument(f"{path}: a certificate cannot be read: {reason_of(error)}") from None
    return text


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from None


def _unreadable(path: str, error: OSError) -> ServingError:
    if isinstance(error, FileNotFoundError):
        return not_found(f"{path}: no such file")
    return ServingError(Code.PERMISSION_DENIED, f"{path}: cannot be read: {error.strerror or error}")
