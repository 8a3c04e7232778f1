"""What the living processes of a run are just putting or taking."""

from __future__ import annotations

from persistq import _lease

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from persistq._journal.members import Membership
    from persistq._journal.run_state import Member, RunState
    from persistq._queue.transport import InTransit, Transport


def token_of(member: Member) -> str:
    """Return what the process of a lease is called by the carrier that it uses."""
    return str(_lease.read(member.path).get("token", ""))


def living_in_transit(
    transport: Transport, state: RunState, but: Membership | None = None
) -> Mapping[str, InTransit] | None:
    """Return what each living process of the run is just doing.

    Args:
        transport (Transport): What carries the messages.
        state (RunState): The run.
        but (Membership | None): A copy that is left out.

    Returns:
        Mapping[str, InTransit] | None: None where that cannot be seen.
    """
    transit = transport.in_transit()
    if transit is None:
        return None
    left_out = but.tag if but is not None else ""
    tokens = {
        token_of(member)
        for member in state.members_of_run()
        if member.name.tag != left_out and member.is_dead() is not True
    }
    return {token: doing for token, doing in transit.items() if token in tokens}


def are_still_taking(before: Mapping[str, InTransit], now: Mapping[str, InTransit]) -> bool:
    """Tell whether one who was just taking a message has neither recorded it since nor taken none.

    Args:
        before (Mapping[str, InTransit]): As it was.
        now (Mapping[str, InTransit]): As it is. Who is not there any more has died.
    """
    return any(
        token in now and not set(doing.taking).isdisjoint(now[token].taking)
        for token, doing in before.items()
    )
