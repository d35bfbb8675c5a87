"""Who may ask the server for what: hosts, origins, a password, uploads; and routes for files."""

import asyncio
import hashlib
import hmac
import json
import os
import re
import secrets
import socket
from base64 import b64decode
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fastapi import FastAPI
from starlette.datastructures import MutableHeaders
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from iart.errors import IARTError, OptionsError
from iart.web.folder import Folder
from iart.web.jobs import Jobs, PageJob
from iart.web.views import STYLE, thumbnail

# ---- the password that others than this machine need


WRONG_PASSWORD_SECONDS = 1.0


class Password:
    """A password, kept as its scrypt hash."""

    def __init__(self, text: str) -> None:
        self._salt = secrets.token_bytes(16)
        self._hash = self._of(text)
        self._known: set[bytes] = set()  # digests of headers that were right: scrypt is slow
        self._one_at_a_time = asyncio.Lock()

    async def fits(self, header: str) -> bool:
        """Whether a header of HTTP Basic has it, whatever the user's name; "no" takes a while."""
        digest = hashlib.sha256(self._salt + header.encode()).digest()
        if digest in self._known:
            return True
        async with self._one_at_a_time:
            if await asyncio.to_thread(self._is_right, header):
                self._known.add(digest)
                return True
            await asyncio.sleep(WRONG_PASSWORD_SECONDS)
            return False

    def _is_right(self, header: str) -> bool:
        kind, _, encoded = header.partition(" ")
        try:
            _, _, text = b64decode(encoded, validate=True).decode().partition(":")
        except ValueError:
            return False
        return kind.lower() == "basic" and hmac.compare_digest(self._of(text), self._hash)

    def _of(self, text: str) -> bytes:
        return hashlib.scrypt(text.encode(), salt=self._salt, n=2**14, r=8, p=1)


# ---- requests


FIRST_PORT = 7860
LARGEST_UPLOAD = 20 * 2**30
LARGEST_UPLOADS = 50 * 2**30
LARGEST_FORM = 2**20
_WRITES = ("POST", "PUT", "PATCH")
_PREVIEW = re.compile(r"[0-9a-f]{16}-(before|after)")
_PLAYED = {".mp4": "video/mp4", ".webm": "video/webm"}
_REPORTED = {".html": "text/html", ".mp4": "video/mp4"}
_PAGE_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; media-src 'self' blob:; "
    "font-src 'self' data:; object-src 'none'; base-uri 'self'; form-action 'self'; "
    "frame-ancestors 'none'"
)
_FILE_POLICY = (
    "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; media-src 'self'; "
    "frame-ancestors 'self'"
)
_FILES = ("/download/", "/open/", "/report/", "/preview/", "/thumbnail/")


class Guard:
    """Refuses what does not come from the page itself, and says so in headers."""

    def __init__(self, app: ASGIApp, *, folder: Folder, password: Password | None) -> None:
        self._app, self._folder, self._password = app, folder, password

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it with a refusal."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        is_file = scope["path"].startswith(_FILES)

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["Content-Security-Policy"] = _FILE_POLICY if is_file else _PAGE_POLICY
                headers["X-Content-Type-Options"] = "nosniff"
                headers["Referrer-Policy"] = "same-origin"
                headers["Cross-Origin-Resource-Policy"] = "same-origin"
                headers["Cross-Origin-Opener-Policy"] = "same-origin"
            await send(message)

        refusal = await self._refusal(request)
        if refusal is None and request.method in _WRITES and not _is_upload(request):
            body = await request.body()
            refusal = self._foreign_file(body)
            receive = _once(body, receive)
        await (refusal or self._app)(scope, receive, with_headers)

    async def _refusal(self, request: Request) -> Response | None:
        header, path = request.headers.get, request.scope["path"]
        origin = header("origin")
        if origin is not None and urlsplit(origin).netloc != header("host"):
            return PlainTextResponse("another origin\n", 403)
        is_visit = request.method == "GET" and path == "/"
        if header("sec-fetch-site") in ("cross-site", "same-site") and not is_visit:
            return PlainTextResponse("another site\n", 403)
        if self._password is not None and not await self._password.fits(
            header("authorization", "")
        ):
            asked = {"WWW-Authenticate": 'Basic realm="iart"'}
            return PlainTextResponse("a password is needed\n", 401, asked)
        # Gradio would fetch addresses and serve files by these
        if re.search(r"/(gradio_api/)?(file|proxy|stream)[=/]", path):
            return PlainTextResponse("not served\n", 403)
        return self._too_large(request) if request.method in _WRITES else None

    def _foreign_file(self, body: bytes) -> Response | None:
        """Refuse what names a file that was not uploaded: Gradio would copy or fetch it."""
        try:
            files = list(_files_in(json.loads(body)))
            uploads = (self._folder.own / "uploads").resolve()
            are_ours = all(Path(file).resolve().is_relative_to(uploads) for file in files)
        except (ValueError, TypeError, RecursionError, OSError):
            return PlainTextResponse("JSON is needed\n", 400)
        return None if are_ours else PlainTextResponse("no file of an upload\n", 403)

    def _too_large(self, request: Request) -> Response | None:
        length = request.headers.get("content-length", "")
        if not length.isdecimal():
            return PlainTextResponse("a length is needed\n", 411)
        if _is_upload(request):
            files = (self._folder.own / "uploads").rglob("*")
            used = sum(file.stat().st_size for file in files if file.is_file())
            is_much = int(length) > min(LARGEST_UPLOAD, LARGEST_UPLOADS - used)
        else:
            is_much = int(length) > LARGEST_FORM
        return PlainTextResponse("too large\n", 413) if is_much else None


def _is_upload(request: Request) -> bool:
    """Whether it is the one place that takes files; functions may have that name, too."""
    return request.scope["path"].rstrip("/") == "/gradio_api/upload"


def _files_in(content: Any) -> Iterator[str]:
    """What Gradio takes for the path of a file, wherever it stands."""
    if isinstance(content, dict):
        if "path" in content:
            yield content["path"]
        content = list(content.values())
    if isinstance(content, list):
        for inner in content:
            yield from _files_in(inner)


def _once(body: bytes, receive: Receive) -> Receive:
    """What the application receives after its body was read."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again() -> Message:
        return messages.pop() if messages else await receive()

    return receive_again


def make_app(folder: Folder, jobs: Jobs, *, hosts: list[str], password: Password | None) -> FastAPI:
    """The application without the page.

    Args:
        folder: served.
        jobs: of it.
        hosts: names under which the server may be asked.
        password: that every request needs.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(Guard, folder=folder, password=password)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False)

    @app.exception_handler(IARTError)
    async def refused(request: Request, error: IARTError) -> Response:
        return PlainTextResponse(f"{error}\n", 404)

    def route(path: str, answer: Callable[[Request], Response]) -> None:
        app.add_route(path, answer, methods=["GET", "HEAD"])

    def output_of(request: Request) -> tuple[PageJob, Path]:
        job = jobs.find(request.path_params["id"])
        return job, folder.find(job.output)

    def download(request: Request) -> Response:
        _, path = output_of(request)
        return FileResponse(path, filename=path.name, media_type="application/octet-stream")

    def opened(request: Request) -> Response:
        _, path = output_of(request)
        return _inline(path, _PLAYED)

    def preview(request: Request) -> Response:
        id_ = request.path_params["id"]
        found = _PREVIEW.fullmatch(id_)
        path = folder.own / "previews" / f"{id_}.mp4"
        return _inline(path, _PLAYED) if found else PlainTextResponse("no such preview\n", 404)

    def report(request: Request) -> Response:
        place = folder.own / "previews" / jobs.find(request.path_params["id"]).id
        return _inline(place / Path(request.path_params["name"]).name, _REPORTED)

    def picture(request: Request) -> Response:
        job = jobs.find(request.path_params["id"])
        data = thumbnail(folder.find(job.source), jobs.progress(job).done)
        return Response(data, 200 if data else 404, media_type="image/jpeg")

    route("/download/{id}", download)
    route("/open/{id}", opened)
    route("/preview/{id}", preview)
    route("/report/{id}/{name}", report)
    route("/thumbnail/{id}", picture)
    return app


def _inline(path: Path, kinds: dict[str, str]) -> Response:
    kind = kinds.get(path.suffix.lower())
    if kind is None or not path.is_file() or path.is_symlink():
        return PlainTextResponse("nothing that is shown here\n", 404)
    return FileResponse(path, media_type=kind, content_disposition_type="inline")


def hosts_of(host: str) -> list[str]:
    """Names under which a server on an address may be asked."""
    local = ["127.0.0.1", "localhost"]
    if is_local(host):
        return local
    name = socket.gethostname()
    own = [name, f"{name}.local"]
    if host in ("0.0.0.0", "::"):
        own += [str(found[4][0]) for found in socket.getaddrinfo(name, None)]
    return [*local, *own, host]


def is_local(host: str) -> bool:
    """Whether only this machine can ask there."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def run(
    folder: Folder,
    *,
    host: str,
    port: int | None,
    password: Password | None,
    certificate: str | None,
    key: str | None,
    jobs_at_once: int,
    ready: Callable[[str], None],
) -> None:
    """Serve until SIGINT or SIGTERM.

    Args:
        folder: served.
        host: address to listen on.
        port: None for the first free one from `FIRST_PORT` on.
        password: that every request needs.
        certificate: PEM file for HTTPS.
        key: its private key.
        jobs_at_once: films that are enlarged at the same time.
        ready: called with the address before requests are answered.

    Raises:
        InputError: another server has the folder.
        OptionsError: the address cannot be listened on, or the certificate cannot be used.
    """
    # Gradio reads these when it is imported: no calls home, uploads in the folder that is served
    os.environ |= {
        "GRADIO_ANALYTICS_ENABLED": "False",
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "GRADIO_TEMP_DIR": str(folder.own / "uploads"),
    }
    import uvicorn

    with Jobs(folder, at_once=jobs_at_once) as jobs, _listening(host, port) as listener:
        app = whole_app(folder, jobs, hosts=hosts_of(host), password=password)
        config = uvicorn.Config(
            app,
            log_level="error",
            ssl_certfile=certificate,
            ssl_keyfile=key,
            timeout_graceful_shutdown=1,
        )
        try:
            config.load()
        except OSError as error:
            raise OptionsError(f"cannot use '{certificate}' and '{key}': {error}") from error
        shown = f"[{host}]" if ":" in host else host
        scheme = "http" if certificate is None else "https"
        ready(f"{scheme}://{shown}:{listener.getsockname()[1]}/")
        uvicorn.Server(config).run([listener])


def whole_app(
    folder: Folder, jobs: Jobs, *, hosts: list[str], password: Password | None
) -> FastAPI:
    """The application with the page; arguments as for `make_app`."""
    import gradio as gr

    from iart.web.page import Page

    page = Page(folder, jobs)
    return gr.mount_gradio_app(
        make_app(folder, jobs, hosts=hosts, password=password),
        page.blocks,
        path="",
        theme=page.theme,
        css=STYLE,
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        pwa=False,
        enable_monitoring=False,
        mcp_server=False,
        allowed_paths=[],
        max_file_size=LARGEST_UPLOAD,
    )


def _listening(host: str, port: int | None) -> socket.socket:
    reason: object = "no port is free"
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for candidate in (port,) if port is not None else range(FIRST_PORT, FIRST_PORT + 100):
        listener = socket.socket(family)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, candidate))
            listener.listen()
        except OSError as error:
            listener.close()
            reason = error.strerror or error
            continue
        return listener
    raise OptionsError(f"cannot listen on {host}: {reason}. Pass another --host or --port")
