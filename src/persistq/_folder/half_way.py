"""What of a group is another's, who has claimed its first files and not yet the rest.

Files are claimed in the order of their names, so whoever has the first has the right to all. A
later file of a name that he has must not be handed out with the rest of his.

Of one that has died the rest is claimed for him, by names of his, one file after the other. Killed
in between: he has some more, and the next to look goes on. Whoever reclaims puts all back as one.
"""

from __future__ import annotations

import contextlib
import logging
import os

from persistq import _fs, _lease
from persistq._folder import identity, names
from persistq._folder.publish import publish

TYPE_CHECKING = False
if TYPE_CHECKING:
    from persistq._folder.groups import Groups
    from persistq._folder.identity import Claimer
    from persistq._folder.watch import Watch

_log = logging.getLogger("persistq")


def anothers(
    wanted: list[str], groups: Groups, watch: Watch, member: Claimer, extension: str
) -> tuple[list[str], list[str]]:
    """Give the files of a group that are not to be claimed, for another is about to.

    Args:
        wanted (list[str]): The files of a complete group, in order.
        groups (Groups): What waits, and what others have claimed.
        watch (Watch): Told to look anew where something was claimed for a dead one.
        member (Claimer): By which this process takes part in the folder.
        extension (str): The message extension with its leading dot.

    Returns:
        tuple[list[str], list[str]]: All of them in the first where that ends by itself; in the
        second where nobody knows whether he lives.
    """
    late: list[str] = []
    unknown: list[str] = []
    folder = member.folder
    for group, claimer, had in groups.others_parts(wanted):
        claimed = {
            name: os.path.join(folder, names.wip_name(name, extension, claimer))
            for name in had.values()
        }
        his = [name for name in sorted(claimed) if os.path.lexists(claimed[name])]
        if not his:
            groups.forget(group, claimer)
            continue
        items = {item for item, name in had.items() if name in his}
        missing = [name for name in wanted if groups.item_of(name) not in items]
        if not missing or his[-1] > missing[0]:
            continue  # who has only later ones has finished the others
        if any(_fs.is_same_file(claimed[name], os.path.join(folder, name)) for name in his):
            continue  # on its way back to its name
        pid, digits = claimer.split("_")[:2]
        dead, said = identity.Verdicts(folder).of(int(pid), digits)
        if (
            said is None
            or not identity.has_groups(said)
            or said.get("messageExtension") != extension
        ):
            continue
        if dead is None:
            unknown = wanted
            continue
        late = wanted
        if dead:
            _log.warning(
                "%s: process %s died while it claimed a group: %s stays with %s",
                folder,
                pid,
                ", ".join(missing),
                ", ".join(his),
            )
            lease = os.path.join(folder, names.lease_name(int(pid), digits))
            rest = {name: names.wip_name(name, extension, claimer) for name in missing}
            _claim_for_the_dead(lease, [claimed[name] for name in his], rest, member)
            watch.distrust()
    return (late, []) if late else ([], unknown)


def _claim_for_the_dead(lease: str, his: list[str], rest: dict[str, str], member: Claimer) -> None:
    # One at a time: where a rename takes two steps, a later file could come between them.
    fd = _lease.lock(lease)
    if fd < 0:
        return
    try:
        if all(map(os.path.lexists, his)):
            for name, wip in rest.items():
                target = os.path.join(member.folder, wip)
                if not os.path.lexists(target):
                    with contextlib.suppress(OSError):
                        publish(os.path.join(member.folder, name), target, member, name)
    finally:
        os.close(fd)
