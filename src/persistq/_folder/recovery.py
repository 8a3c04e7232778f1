"""How a folder gets back in order: reset, purge, and what dead processes left behind."""

from __future__ import annotations

import logging
import os
import stat

from persistq import _fs
from persistq._folder import control, failing, identity, names, notes, together
from persistq._folder.listing import Listing
from persistq._folder.moving import move_to
from persistq._folder.publish import publish

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from persistq._folder.finishing import Finishing
    from persistq._folder.identity import Claimer, Verdicts

_log = logging.getLogger("persistq")


def purge_control_messages(folder: str) -> None:
    """Remove all control files, whoever wrote them; folders of such names stay."""
    for name in os.listdir(folder):
        if control.is_control(name):
            path = os.path.join(folder, name)
            try:
                if not stat.S_ISDIR(os.lstat(path).st_mode):
                    os.unlink(path)  # of a link the link itself
            except FileNotFoundError:
                pass  # another producer resets too


def reset_processing_files(member: Claimer, done_directory: str | None = None) -> list[str]:
    """Give all claimed files their own names back, whoever claimed them.

    One whose own name is taken by now keeps the other, and that is logged. Files of another
    extension's queue in the same folder are left to it, where their lease says so. Killed in
    between, some are reset and the next call resets the rest.

    Args:
        member (Claimer): By which this process takes part in the folder.
        done_directory (str | None): Where finished files go, and may be half written.

    Returns:
        list[str]: Paths of the files that are waiting again, in order.
    """
    folder, extension = member.folder, member.facts["messageExtension"]
    listing = Listing(folder, extension)
    verdicts = identity.Verdicts(folder)
    restored = _finish_intents(listing, member, verdicts, member.staged, everybodys=True)
    for name, pid, digits, stem in _claimed(folder):
        said = verdicts.of(pid, digits)[1]
        original = _original(stem, said, member)
        if original is not None:
            path = restore(member, name, original)
            if path is not None:
                restored.append(path)
    for name in listing.notes:
        notes.forget(folder, name)  # a new run: what failed before has its chances again
    _tidy(member, verdicts, extension, done_directory)
    return sorted(restored)


def _original(stem: str, said: dict[str, Any] | None, member: Claimer) -> str | None:
    """Give a claimed file's name as a message; None where it is another queue's."""
    own: str = member.facts["messageExtension"]
    if said is None or "messageExtension" not in said:
        return names.original_name(stem, own, bool(member.facts.get("ignoreCase")))
    if said["messageExtension"] != own:
        return None
    return names.original_name(stem, own, said.get("ignoreCase") is True)


def restore(member: Claimer, wip: str, original: str) -> str | None:
    """Give one claimed file its own name back; None, and a warning, when that is not possible."""
    source, target = os.path.join(member.folder, wip), os.path.join(member.folder, original)
    try:
        publish(source, target, member)
    except FileNotFoundError:
        return None  # finished, or restored by another process, meanwhile
    except FileExistsError:
        if _fs.is_same_file(source, target):
            # Killed between link and unlink (see publish): one file with both names.
            _fs.remove(source)
            return target
        _log.warning(
            "%s keeps this name: a file named %s is waiting already. Move one of the two away, "
            "then reset again.",
            source,
            original,
        )
        return None
    except PermissionError as error:
        _log.warning("%s cannot be put back: %s", source, error)
        return None
    return target


def _claimed(folder: str) -> Iterator[tuple[str, int, str, str]]:
    """Give name, process id, ten digits and stem of each claimed file, in order of their names."""
    with os.scandir(folder) as entries:
        found = sorted(entry.name for entry in entries if entry.name.endswith(names.WIP))
    for name in found:
        parts = names.parse_wip(name)
        if parts is None:
            continue
        try:
            mode = os.lstat(os.path.join(folder, name)).st_mode
        except OSError:
            continue
        if stat.S_ISREG(mode) or stat.S_ISLNK(mode):
            yield name, *parts


def purge(folder: str) -> None:
    """Remove everything in the folder, for ever; a link goes, what it points to stays."""
    import shutil

    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        try:
            if stat.S_ISDIR(os.lstat(path).st_mode):
                # rmtree follows no link, also when one takes a folder's place meanwhile.
                shutil.rmtree(path)
            else:
                os.unlink(path)  # of the leases of the living, too: they make theirs anew
        except FileNotFoundError:
            pass  # consumers are at work, or another purge


def reclaim_abandoned(queue: Finishing[Any], max_attempts: int | None) -> list[str]:
    """Give the files that dead processes had claimed their own names back.

    Args:
        queue (Finishing): The queue.
        max_attempts (int | None): A file that so many processes have died with is set aside.

    Returns:
        list[str]: Paths of the files that are waiting again, in order.
    """
    member, folder = queue._member, queue.path
    listing = Listing(folder, queue._extension, queue.ignore_case)
    verdicts = identity.Verdicts(folder)
    restored = _finish_intents(listing, member, verdicts, queue._staged)
    groups: dict[tuple[int, str], list[tuple[str, str]]] = {}
    for name, pid, digits, stem in _claimed(folder):
        if names.wip_prefix(pid, digits) == member.prefix:
            continue
        dead, said = verdicts.of(pid, digits)
        original = _original(stem, said, member) if dead else None
        if original is None:
            continue
        if said is not None and identity.has_groups(said):
            groups.setdefault((pid, digits), []).append((name, original))
        elif said is not None and said.get("role") == identity.PUBLISHER:
            # On its way to its name, so nobody had begun it.
            restored += filter(None, [restore(member, name, original)])
        elif _may_be_tried_again(queue, name, original, max_attempts):
            restored += filter(None, [restore(member, name, original)])
    for owner, files in groups.items():
        was_begun = (verdicts.of(*owner)[1] or {}).get("role") == identity.GROUPS
        restored += _restore_together(queue, files, max_attempts, was_begun)
    directories = (queue.task_done_directory, queue.task_failed_directory)
    _tidy(member, verdicts, queue._extension, *directories)
    return sorted(restored)


def _attempts(queue: Finishing[Any], wip: str, original: str) -> int:
    """Give how many processes have died with a file, this time counted."""
    note = notes.read(queue.path, original, os.path.join(queue.path, wip))
    if note is None:
        return 1
    # Counted once for this claim, however many reclaim at once or are killed on the way.
    return note.attempts + (note.counted != wip)


def _may_be_tried_again(
    queue: Finishing[Any], wip: str, original: str, max_attempts: int | None
) -> bool:
    """Count a death; where it was one too many, set the file aside and give False."""
    attempts = _attempts(queue, wip, original)
    if max_attempts is not None and attempts >= max_attempts:
        _give_up(queue, wip, original, attempts)
        return False
    _write_attempts(queue, wip, original, attempts)
    return True


def _write_attempts(queue: Finishing[Any], wip: str, original: str, attempts: int) -> None:
    folder = queue.path
    if os.path.lexists(os.path.join(folder, original)):
        return  # it cannot be put back, and the note would be that of the other file
    path = os.path.join(folder, wip)
    try:
        said = {"attempts": attempts, "counted": wip}
        notes.write(folder, original, path, queue._staged(folder), said)
    except FileNotFoundError:
        pass  # another process has reclaimed it
    except OSError as error:
        _log.warning("%s: how often it was begun cannot be written down: %s", path, error)


def _give_up(queue: Finishing[Any], wip: str, original: str, attempts: int) -> None:
    """Set aside what kills its workers: taken over first, which one of several reclaimers can."""
    taken = queue.wip_filename(original)
    queue._member.hold()
    queue._member.remember(taken)
    try:
        if not _fs.claim(os.path.join(queue.path, wip), taken):
            return
    except FileExistsError:
        return  # this process works on one of its name: another time
    reason = f"began {attempts} times, and each time its process died"
    _log.error("%s is set aside: %s", original, reason)
    queue._set_aside(taken, reason, attempts)


def _restore_together(
    queue: Finishing[Any],
    files: list[tuple[str, str]],
    max_attempts: int | None,
    was_begun: bool,
) -> list[str]:
    """Put back all that one dead consumer of groups had: as one, so that no part goes astray."""
    member, folder = queue._member, queue.path
    attempts = {wip: _attempts(queue, wip, original) for wip, original in files}
    if was_begun and max_attempts is not None and max(attempts.values()) >= max_attempts:
        for wip, original in files:
            _give_up(queue, wip, original, attempts[wip])
        return []
    taken = [
        original
        for wip, original in files
        if os.path.lexists(os.path.join(folder, original))
        and not _fs.is_same_file(os.path.join(folder, original), os.path.join(folder, wip))
    ]
    if taken:
        _log.warning(
            "%s: what a dead consumer had of a group stays claimed, for %s is waiting already",
            folder,
            ", ".join(taken),
        )
        return []
    for wip, original in files if was_begun else ():
        _write_attempts(queue, wip, original, attempts[wip])
    if len(files) == 1:
        return [*filter(None, [restore(member, *files[0])])]
    member.hold()
    intent = together.Intent(
        os.path.join(folder, together.name_of(member.prefix)), together.RELEASE, files
    )
    intent.write(queue._staged(folder))
    return _carry_out(intent, member, queue._staged)


def _finish_intents(
    listing: Listing,
    member: Claimer,
    verdicts: Verdicts,
    stage: Callable[[str], str],
    everybodys: bool = False,
) -> list[str]:
    """Finish what the dead had written down of groups, and not come to the end of.

    Args:
        listing (Listing): What is in the folder.
        member (Claimer): By which this process takes part in it.
        verdicts (Verdicts): Who lives.
        stage ((folder: str) -> str): Gives the path of a new temporary file in a folder.
        everybodys (bool): Whether nobody works on the folder, so that all are of the dead.

    Returns:
        list[str]: Paths of the files that are waiting again.
    """
    restored: list[str] = []
    for name in sorted(listing.intents):
        owner = names.parse_intent(name)
        if owner is None or names.wip_prefix(*owner) == member.prefix:
            continue
        if not everybodys and not verdicts.of(*owner)[0]:
            continue
        member.hold()
        taken = os.path.join(member.folder, together.name_of(member.prefix))
        try:
            os.rename(os.path.join(member.folder, name), taken)  # which one reclaimer can
        except FileNotFoundError:
            continue
        intent = together.read(taken)
        if intent is not None:
            restored += _carry_out(intent, member, stage)
    return restored


def _carry_out(intent: together.Intent, member: Claimer, stage: Callable[[str], str]) -> list[str]:
    restored: list[str] = []
    extension: str = member.facts["messageExtension"]
    for wip, original in intent.files:
        path = os.path.join(member.folder, wip)
        try:
            if intent.verb == together.RELEASE:
                restored += filter(None, [restore(member, wip, original)])
                if os.path.lexists(path):
                    # A later file has its name. The others come back, and all stay claimed: as
                    # long as it is written down, no consumer takes them.
                    _take_back(intent, member)
                    restored = []
                    break
            elif intent.verb == together.FAIL:
                directory, reason = intent.directory, intent.reason
                failing.set_aside(path, original, extension, directory, reason, 1, stage)
            elif intent.directory is None:
                _fs.remove(path)
            else:
                move_to(path, intent.directory, original, extension, stage, again=True)
        except FileNotFoundError:
            pass  # its owner had come so far
    intent.remove()
    return restored


def _take_back(intent: together.Intent, member: Claimer) -> None:
    for wip, original in intent.files:
        path = os.path.join(member.folder, wip)
        if not os.path.lexists(path):
            try:
                publish(os.path.join(member.folder, original), path, member, original)
            except OSError as error:
                _log.warning("%s of a group stays behind: %s", original, error)


def _tidy(member: Claimer, verdicts: Verdicts, extension: str, *directories: str | None) -> None:
    """Clear away what the dead left, and nothing refers to any more; see the calls for what."""
    folder = member.folder
    leases = [(name, names.parse_lease(name)) for name in os.listdir(folder)]
    dead = [
        (name, owner)
        for name, owner in leases
        if owner and names.wip_prefix(*owner) != member.prefix and verdicts.of(*owner)[0]
    ]
    # What refers to them is looked for only now: one that lived still might have claimed something
    # between such a look and its death, and without its lease nobody could tell whose that is.
    listing = Listing(folder, extension, bool(member.facts.get("ignoreCase")))
    _remove_temporaries(folder, listing.temporaries, verdicts)
    if dead:
        # What they had half written elsewhere; with their leases goes what would tell.
        for directory in directories:
            if directory is not None and os.path.isdir(directory):
                found = [name for name in os.listdir(directory) if names.parse_temporary(name)]
                _remove_temporaries(directory, found, verdicts)
    producers = control.Producers(folder)
    producers.look(listing.controls)
    _clear_leases(folder, dead, listing, producers)
    _clear_controls(folder, producers, verdicts)
    _clear_notes(folder, listing, extension)


def _remove_temporaries(folder: str, found: list[str], verdicts: Verdicts) -> None:
    """Remove what dead processes left half written.

    Nothing is lost with it: until the whole is published, the source is untouched.
    """
    for name in found:
        owner = names.parse_temporary(name)
        if owner is not None and verdicts.of(*owner)[0]:
            try:
                os.unlink(os.path.join(folder, name))
            except OSError:
                pass


def _clear_leases(
    folder: str,
    dead: list[tuple[str, tuple[int, str]]],
    listing: Listing,
    producers: control.Producers,
) -> None:
    """Remove leases of the dead: not of one who had something claimed, or counts as failed."""
    needed = {wip[:2] for wip in map(names.parse_wip, listing.claims) if wip}
    needed |= {owner for owner in map(names.parse_intent, listing.intents) if owner}
    for _, pid, uuid in producers.open:
        if pid.isdecimal():
            needed.add((int(pid), names.claimer_of_uuid(uuid)))
    for name, owner in dead:
        if owner not in needed:
            try:
                os.unlink(os.path.join(folder, name))
            except OSError:
                pass  # another reclaimer did; or another user's in a sticky folder


def _clear_controls(folder: str, producers: control.Producers, verdicts: Verdicts) -> None:
    """Remove the control files of producers that are done and gone, but for the last.

    That one says to consumers which come later that there were producers, and that all are done.
    """
    for producer in sorted(producers.finished, key=lambda p: producers.finished[p][-1])[:-1]:
        _, pid, uuid = producer
        digits = names.claimer_of_uuid(uuid)
        if digits and pid.isdecimal():
            dead, said = verdicts.of(int(pid), digits)
            if said is not None and not dead:
                continue  # it may put more, after a reset
        for name in producers.finished[producer]:  # its .helo first, or it would seem to be open
            try:
                os.unlink(os.path.join(folder, name))
            except OSError:
                break


def _clear_notes(folder: str, listing: Listing, extension: str) -> None:
    """Remove what is written down of messages that are gone."""
    if not listing.notes:
        return
    stems = {wip[2] for wip in map(names.parse_wip, listing.claims) if wip}
    known = {
        names.original_name(stem, extension, ignore) for stem in stems for ignore in (False, True)
    }
    for name in listing.notes.difference(listing.messages, known):
        if names.is_message(name, extension) and not os.path.lexists(os.path.join(folder, name)):
            notes.forget(folder, name)
