"""What machines without a shared disk are sent, and send back, in one process; see test_cluster."""

import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from iart.errors import InputError, OutputError
from iart.model.bicubic import Bicubic
from iart.upscaling.film import spread
from iart.upscaling.film.job import JOB_FILE, open_job, source_fingerprint
from iart.upscaling.film.plan import plan_upscale
from iart.upscaling.film.request import UpscaleRequest
from iart.upscaling.film.spread import Shipment
from iart.upscaling.film.worker import Claims, Work
from tests.video.clips import make_scenes, picture, save_image

FRAMES = 100


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The disk of another machine; files have many pieces."""
    folder = tmp_path / "there"
    folder.mkdir()
    monkeypatch.setattr(spread, "PIECE_BYTES", 1000)
    monkeypatch.setattr(spread, "scratch", lambda run, name: nullcontext(folder))  # which asks Ray
    return folder


def film(folder: Path) -> UpscaleRequest:
    source = make_scenes(folder / "in.mkv", lengths=(60, FRAMES - 60))
    return UpscaleRequest(source, folder / "out.mkv", preset="ultrafast")


def pictures(folder: Path) -> UpscaleRequest:
    (folder / "in").mkdir()
    for index in range(FRAMES):
        path = folder / "in" / f"{index}.png"
        save_image(path, picture(index, 32, 16, index // 60), pixel_format="rgb24")
    return UpscaleRequest(folder / "in" / ".." / "in", folder / "out")


@contextmanager
def working(request: UpscaleRequest) -> Iterator[Work]:
    with plan_upscale(request) as plan, open_job(plan.place(), {}, overwrite=False) as job:
        content = source_fingerprint(request.source)
        yield Work.of(plan, job, plan.tiling(Bicubic(), processes=1), content)


def share(work: Work | Shipment, claims: Claims) -> None:
    answer = claims.answer if isinstance(work, Work) else partial(work.answer, claims)
    work.share(Bicubic(), partial(answer, object()))


def files(work: Work) -> dict[str, bytes]:
    folder = work.store.folder
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


@pytest.mark.parametrize("make", [film, pictures])
def test_the_source_goes_in_pieces_and_segments_come_back(make, tmp_path: Path, there: Path):
    with working(make(tmp_path)) as work:
        share(work, Claims(work.store, lambda frames: None))
        here = files(work)
        assert work.store.is_complete(FRAMES)
        shutil.rmtree(work.store.folder)
        work.store.folder.mkdir()
        shipment = Shipment.of(work, "run")
        claims = Claims(work.store, lambda frames: None)
        share(shipment, claims)
        assert files(work) == here
        assert max(len(content) for content in here.values()) > 2 * spread.PIECE_BYTES
    assert claims.are_all_given
    left = [path for path in there.rglob("*") if path.is_file()]
    assert {path.read_bytes() for path in left} >= {f.path.read_bytes() for f in shipment.files}
    assert not [path for path in left if path.name == JOB_FILE or path.suffix == ".packets"]


def test_a_copy_is_sent_once(tmp_path: Path, there: Path):
    with working(film(tmp_path)) as work:
        shipment = Shipment.of(work, "run")
        share(shipment, Claims(work.store, lambda frames: None))
        renamed = work.request.source
        assert isinstance(renamed, Path)
        renamed.rename(tmp_path / "elsewhere.mkv")
        share(shipment, Claims(work.store, lambda frames: None))


def test_a_source_that_changes_on_the_way(tmp_path: Path, there: Path):
    with working(film(tmp_path)) as work:
        shipment = Shipment.of(work, "run")
        assert isinstance(work.request.source, Path)
        with work.request.source.open("ab") as file:
            file.write(b"more")
        with pytest.raises(InputError, match="has changed while it was sent to other machines"):
            share(shipment, Claims(work.store, lambda frames: None))


def test_a_copy_that_was_touched(tmp_path: Path, there: Path):
    with working(film(tmp_path)) as work:
        shipment = Shipment.of(work, "run")
        other = replace(shipment, work=replace(shipment.work, content="another"))
        with pytest.raises(InputError, match="has another"):
            share(other, Claims(work.store, lambda frames: None))


def test_a_machine_that_lacks_the_source_or_the_job_is_named(tmp_path: Path):
    with working(film(tmp_path)) as work:
        claims, here = Claims(work.store, lambda frames: None), platform.node()
        lost = replace(work, folder=tmp_path / "lost")
        with pytest.raises(OutputError, match=f"{here} does not see '{tmp_path}/lost'"):
            share(lost, claims)
        assert isinstance(work.request.source, Path)
        work.request.source.unlink()
        with pytest.raises(InputError, match=f"{here} cannot read '{tmp_path}/in.mkv'"):
            share(work, claims)
