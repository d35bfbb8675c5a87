"""A film on the workers of a cluster, which several films may share."""

import logging
import platform
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from torch import nn

from iart.errors import DeviceError, WeightsError
from iart.parallel.workers import ClusterWorkers, WorkerLostError
from iart.upscaling.budget import Tiling, device_of
from iart.upscaling.film.claims import Claims
from iart.upscaling.film.job import model_fingerprint, precision_asked
from iart.upscaling.film.plan import UpscalePlan, film_tiling
from iart.upscaling.film.request import UpscaleRequest
from iart.upscaling.film.segments import SHORTEST
from iart.upscaling.film.ship import Shipment
from iart.upscaling.film.worker import Work
from iart.weights import load_model
from iart.weights.load import from_anywhere

_log = logging.getLogger(__name__)

Result = TypeVar("Result")

_NOT_KNOWN = 2**31
"""Frames of a film of which nobody has come to the end: more than any has."""


@dataclass(frozen=True)
class Spread:
    """What takes the place of devices of this machine.

    Attributes:
        workers: of the cluster; they have loaded the model.
        priority: of the film among others that are enlarged at the same time; smaller ones first.
        ship: whether the source is sent to the workers, and segments back; else they share a disk.
    """

    workers: ClusterWorkers[nn.Module]
    priority: int = 0
    ship: bool = False

    def identity(self, model: nn.Module) -> dict[str, str]:
        """What the bytes of the output depend on besides `UpscalePlan.identity`.

        Raises:
            WeightsError: workers have other weights than `model`.
        """
        node, fingerprint, precision = self._one(_identified)
        if fingerprint != (ours := model_fingerprint(model)):
            raise WeightsError(
                f"{node} has other weights ({fingerprint}) than this machine ({ours}); all must be"
                " alike"
            )
        return {"precision": precision}

    def tiling(self, plan: UpscalePlan) -> Tiling:
        """What the model is shown at once, so that it fits the worker with the least memory."""
        weakest = self.workers.weakest()
        height, width = plan.info.height, plan.info.width
        return self._one(partial(_planned, plan.request, height, width, weakest))

    def enlarge(self, work: Work, claims: Claims, frames: int | None) -> None:
        """Enlarge what is not kept yet; `frames` of the film, if that is known.

        Raises:
            DeviceError: a segment was lost with its worker too often, or no worker is left.
            IARTError: what stopped a worker otherwise.
        """
        passes: dict[Future[None], object] = {}
        shipment = Shipment.of(work, self.workers.run) if self.ship else None
        share = work.share if shipment is None else shipment.share
        answer = claims.answer if shipment is None else partial(shipment.answer, claims)
        self.workers.uses_scratch |= self.ship

        def begin() -> None:
            owner = object()
            future = self.workers.submit(share, partial(answer, owner), priority=self.priority)
            passes[future] = owner

        def withdraw() -> None:
            """Passes that no worker has begun."""
            for future in [each for each in passes if each.cancel()]:
                del passes[future]

        try:
            for _ in range(min(self.workers.size, 1 + (frames or _NOT_KNOWN) // SHORTEST)):
                begin()
            while passes:
                for future in wait(passes, return_when=FIRST_COMPLETED).done:
                    owner = passes.pop(future)
                    error = future.exception()
                    if isinstance(error, WorkerLostError):
                        _log.warning("%s; others do what it had begun", error)
                        if too_often := claims.release(owner):
                            numbers = ", ".join(map(str, too_often))
                            what = f"segment {numbers} was lost with its worker too often"
                            raise DeviceError(f"{what}; {_missing(work, claims)}") from error
                        begin()
                    elif isinstance(error, DeviceError):
                        raise DeviceError(f"{error}; {_missing(work, claims)}") from error
                    elif error is not None:
                        raise error
                    elif claims.are_all_given:
                        withdraw()
        except BaseException as error:
            claims.stop(error)
            withdraw()
            wait(passes)  # so that nothing is written any more when the job is left
            raise
        finally:
            if shipment is not None:
                self.workers.remove_scratch(shipment.name)

    def _one(self, task: Callable[[nn.Module, Any], Result]) -> Result:
        """Have any worker do something small."""
        while True:
            try:
                return self.workers.submit(task, priority=-1).result()
            except WorkerLostError:
                continue


def loader(name: str, precision: str, backend: str) -> Callable[[], nn.Module]:
    """A function that loads a model where a worker is; see `iart.weights.load_model`."""
    return partial(load_model, from_anywhere(name), "auto", precision, backend=backend)


def describe(model: nn.Module) -> str:
    """What must be the same in all workers of a film: weights, precision, kind of device."""
    precision = getattr(model, "precision", "float32")
    return f"{model_fingerprint(model)} in {precision} on {device_of(model).type}"


def _identified(model: nn.Module, _: Any) -> tuple[str, str, str]:
    """As a task of a worker."""
    return platform.node(), model_fingerprint(model), precision_asked(model)


def _planned(
    request: UpscaleRequest, height: int, width: int, at_most: int | None, model: nn.Module, _: Any
) -> Tiling:
    """As a task of a worker."""
    return film_tiling(model, request, height, width, at_most=at_most)


def _missing(work: Work, claims: Claims) -> str:
    """Which frames are not there, in words."""
    frames = _NOT_KNOWN if claims.end is None else claims.end.frames
    listed = (
        f"{each.start} and later" if each.stop == _NOT_KNOWN else f"{each.start} to {each.stop - 1}"
        for each in work.store.missing(frames)
    )
    return f"frames that are missing: {', '.join(listed) or 'none'}"
