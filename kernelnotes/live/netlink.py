"""pyroute2 in a thread of its own: it runs an event loop, which it cannot where one runs already, as in a notebook."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from kernelnotes.live import inside


class Netlink:
    """An object of pyroute2, made in the network namespace `fd`; its methods are called in the thread that made it.

    What a method yields comes as a list.  To be closed.
    """

    def __init__(self, make: Callable[[], Any], fd: int) -> None:
        self._thread = ThreadPoolExecutor(1, "netlink")
        try:
            self._made = self._do(_made_inside, make, fd)
        except BaseException:
            self._thread.shutdown()
            raise

    def __getattr__(self, method: str) -> Callable[..., Any]:
        """A method of pyroute2's object."""
        return partial(self._do, _called, self._made, method)

    def _do(self, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        return self._thread.submit(function, *args, **options).result()

    def close(self) -> None:
        """Close the object, and end the thread."""
        try:
            self._do(_called, self._made, "close")
        finally:
            self._thread.shutdown()


def _made_inside(make: Callable[[], Any], fd: int) -> Any:
    with inside.inside(fd):
        return make()


def _called(made: Any, method: str, *args: Any, **options: Any) -> Any:
    result = getattr(made, method)(*args, **options)
    return list(result) if isinstance(result, Iterator) else result
