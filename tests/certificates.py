"""Certificates made by the openssl program: an authority, and what it signs."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl to make certificates with")
_CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, in files."""

    certificate: Path
    key: Path

    @property
    def serial(self) -> str:
        """The certificate's number, in capitals."""
        return _openssl("x509", "-in", self.certificate, "-noout", "-serial").strip().removeprefix("serial=")

    def replace(self, other: Pair) -> None:
        """Put another pair in the place of this one, each file whole."""
        for old, new in ((self.key, other.key), (self.certificate, other.certificate)):
            copy = old.with_suffix(".new")
            shutil.copy(new, copy)
            copy.rename(old)

    def copy_to(self, directory: Path) -> Pair:
        """Return the same pair in other files."""
        directory.mkdir(parents=True, exist_ok=True)
        return Pair(*(Path(shutil.copy(path, directory / path.name)) for path in (self.certificate, self.key)))


class Authority:
    """Signs certificates for the loopback, and for clients."""

    def __init__(self, directory: Path, name: str = "authority") -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self.certificate = directory / f"{name}.pem"
        self._key = directory / f"{name}.key"
        _openssl(
            "req", "-x509", *_CURVE, "-keyout", self._key, "-out", self.certificate, "-days", 2, "-subj", f"/CN={name}"
        )

    def server(self, name: str = "server", names: str = "DNS:localhost,IP:127.0.0.1") -> Pair:
        """Return a pair for a server."""
        return self._sign(name, f"/CN={name}", names)

    def client(self, name: str = "worker") -> Pair:
        """Return a pair for a client."""
        return self._sign(name, f"/O=Example/CN={name}", f"DNS:{name}.example,URI:spiffe://example/{name}")

    def _sign(self, name: str, subject: str, names: str) -> Pair:
        pair = Pair(self._directory / f"{name}.pem", self._directory / f"{name}.key")
        request, extensions = self._directory / f"{name}.csr", self._directory / f"{name}.ext"
        extensions.write_text(f"subjectAltName={names}\n")
        _openssl("req", *_CURVE, "-keyout", pair.key, "-out", request, "-subj", subject)
        signing = ("-CA", self.certificate, "-CAkey", self._key, "-CAcreateserial", "-days", 2, "-extfile", extensions)
        _openssl("x509", "-req", "-in", request, "-out", pair.certificate, *signing)
        return pair

    def trusting(self, pair: Pair | None = None, alpn: tuple[str, ...] = ()) -> ssl.SSLContext:
        """Return a client's context that trusts this authority, made without our code."""
        context = ssl.create_default_context(cafile=str(self.certificate))
        if pair is not None:
            context.load_cert_chain(pair.certificate, pair.key)
        if alpn:
            context.set_alpn_protocols(list(alpn))
        return context


def _openssl(*words: object) -> str:
    done = subprocess.run(["openssl", *map(str, words)], check=False, capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, done.stderr
    return done.stdout
