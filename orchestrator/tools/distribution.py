"""Small documents in a registry, over HTTP: what skopeo cannot do (referrers, and indexes kept byte for byte).

Format: OCI Distribution Specification 1.1; authentication as registries in the field do it (basic, and bearer tokens
as described in "Token Authentication Specification", distribution.github.io).
"""

import hashlib
import http.client
import json
import re
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.message import Message
from pathlib import Path

from orchestrator.errors import RegistryError
from orchestrator.tools.credentials import Login, find_login
from orchestrator.tools.registry import Access, ConnectionDropped, Repository

TIMEOUT = 60.0
"""Seconds one request may take; only small documents are sent this way."""

_CERTIFICATES = (Path("/etc/containers/certs.d"), Path("/etc/docker/certs.d"))
_PARAMETER = re.compile(r'(\w+)="([^"]*)"')


@dataclass(frozen=True, slots=True)
class Answer:
    """What a registry answered; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(slots=True)
class Registry:
    """One repository, asked over HTTP. Logs in when the registry wants it, with the engines' logins."""

    repository: Repository
    access: Access
    _authorization: str = ""
    _base: str = ""
    _opener: urllib.request.OpenerDirector = field(init=False)

    def __post_init__(self) -> None:
        context = _tls(self.repository, self.access)
        self._opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context))

    def manifest(self, reference: str, media_type: str) -> bytes | None:
        """The manifest of a tag or digest; None when there is none. Raises `RegistryError`."""
        answer = self._ask("GET", f"manifests/{reference}", headers={"Accept": media_type}, expected=(200, 404))
        return answer.body if answer.status == 200 else None

    def put_manifest(self, reference: str, content: bytes, media_type: str) -> bool:
        """Write a manifest under a tag or its digest; whether the registry keeps track of what it refers to.

        Raises `RegistryError`.
        """
        headers = {"Content-Type": media_type}
        return "oci-subject" in self._ask("PUT", f"manifests/{reference}", content, headers, expected=(201,)).headers

    def put_blob(self, content: bytes) -> int:
        """Write a blob unless it is there; the bytes sent. Raises `RegistryError`."""
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        if self._ask("HEAD", f"blobs/{digest}", expected=(200, 404)).status == 200:
            return 0
        started = self._ask("POST", "blobs/uploads/", b"", expected=(202,))
        place = urllib.parse.urljoin(f"{self._base}/v2/", started.headers["location"])
        place += f"{'&' if '?' in place else '?'}digest={digest}"
        self._ask("PUT", place, content, {"Content-Type": "application/octet-stream"}, expected=(201,))
        return len(content)

    def _ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        expected: tuple[int, ...],
    ) -> Answer:
        if not self._base:
            self._base = self._find_base()
        url = path if "://" in path else f"{self._base}/v2/{self.repository.path}/{path}"
        answer = self._send(method, url, body, headers or {})
        if answer.status == 401 and (challenge := answer.headers.get("www-authenticate")):
            self._authorization = self._log_in(challenge)
            answer = self._send(method, url, body, headers or {})
        if answer.status not in expected:
            raise _refused(method, url, answer)
        return answer

    def _find_base(self) -> str:
        """https, or http where that is allowed and all that answers."""
        secure, plain = f"https://{self.repository.registry}", f"http://{self.repository.registry}"
        if not self.access.trusts_all(self.repository):
            return secure
        try:
            self._send("GET", f"{secure}/v2/", None, {})
        except ConnectionDropped:
            return plain
        return secure

    def _send(
        self, method: str, url: str, body: bytes | None, headers: Mapping[str, str], *, login: str = ""
    ) -> Answer:
        """One request. What identifies us goes to the registry itself, never along with a redirection."""
        request = urllib.request.Request(url, data=body, method=method, headers=dict(headers))
        if login or (self._authorization and urllib.parse.urlsplit(url).netloc == self.repository.registry):
            request.add_unredirected_header("Authorization", login or self._authorization)
        try:
            with self._opener.open(request, timeout=TIMEOUT) as response:
                return Answer(response.status, _lower(response.headers), response.read())
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, _lower(error.headers), error.read())
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            text = f"{self.repository.registry} cannot be asked: {reason}"
            kind = RegistryError if isinstance(reason, ssl.SSLCertVerificationError) else ConnectionDropped
            raise kind(text, hint="is the address right? A private CA goes into --cert-dir DIR") from error

    def _log_in(self, challenge: str) -> str:
        """The Authorization header a challenge asks for (RFC 6750, RFC 7617). Raises `RegistryError`."""
        login = find_login(self.repository.registry, self.repository.path, self.access.environment)
        scheme, _, rest = challenge.partition(" ")
        if scheme.lower() == "basic" and login is not None:
            return login.basic
        if scheme.lower() != "bearer":
            raise RegistryError(
                f"{self.repository.registry} wants a login",
                hint=f"log in first: podman login {self.repository.registry}",
            )
        return f"Bearer {self._token(dict(_PARAMETER.findall(rest)), login)}"

    def _token(self, challenge: Mapping[str, str], login: Login | None) -> str:
        asked = {"service": challenge.get("service", ""), "scope": f"repository:{self.repository.path}:pull,push"}
        realm = challenge.get("realm", "")
        if not realm.startswith("https://") and not self.access.trusts_all(self.repository):
            raise RegistryError(f"{self.repository.registry} wants the login sent in the clear, to {realm}")
        if login is not None and login.refresh_token:
            grant = {"grant_type": "refresh_token", "refresh_token": login.refresh_token, "client_id": "orchestrator"}
            answer = self._send("POST", realm, urllib.parse.urlencode(asked | grant).encode(), {})
        else:
            basic = login.basic if login else ""
            answer = self._send("GET", f"{realm}?{urllib.parse.urlencode(asked)}", None, {}, login=basic)
        if answer.status != 200:
            raise _refused("GET", realm, answer)
        given = json.loads(answer.body)
        return str(given.get("token") or given.get("access_token"))


def _lower(headers: Message) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def _refused(method: str, url: str, answer: Answer) -> RegistryError:
    details = answer.body.decode(errors="replace").splitlines()[:5]
    hint = "log in first: podman login REGISTRY" if answer.status in (401, 403) else None
    return RegistryError(
        f"the registry answered {answer.status} to {method} {urllib.parse.urlsplit(url).path}",
        details=details,
        hint=hint,
    )


def _tls(repository: Repository, access: Access) -> ssl.SSLContext:
    """The machine's authorities and those of the certificate directories; as skopeo judges, loopback is trusted."""
    context = ssl.create_default_context()
    if access.trusts_all(repository):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    directories = [directory / repository.registry for directory in _CERTIFICATES]
    for directory in (*directories, *([access.cert_dir] if access.cert_dir else [])):
        for authority in sorted(directory.glob("*.crt")):
            context.load_verify_locations(authority)
        for certificate in sorted(directory.glob("*.cert")):
            context.load_cert_chain(certificate, certificate.with_suffix(".key"))
    return context
