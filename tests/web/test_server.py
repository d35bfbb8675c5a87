"""Who may ask the server for what; without the page, which `test_browser.py` opens."""

from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from iart.web import server
from iart.web.folder import Folder
from iart.web.jobs import Jobs
from iart.web.server import Password, hosts_of, is_local, make_app

BASE = "http://127.0.0.1:7860"


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


@pytest.fixture
def client(folder: Folder) -> Iterator[TestClient]:
    with asked(folder) as client:
        yield client


def asked(folder: Folder, needed: Password | None = None) -> TestClient:
    app = make_app(folder, Jobs(folder), hosts=hosts_of("127.0.0.1"), password=needed)
    return TestClient(app, base_url=BASE)


@pytest.mark.parametrize("host", ["evil.example", "evil.example:7860", "127.0.0.1.evil.example"])
def test_other_hosts_are_refused(client: TestClient, host: str):
    assert client.get("/thumbnail/x", headers={"Host": host}).status_code == 400


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "http://127.0.0.1:80"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/gradio_api/upload"), ("GET", "/download/x"), ("POST", "/")]
)
def test_other_origins_are_refused(client: TestClient, method: str, path: str, headers: dict):
    assert client.request(method, path, headers=headers, content=b"x").status_code == 403


def test_answers_carry_a_policy(client: TestClient):
    answer = client.get("/download/x", headers={"Origin": BASE})
    assert answer.status_code == 404
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "default-src 'self'" in client.get("/").headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file=http://evil.example/",
        "/gradio_api/%66ile=/etc/passwd",
        "/gradio_api/proxy=http://evil.example/",
    ],
)
def test_gradio_serves_no_files(client: TestClient, path: str):
    assert client.get(path).status_code == 403


def test_results_are_downloads(client: TestClient, folder: Folder):
    jobs = Jobs(folder)
    (folder.root / "page.mp4").write_bytes(b"<script>alert(1)</script>")
    job = jobs.add("film", "in.mkv", "page.mp4", [])
    answer = client.get(f"/download/{job.id}")
    assert answer.headers["content-disposition"] == 'attachment; filename="page.mp4"'
    assert answer.headers["content-type"] == "application/octet-stream"
    assert client.get(f"/open/{job.id}").headers["content-type"] == "video/mp4"
    part = client.get(f"/open/{job.id}", headers={"Range": "bytes=0-6"})
    assert (part.status_code, part.content) == (206, b"<script")
    html = jobs.add("film", "in.mkv", "page.html", [])
    (folder.root / "page.html").write_text("<script>alert(1)</script>")
    assert client.get(f"/open/{html.id}").status_code == 404


def test_nothing_outside_is_served(client: TestClient, folder: Folder, tmp_path_factory):
    secret = tmp_path_factory.mktemp("elsewhere") / "secret.mp4"
    secret.write_text("secret")
    (folder.root / "link.mp4").symlink_to(secret)
    jobs = Jobs(folder)
    for name in ("link.mp4", f"../{secret.parent.name}/secret.mp4", str(secret)):
        job = jobs.add("film", name, name, [])
        for route in ("download", "open", "thumbnail"):
            assert client.get(f"/{route}/{job.id}").status_code == 404
    for path in (
        "/preview/..",
        "/preview/%2e%2e%2fjobs",
        "/report/x/..%2f..%2fjobs",
        "/download/..",
    ):
        assert client.get(path).status_code == 404


def test_uploads_and_forms_are_limited(client: TestClient, folder: Folder, monkeypatch):
    monkeypatch.setattr(server, "LARGEST_UPLOADS", 100)
    (folder.own / "uploads" / "old.mkv").write_bytes(bytes(60))
    answers = [client.post("/gradio_api/upload", content=bytes(n)).status_code for n in (40, 41)]
    assert answers == [404, 413]  # the page is not there: what is let through is not found
    assert client.post("/gradio_api/upload", content=iter([b"x"])).status_code == 411
    assert client.post("/gradio_api/queue/join", content=bytes(2**20 + 1)).status_code == 413


def test_a_form_names_only_files_that_were_uploaded(client: TestClient, folder: Folder):
    """Gradio, mounted into an application, would copy what a client names, and fetch addresses."""
    (folder.own / "uploads" / "link.mkv").symlink_to("/etc/passwd")
    uploaded = str(folder.own / "uploads" / "a" / "new.mkv")
    foreign = ["/etc/passwd", "http://evil.example/a.mkv", f"{uploaded}/../../../../a.mkv", ""]
    foreign += [str(folder.own / "uploads" / "link.mkv"), str(folder.root / "a.mkv")]
    for path, status in [(uploaded, 404), *((path, 403) for path in foreign), (3, 400)]:
        for data in ([{"path": path}], [[{"value": {"path": path, "meta": {}}}]]):
            answer = client.post("/gradio_api/queue/join", json={"data": data})
            assert answer.status_code == status, (path, answer.text)
    for place in ("run/upload", "api/upload/", "call/upload"):  # Gradio's names of functions
        form = {"fn_index": 0, "data": [{"path": "/etc/passwd"}]}
        assert client.post(f"/gradio_api/{place}", json=form).status_code == 403
    for body in (b"", b"path", b"[" * 100_000):
        assert client.post("/gradio_api/queue/join", content=body).status_code == 400


def test_a_password_whatever_the_name(folder: Folder, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(server, "WRONG_PASSWORD_SECONDS", 0)
    client = asked(folder, Password("right: one"))

    def status(text: str) -> int:
        header = f"Basic {b64encode(text.encode()).decode()}"
        return client.get("/download/x", headers={"Authorization": header}).status_code

    assert client.get("/download/x").status_code == 401
    assert [status(text) for text in ("a:wrong", "a", "a:", ":right: one", "b:right: one")] == [
        *(401, 401, 401, 404, 404)
    ]
    assert status("a:wrong") == 401
    assert client.get("/", headers=[(b"Authorization", b"Basic \xe9")]).status_code == 401


def test_addresses():
    assert [is_local(host) for host in ("127.0.0.1", "::1", "localhost")] == [True] * 3
    assert not is_local("0.0.0.0")
    assert not is_local("127.0.0.1.evil.example")
    assert "192.0.2.7" in hosts_of("192.0.2.7")
    assert "*" not in hosts_of("0.0.0.0")
