"""What a call of `run` has done, for a log and for an exit status."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from persistq._journal.failures import FailedWork


class Summary:
    """What one call of `run` has done.

    Attributes:
        done (int): Messages that this call has completed.
        failed (int): Messages that are set aside, in this call or an earlier one, and of which
            nobody has decided.
        outstanding (int): Messages that are neither: the next call does them.
        requeued (int): How many of earlier calls' messages were put again at the start.
        passed_over (int): How many of the messages given were not put, since they were completed,
            set aside or put before.
        seconds (float): How long it took.
        failures (list[FailedWork[Any]]): What is set aside, each with its reason.
    """

    __slots__ = (
        "done",
        "failed",
        "failures",
        "outstanding",
        "passed_over",
        "requeued",
        "seconds",
    )

    def __init__(
        self,
        done: int,
        failures: list[FailedWork[Any]],
        outstanding: int,
        requeued: int,
        passed_over: int,
        seconds: float,
    ) -> None:
        self.done: int = done
        self.failures: list[FailedWork[Any]] = failures
        self.failed: int = len(failures)
        self.outstanding: int = outstanding
        self.requeued: int = requeued
        self.passed_over: int = passed_over
        self.seconds: float = seconds

    @property
    def ok(self) -> bool:
        """bool: Whether nothing is outstanding, and nothing set aside."""
        return not self.failed and not self.outstanding

    @property
    def exit_status(self) -> int:
        """int: 0 where all is well, else 1: for `raise SystemExit(summary.exit_status)`."""
        return 0 if self.ok else 1

    def __str__(self) -> str:
        parts = [f"{self.done} done", f"{self.failed} failed", f"{self.outstanding} outstanding"]
        if self.requeued:
            parts.append(f"{self.requeued} requeued")
        if self.passed_over:
            parts.append(f"{self.passed_over} passed over")
        return f"{', '.join(parts)} in {self.seconds:.1f} s"

    def __repr__(self) -> str:
        return f"<Summary: {self}>"
