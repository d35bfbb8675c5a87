"""The page in a real browser: Debian's Chromium, driven by Playwright; one server after the other.

Without Chromium these tests are left out, but not where CI=true is set.
"""

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Route, expect, sync_playwright

from iart.demo import make_input
from tests.processes import start_iart
from tests.video.clips import make_clip
from tests.web.test_folder import HOSTILE

CHROMIUM = shutil.which("chromium")
PATIENCE_MS = 1_200_000
expect.set_options(timeout=PATIENCE_MS)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.browser,
    pytest.mark.skipif(
        CHROMIUM is None and os.environ.get("CI") != "true",
        reason="no Chromium: apt-get install chromium",
    ),
]


class Server:
    """`iart serve`, which can be killed and started again at the same address."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, 0
        self.start()

    def start(self) -> None:
        words = ["serve", self.folder, "--port", str(self.port)]
        self.process = start_iart(*words, env=os.environ | {"OMP_NUM_THREADS": "1"})
        assert self.process.stderr is not None
        line = self.process.stderr.readline()
        found = re.search(r"open (http://127\.0\.0\.1:(\d+)/)", line)
        assert found, line + self.process.stderr.read()
        self.address, self.port = found[1], int(found[2])

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.communicate()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("videos")
    with resources.as_file(resources.files("iart") / "assets" / "demo.mp4") as original:
        make_input(original, folder / "demo.mkv")
    make_clip(folder / "film.mkv", frames=240, width=112, height=80, audio=["eng"])
    make_clip(folder / HOSTILE, frames=5)
    (folder / "out.mkv").symlink_to("/etc/hostname")
    server = Server(folder)
    yield server
    server.stop()


@pytest.fixture
def page(browser: Browser, server: Server) -> Iterator[Page]:
    with opened(browser, server) as page:
        yield page


class opened:  # noqa: N801  # a context manager
    """A page that asks nobody but the server, and runs into no error."""

    def __init__(self, browser: Browser, server: Server, **options) -> None:
        self.context = browser.new_context(
            **{"viewport": {"width": 1280, "height": 900}, **options}
        )
        self.context.set_default_timeout(PATIENCE_MS)
        self.server, self.foreign, self.broken = server, [], []

    def __enter__(self) -> Page:
        page = self.context.new_page()

        def look(route: Route) -> None:
            if not route.request.url.startswith((self.server.address, "data:", "blob:")):
                self.foreign.append(route.request.url)
            route.continue_()

        page.route("**/*", look)
        page.on("pageerror", lambda error: self.broken.append(str(error)))
        page.on("dialog", lambda dialog: self.broken.append(dialog.message))
        page.goto(self.server.address)
        page.locator("#source input").wait_for()
        return page

    def __exit__(self, kind: object, *_: object) -> None:
        self.context.close()
        if kind is None:
            assert not self.foreign
            assert not self.broken


def choose(page: Page, name: str) -> None:
    page.locator("#source input").fill(name)
    page.get_by_role("option", name=name, exact=True).click()
    expect(page.locator("#found caption")).to_have_text(name, timeout=PATIENCE_MS)


def test_choose_preview_and_slide(page: Page, tmp_path: Path):
    choose(page, "demo.mkv")
    expect(page.locator("#found")).to_contain_text("640x352")
    told = re.search(r"\(([\d.]+) s\)", page.locator("#found").inner_text())
    assert told
    length = page.locator("#length input[type=number]")
    expect(length).to_have_value(str(min(float(told[1]), 1.0)).removesuffix(".0"))
    length.fill("5")
    page.locator("#preview").click()
    page.locator("#viewer").get_by_role("button", name="Stop").click()
    expect(page.locator("#viewer")).to_have_text("")
    length.fill("0.2")
    page.locator("#preview").click()
    videos = page.locator("#viewer video")
    expect(videos).to_have_count(2, timeout=PATIENCE_MS)
    for index in (0, 1):
        page.wait_for_function(
            "i => document.querySelectorAll('#viewer video')[i].readyState >= 2", arg=index
        )
    size = "v => [v.videoWidth, v.videoHeight, Math.round(10 * v.duration)]"
    assert videos.nth(0).evaluate(size) == videos.nth(1).evaluate(size) == [640, 352, 2]
    page.locator("#viewer input[type=range]").focus()
    for _ in range(10):
        page.keyboard.press("ArrowRight")
    at = "document.querySelector('.before-after').style.getPropertyValue('--at')"
    assert page.evaluate(at) == "60%"
    page.locator("#viewer .play").click()
    page.wait_for_function("document.querySelectorAll('#viewer video')[1].currentTime > 0")
    picture = os.environ.get("README_PICTURE", tmp_path / "serve.png")  # docs/images/serve.png
    page.screenshot(path=picture, full_page=True)


def test_errors_stand_at_their_fields(page: Page, server: Server):
    choose(page, "film.mkv")
    page.locator("#option-size input").fill("big")
    page.keyboard.press("Enter")
    page.locator("#start").click()
    expect(page.locator("#error [role=alert]")).to_contain_text(
        "unknown size 'big'", timeout=PATIENCE_MS
    )
    expect(page.locator("#option-size")).to_contain_text("unknown size 'big'")
    page.locator("#option-size input").fill("2x")
    page.keyboard.press("Enter")
    page.locator("#output textarea, #output input").first.fill("../out.mkv")
    page.locator("#start").click()
    expect(page.locator("#error")).to_contain_text("pass a name in this folder")
    assert not (server.folder.parent / "out.mkv").exists()


def test_hostile_names_and_links(page: Page):
    page.locator("#source input").click()
    shown = page.get_by_role("option").all_text_contents()
    assert [text.removeprefix("✓").strip() for text in shown] == [HOSTILE, "demo.mkv", "film.mkv"]
    choose(page, HOSTILE)
    assert page.locator("img[src=x]").count() == 0


def test_a_job_survives_the_death_of_its_server(browser: Browser, server: Server, tmp_path: Path):
    expected = tmp_path / "film_x4.mkv"
    command = ["upscale", server.folder / "film.mkv", "-o", expected]
    reference = start_iart(*command)
    with opened(browser, server) as page:
        choose(page, "film.mkv")
        page.locator("#start").click()
        running = page.locator("#jobs li[data-state=running]")
        expect(running.locator("p").first).to_contain_text(re.compile(r"[1-9]\d* of 240 frames"))
        with opened(browser, server) as other:  # a second tab
            expect(other.locator("#jobs li[data-state=running]")).to_have_count(1)
            server.kill()
    server.start()
    with opened(browser, server) as page:
        expect(page.locator("#jobs li[data-state=running]")).to_have_count(1)
        page.get_by_role("button", name="Pause: film_x4.mkv").press("Enter")
        expect(page.locator("#jobs li[data-state=paused]")).to_have_count(1, timeout=PATIENCE_MS)
        assert not (server.folder / "film_x4.mkv").exists()
        page.get_by_role("button", name="Go on: film_x4.mkv").click()
        expect(page.locator("#jobs li[data-state=done]")).to_have_count(1, timeout=PATIENCE_MS)
        with page.expect_download() as download:
            page.get_by_role("link", name="Download").click()
        reference.communicate()
        assert Path(download.value.path()).read_bytes() == expected.read_bytes()
        assert (server.folder / "film_x4.mkv").read_bytes() == expected.read_bytes()


def test_compare(page: Page):
    page.get_by_role("tab", name="Compare").click()
    for label in ("First", "Second"):
        page.get_by_label(label, exact=True).fill("demo.mkv")
        page.keyboard.press("Enter")
        expect(page.get_by_label(label, exact=True)).to_have_value("demo.mkv")
    page.locator("#compare").click()
    report = page.frame_locator("#report iframe")
    expect(report.locator("h2").first).to_have_text("Scores", timeout=PATIENCE_MS)


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nobody_is_left_out(browser: Browser, server: Server, width: int, scheme: str, tmp_path):
    """No findings of axe-core at A and AA; nothing wider than the window."""
    axe = pytest.importorskip("axe_playwright_python", reason="axe-core is not installed")
    script = (Path(axe.__file__).parent / "axe.min.js").read_text()
    options = {"viewport": {"width": width, "height": 900}, "color_scheme": scheme}
    with opened(browser, server, **options) as page:
        choose(page, HOSTILE)
        for heading in ("Input", "Network, speed and memory"):
            page.get_by_role("button", name=heading).click()
        page.screenshot(path=tmp_path / f"{width}-{scheme}.png", full_page=True)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.evaluate(script)
        tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]
        found = page.evaluate("tags => axe.run(document, {runOnly: tags})", tags)
        told = [
            (entry["id"], node["html"][:120])
            for entry in found["violations"]
            for node in entry["nodes"]
        ]
        assert not told


def test_the_server_needs_a_password_elsewhere(tmp_path: Path):
    command = ["serve", tmp_path, "--host", "0.0.0.0", "--port", "0"]
    done = start_iart(*command, stdin=subprocess.DEVNULL)
    assert "needs a password" in done.communicate()[1]
    assert done.returncode == 1
