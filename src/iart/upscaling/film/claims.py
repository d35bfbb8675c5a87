"""Who makes which segment of a film: asked by every pass over it, answered in one place.

A pass asks when it comes to a segment that it does not know to be its own, and is given the next
one that nobody has. So what is early in the film is finished early, and one question is asked for
each segment, however many workers there are.
"""

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from iart.upscaling.film.job import End
from iart.upscaling.film.segments import Store

MOST_LOSSES = 3
"""How often a segment may be lost with its worker before the work is given up."""


@dataclass(frozen=True, slots=True)
class Claim:
    """Asks for a segment, from the one of this number on."""

    number: int


@dataclass(frozen=True, slots=True)
class Done:
    """Tells that so many more frames were enlarged."""

    frames: int


Message = Claim | Done | End
"""What a pass tells; it is an `End` when it has read the last frame of the film."""


class Claims:
    """Answers what passes tell.

    Attributes:
        end: of the film, once a pass has read it.
    """

    def __init__(self, store: Store, count: Callable[[int], None]) -> None:
        """Take up what is finished in a store; `count` is called with frames that are done."""
        self.end: End | None = None
        self._store, self._count = store, count
        self._lock = threading.Lock()
        self._owners: dict[int, Any] = dict.fromkeys(store.finished_numbers())
        self._losses: Counter[int] = Counter()
        self._error: BaseException | None = None

    def answer(self, owner: object, message: Message) -> int | None:
        """What is told by a pass that belongs to `owner`, which stands for nobody else.

        Returns:
            For a claim, a segment's number; None if nothing is left from there on.

        Raises:
            BaseException: what `stop` was given.
        """
        self.check()
        if isinstance(message, Done):
            self._count(message.frames)
        elif isinstance(message, End):
            self.end = message
        else:
            return self._claimed(owner, message.number)
        return None

    def check(self) -> None:
        """Raise what `stop` was given, if anything."""
        if self._error is not None:
            raise self._error

    @property
    def are_all_given(self) -> bool:
        """Whether every segment of the film was given to somebody."""
        with self._lock:
            return self.end is not None and all(n in self._owners for n in range(self.end.segments))

    def release(self, owner: object) -> list[int]:
        """Let others have what an owner that is lost did not finish.

        Returns:
            Segments that were lost too often by now.
        """
        with self._lock:
            owned = [number for number, by in self._owners.items() if by is owner]
            lost = [number for number in owned if self._store.finished(number) is None]
            for number in lost:
                del self._owners[number]
            self._losses.update(lost)
        if self.end is not None:
            lost = [number for number in lost if number < self.end.segments]
        return [number for number in lost if self._losses[number] >= MOST_LOSSES]

    def stop(self, error: BaseException) -> None:
        """Answer with an error from now on, which ends every pass."""
        self._error = error

    def _claimed(self, owner: object, number: int) -> int | None:
        with self._lock:
            while number in self._owners:
                number += 1
            if self.end is not None and number >= self.end.segments:
                return None
            self._owners[number] = owner
            return number
