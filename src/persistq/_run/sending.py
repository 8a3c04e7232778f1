"""Whether a function can be sent to a worker process, asked before anything is put."""

from __future__ import annotations

import functools
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


_REMEDY = (
    "Expected a function defined at the top of a module that the workers can import: move it "
    'there, or, where this system has it, pass context="fork".'
)


def name_of(function: Any) -> str | None:
    """Return the name of a function, to call its journals after; None where it has none."""
    while isinstance(function, functools.partial):
        function = function.func
    name = getattr(function, "__name__", None) or type(function).__name__
    return name if isinstance(name, str) and name.isidentifier() else None


def check(function: Any, start_method: str) -> None:
    """Refuse a function that worker processes could not be given.

    Args:
        function ((message) -> object): The function.
        start_method (str): How the processes are started. A forked one has all functions already.

    Raises:
        TypeError: It cannot be sent.
    """
    if start_method == "fork":
        return
    check_pickling(function, f"started by {start_method!r}")
    inner = function
    while isinstance(inner, functools.partial):
        inner = inner.func
    module = getattr(inner, "__module__", None)
    if module == "__main__" and not _can_import_main():
        raise TypeError(
            f"{function!r} is defined in a notebook, or at a prompt, which a worker process "
            f"started by {start_method!r} cannot import. {_REMEDY}"
        )


def check_pickling(function: Any, of_what: str) -> None:
    """Refuse a function that cannot be pickled.

    Args:
        function ((message) -> object): The function.
        of_what (str): Whose worker processes it is for.

    Raises:
        TypeError: It cannot be pickled.
    """
    from multiprocessing.reduction import ForkingPickler

    try:
        ForkingPickler.dumps(function)
    except Exception as error:
        raise TypeError(
            f"{function!r} cannot be sent to a worker process {of_what} "
            f"({type(error).__name__}: {error}). {_REMEDY}"
        ) from error


def _can_import_main() -> bool:
    main = sys.modules["__main__"]
    if getattr(main, "__spec__", None) is not None:
        return True  # python -m
    path = getattr(main, "__file__", None)
    return path is not None and os.path.exists(path)
