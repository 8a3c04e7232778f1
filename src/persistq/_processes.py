"""What differs between operating systems about machines, users and processes."""

from __future__ import annotations

import os
import time

_FIRST_PID_NAMESPACE = "pid:[4026531836]"  # PROC_PID_INIT_INO of Linux, the same on each host
_machine_fqdn: str | None = None


def machine_fqdn() -> str:
    """Give this machine's fully qualified name as far as it is written down here.

    No name server is asked: one that does not answer would hold up each process for seconds.
    """
    global _machine_fqdn
    if _machine_fqdn is None:
        known = [name for name in names_of_this_host() if not is_anybodys(name)]
        _machine_fqdn = next((name for name in known if "." in name), host_name())
    return _machine_fqdn


def names_of_this_host() -> list[str]:
    """Give all names that this machine has by its kernel and its hosts file, its own name first.

    One of them is what a resolver would say, unless only a name server knows that.
    """
    own = host_name()
    found = [own]
    lines: list[list[str]] = []
    try:
        with open("/etc/hosts", encoding="utf-8", errors="surrogateescape") as file:
            lines = [line.partition("#")[0].split() for line in file]
    except OSError:
        pass
    addresses = {fields[0] for fields in lines if own in fields[1:]}
    for fields in lines:
        if fields and fields[0] in addresses:
            found += fields[1:]
    return list(dict.fromkeys(found))


def is_anybodys(name: str) -> bool:
    """Tell whether a host's name says nothing about which host it is."""
    return name.partition(".")[0] in ("localhost", "")


def host_name() -> str:
    """Give this machine's name as its kernel has it: no name server is asked."""
    return os.uname().nodename if hasattr(os, "uname") else os.environ.get("COMPUTERNAME", "")


def boot_id() -> str:
    """Give what tells this start of this kernel from all others; empty where there is no such."""
    return _first_line("/proc/sys/kernel/random/boot_id")


def machine_id() -> str:
    """Give what tells this installed system from others, machine-id(5); empty where unset."""
    return _first_line("/etc/machine-id")


def start_ticks(pid: int) -> str:
    """Give when a process started, in ticks since the kernel did; empty where that is not told."""
    fields = _stat_of(pid)
    return fields[19].decode() if len(fields) > 19 else ""


def _first_line(path: str) -> str:
    return _start_of(path).partition(b"\n")[0].decode("ascii", "replace").strip()


def _start_of(path: str) -> bytes:
    """Read the first 4096 bytes of a file, with as little as can be; none where that is refused."""
    try:
        fd = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        try:
            return os.read(fd, 4096)
        finally:
            os.close(fd)
    except OSError:
        return b""


def user_name() -> str:
    """Give the name of the user, as far as it is written down here.

    That is in the environment or in /etc/passwd. The `pwd` module might ask a directory server,
    and one that does not answer would hold up whoever gets his first message.
    """
    for variable in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        if os.environ.get(variable):
            return os.environ[variable]
    if not hasattr(os, "getuid"):
        return "unknown"
    number = b"%d" % os.getuid()
    try:
        with open("/etc/passwd", "rb", buffering=0) as file:
            for line in file.read().split(b"\n"):
                fields = line.split(b":", 3)
                if len(fields) > 2 and fields[2] == number:
                    return os.fsdecode(fields[0])
    except OSError:
        pass
    return f"uid {os.getuid()}"


def pid_namespace() -> str:
    """Name the namespace of this process's id; empty in the host's first, and outside Linux."""
    try:
        name = os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""
    return "" if name == _FIRST_PID_NAMESPACE else name


def ancestors() -> list[int]:
    """Give the ids of this process's parent, of that one's, and so on, as far as is told."""
    found = [os.getppid()]
    while found[-1] > 1:
        fields = _stat_of(found[-1])
        if len(fields) < 2 or int(fields[1]) in (0, *found):
            break
        found.append(int(fields[1]))
    return found


def process_group(pid: int) -> int:
    """Give the id of a process's group, which is its leader's; 0 where that is not told."""
    try:
        return os.getpgid(pid)
    except (AttributeError, OSError):
        return 0


def program_of(pid: int) -> str:
    """Give the name of the program that a process runs; empty where that is not told."""
    try:
        name = os.path.basename(os.readlink(f"/proc/{pid}/exe"))
    except OSError:
        name = ""
    # One program for all commands of a small system: what it is called as tells which.
    return name if name not in ("", "busybox") else _first_line(f"/proc/{pid}/comm") or name


def _stat_of(pid: int) -> list[bytes]:
    # The second field is a name in parentheses that may hold anything.
    return _start_of(f"/proc/{pid}/stat").rpartition(b")")[2].split()


def time_namespace() -> str:
    """Name the namespace by whose clock starts of processes are told; empty outside Linux."""
    try:
        return os.readlink("/proc/self/ns/time")
    except OSError:
        return ""


def kernel_key() -> str:
    """Tell what this process sees of processes from what others see: boot, host, namespaces."""
    return " ".join((host_name(), machine_id(), boot_id(), pid_namespace(), time_namespace()))


def process_key(pid: int) -> str | None:
    """Tell a process from all others of this kernel, before and after it, that had its id.

    Args:
        pid (int): The id of a process.

    Returns:
        str | None: The same text at each call, as long as it lives; None when it does not.
    """
    start_s = process_start_s(pid)
    if start_s is None:
        return None
    started = start_ticks(pid) or _ps_started(pid) or f"{start_s:.0f}"
    return f"{kernel_key()} {pid} {started}"


def _ps_started(pid: int) -> str:
    import subprocess

    try:
        return subprocess.run(
            ["ps", "-o", "lstart=", "-p", str(pid)],
            capture_output=True,
            text=True,
            timeout=10,
            env={**os.environ, "LC_ALL": "C", "TZ": "UTC"},
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def process_start_s(pid: int) -> float | None:
    """Tell since when the process of an id has lived, on this host and in this namespace.

    Args:
        pid (int): The id of a process.

    Returns:
        float | None: Seconds since the epoch, by today's clock; minus infinity when it lives
        and its age cannot be told; None when no such process lives. A zombie does not.
    """
    if pid <= 0:
        return None
    if os.name == "nt":
        return _windows_process_start_s(pid)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except OverflowError:
        return None
    except PermissionError:
        pass  # it lives, as another user
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            # The second field is a name in parentheses that may hold anything.
            fields = file.read().rpartition(b")")[2].split()
        with open(f"/proc/{pid}/status", "rb") as file:
            status = file.read()
        with open("/proc/uptime", "rb") as file:
            uptime_s = float(file.read().split()[0])
    except (OSError, ValueError, IndexError):
        return _ps_process_start_s(pid)
    if fields[0] in (b"Z", b"X"):
        return None
    if b"\nTgid:" in status and f"\nTgid:\t{pid}\n".encode() not in status:
        return None  # the id is a thread's now
    return time.time() - (uptime_s - int(fields[19]) / os.sysconf("SC_CLK_TCK"))


def _ps_process_start_s(pid: int) -> float | None:
    """Ask ps, whose `stat` and `etime` are the same on every POSIX system and in every locale."""
    import subprocess

    try:
        answer = subprocess.run(
            ["ps", "-o", "stat=,etime=", "-p", str(pid)],
            capture_output=True,
            text=True,
            timeout=10,
        ).stdout.split()
    except (OSError, subprocess.SubprocessError):
        return float("-inf")
    if len(answer) != 2:
        # Alive a moment ago, and hidden from us, or gone since: what is not known dead lives.
        return float("-inf")
    if answer[0].startswith("Z"):
        return None
    days, _, clock = answer[1].rpartition("-")  # [[dd-]hh:]mm:ss
    seconds = 0
    for part in clock.split(":"):
        seconds = seconds * 60 + int(part)
    return time.time() - (int(days or 0) * 86400 + seconds)


def _windows_process_start_s(pid: int) -> float | None:
    import ctypes

    kernel = getattr(ctypes, "WinDLL")("kernel32", use_last_error=True)  # noqa: B009
    kernel.OpenProcess.restype = ctypes.c_void_p
    handle = kernel.OpenProcess(0x1000, 0, pid)  # PROCESS_QUERY_LIMITED_INFORMATION
    if not handle:
        # ERROR_INVALID_PARAMETER is 'no such process'; anything else is a refusal to tell.
        code = getattr(ctypes, "get_last_error")()  # noqa: B009
        return None if code == 87 else float("-inf")
    try:
        code, times = ctypes.c_ulong(), [ctypes.c_ulonglong() for _ in range(4)]
        if kernel.GetExitCodeProcess(ctypes.c_void_p(handle), ctypes.byref(code)):
            if code.value != 259:  # STILL_ACTIVE
                return None
            if kernel.GetProcessTimes(
                ctypes.c_void_p(handle), *(ctypes.byref(moment) for moment in times)
            ):
                # Hundreds of nanoseconds since 1601.
                return times[0].value / 1e7 - 11644473600
        return float("-inf")
    finally:
        kernel.CloseHandle(ctypes.c_void_p(handle))


def occupy_standard_streams() -> None:
    """Open the null device on those of descriptors 0, 1 and 2 that are closed.

    Else the next file or pipe that is opened becomes standard output, say, and gets whatever a C
    library prints there.
    """
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            # The lowest free number is taken, which is this one, unless another thread was faster.
            opened = os.open(os.devnull, os.O_RDWR)
            if opened > 2:
                os.close(opened)
            else:
                os.set_inheritable(opened, True)  # as standard streams are
