"""The nginx configuration inside the web image.

It depends on the plan and on the built HTML alone, never on the release: the same build gives the same image. A
release is told apart by the host directory mounted at `SOCKET_DIR`.
"""

import base64
import hashlib
import re
from collections.abc import Mapping
from html.parser import HTMLParser
from typing import TYPE_CHECKING

from orchestrator.files import resource
from orchestrator.replicas import make_replicas

if TYPE_CHECKING:
    from jinja2 import Environment

    from orchestrator.plan import Proxy, WebPlan
    from orchestrator.settings import Csp

CONFIG_PATH = "/etc/nginx/nginx.conf"
"""Where the rendered configuration belongs in the image, beside the nginx package's mime.types."""

SOCKET_CONFIG_PATH = "/etc/nginx/socket.conf"
"""Where that for releases of ours is in an image that can also run alone."""

DOCUMENT_ROOT = "/srv/www"
"""Where the frontend's files belong in the image."""

EARLIER_ROOT = "/srv/earlier"
"""Where hashed files of earlier releases are mounted, for pages still open in browsers."""

SOCKET_DIR = "/run/web"
SOCKET_NAME = "web.sock"
"""nginx listens on this socket in the directory mounted at `SOCKET_DIR`."""

STATUS_SOCKET_NAME = "status.sock"
"""On this socket beside it nginx says how many connections it has, by ngx_http_stub_status_module."""

REPLICA_SOCKET = "{}.sock"
"""Where there are several, each replica can be asked on a socket of its own beside it, called by its name."""

COMMAND = ("-e", "stderr", "-c", CONFIG_PATH, "-g", "daemon off;")
"""What follows the nginx executable in the image's entry point."""

# A build's content hash in a file name, in a directory bundlers put hashed files into. Names people give
# (report-20240101.pdf, team-Holidays.jpg) must not match: they would be cached for a year.
HASHED_NAME = (
    r"^/(?:assets|static|build|_app/immutable|_next/static|_astro)/(?:.*/)?[^/]*[.-]"
    r"(?![A-Z]?[a-z]+\.)(?![0-9]+\.)(?:[A-Za-z0-9_-]{8}|[A-Za-z0-9]{9,64})(?:\.[A-Za-z0-9]+){1,2}$"
)

_SCRIPT_TYPES = frozenset({"", "module", "importmap", "speculationrules", "text/javascript", "application/javascript"})


def render_web_config(web: "WebPlan", *, html: Mapping[str, bytes], port: int | None = None) -> str:
    """The text of nginx.conf(5) for one release's web server, on its socket or, for one that stands alone, on `port`.

    `html` holds the built HTML files by path relative to the document root: their inline scripts are the only
    ones browsers may run.
    """
    prefix = web.proxy.prefix if web.proxy else "/"
    return (
        nginx_templates()
        .get_template("web.conf.j2")
        .render(
            proxy=web.proxy,
            replicas=_describe_replicas(web.proxy) if web.proxy else (),
            static=web.static is not None,
            spa=web.spa,
            socket=f"{SOCKET_DIR}/{SOCKET_NAME}",
            status_socket=f"{SOCKET_DIR}/{STATUS_SOCKET_NAME}",
            port=port,
            trusted_proxies=web.options.trusted_proxies,
            document_root=DOCUMENT_ROOT,
            earlier_root=EARLIER_ROOT,
            body_limit=web.options.body_size,
            hashed_name=HASHED_NAME,
            prefix_pattern=f"{re.escape(prefix)}[/? ]" if prefix != "/" else "(?!)",
            stripped_pattern=re.escape(prefix) if web.proxy and web.proxy.strip and prefix != "/" else "",
            not_found_page=not web.spa and "404.html" in html,
            csp=content_security_policy(html, web.options.csp) if web.static is not None else "",
            csp_header=f"Content-Security-Policy{'-Report-Only' if web.options.csp.report_only else ''}",
            source_maps=bool(web.options.source_maps),
            cors_origins=web.options.cors_origins,
        )
    )


def _describe_replicas(proxy: "Proxy") -> tuple[dict[str, str], ...]:
    return tuple(
        {
            "address": f"127.0.0.1:{replica.port}",
            "socket": f"{SOCKET_DIR}/{REPLICA_SOCKET.format(replica.name)}",
            "upstream": f"only_{replica.name}",
        }
        for replica in make_replicas(proxy.backend, proxy.port, proxy.replicas)
    )


def nginx_templates() -> "Environment":
    """The templates of every nginx configuration; `quoted` writes any text as one nginx word."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(resource("templates") / "nginx"),
        undefined=StrictUndefined,
        autoescape=False,
        keep_trailing_newline=True,
    )
    environment.filters["quoted"] = quoted
    return environment


def quoted(text: str) -> str:
    """`text` as one word of nginx's configuration language. A "$" cannot be escaped there: raises `ValueError`."""
    if "$" in text or "\n" in text:
        raise ValueError(f"{text!r} cannot be written in an nginx configuration")
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def content_security_policy(html: Mapping[str, bytes], extra: "Csp") -> str:
    """The policy of every page: own sources, the inline scripts of the built HTML by their hashes, and `extra` ones."""
    hashes = sorted({_source_hash(script) for page in html.values() for script in inline_scripts(page)})
    scripts = (*hashes, *extra.script)
    sources = {
        **({"script-src": ("'self'", *scripts)} if scripts else {}),
        "connect-src": ("'self'", *extra.connect),
        "img-src": ("'self'", "data:", "blob:", *extra.img),
        "style-src": ("'self'", "'unsafe-inline'", *extra.style),
        "font-src": ("'self'", *extra.font),
        "frame-src": ("'self'", *extra.frame),
    }
    given = (f"{directive} {' '.join(allowed)}" for directive, allowed in sources.items())
    return "; ".join(
        (
            *("default-src 'self'", *given),
            *("base-uri 'none'", "object-src 'none'", "form-action 'self'", "frame-ancestors 'none'"),
        )
    )


def inline_scripts(page: bytes) -> tuple[str, ...]:
    """The text of each inline script a browser would run, as the browser hashes it (line ends normalised)."""
    parser = _ScriptParser()
    parser.feed(page.decode("utf-8", errors="replace").replace("\r\n", "\n").replace("\r", "\n"))
    parser.close()
    return tuple(parser.scripts)


class _ScriptParser(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=False)
        self.scripts: list[str] = []
        self._inside: list[str] | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "script" and "src" not in given and (given.get("type") or "").strip().lower() in _SCRIPT_TYPES:
            self._inside = []

    def handle_data(self, data: str) -> None:
        if self._inside is not None:
            self._inside.append(data)

    def handle_endtag(self, tag: str) -> None:
        if tag == "script" and self._inside is not None:
            if text := "".join(self._inside):
                self.scripts.append(text)
            self._inside = None


def _source_hash(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
