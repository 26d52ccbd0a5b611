"""The only place where users' own callbacks hear of a run, and may ask it to stop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from fastsoftmax.errors import OptionError
from fastsoftmax.training.callbacks import Callback, Event

EVENTS = ("on_start", "on_span", "on_epoch", "on_pass", "on_end")


class Hooks(Callback):
    """Hands the events of a run on as Progress, to each object that has a method of that name."""

    def __init__(self, callbacks: Sequence[Any]) -> None:
        """Look for the methods; callbacks: as `checked` returned them."""
        self._methods: dict[str, list[Callable[..., Any]]] = {
            name: [getattr(each, name) for each in callbacks if hasattr(each, name)]
            for name in EVENTS
        }

    def on_start(self, event: Event) -> bool:
        """Hand it on."""
        return self._tell("on_start", event)

    def on_span(self, event: Event) -> bool:
        """Hand it on."""
        return self._tell("on_span", event)

    def on_epoch(self, event: Event) -> bool:
        """Hand it on."""
        return self._tell("on_epoch", event)

    def on_pass(self, event: Event) -> bool:
        """Hand it on."""
        return self._tell("on_pass", event)

    def on_end(self, event: Event) -> bool:
        """Hand it on."""
        return self._tell("on_end", event)

    def _tell(self, name: str, event: Event) -> bool:
        """Call all methods of a name; return whether one of them returned True."""
        answers = [method(event.progress) for method in self._methods[name]]
        return any(answer is True for answer in answers)


def checked(callbacks: Any, report: Any = None) -> list[Any]:
    """Return callbacks as a list; raise OptionError for what is none, or nothing to report to."""
    if report is not None and not callable(report):
        raise OptionError(f"report is a function that is handed a Progress, got {report!r:.100}")
    if callbacks is None:
        return []
    if not isinstance(callbacks, list | tuple):
        raise OptionError(f"callbacks is a list of objects, got {callbacks!r:.100}")
    for each in callbacks:
        if isinstance(each, type):
            raise OptionError(
                f"callbacks has the class {each.__name__}: give an object of it, {each.__name__}()"
            )
        if not any(callable(getattr(each, name, None)) for name in EVENTS):
            raise OptionError(
                f"callbacks has {each!r:.100}, which has none of the methods {', '.join(EVENTS)}:"
                " give it one, or hand a function over as report="
            )
    return list(callbacks)
