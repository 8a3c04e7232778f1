"""Index Python source files into SQLite with several processes, and survive being killed.

Each worker parses files and loads what it finds: name, lines, functions, classes and imports. Kill
the script however you like, start it again with the same arguments, and it finishes the rest:

    python index_sources.py --source path/to/tree --database index.db --pickups pickups

With --crash it shows this by itself, in a temporary directory: it kills a run half way, starts it
again, and proves that every file was loaded exactly once in effect.
"""

from __future__ import annotations

import argparse
import ast
import multiprocessing
import multiprocessing.connection
import os
import signal
import sqlite3
import subprocess
import sys
import sysconfig
import tempfile
import time
import warnings

from persistq import PersistentQueue, pickup_dirs

PREFIX = "index_sources"
SCHEMA = """
CREATE TABLE IF NOT EXISTS files (
    path TEXT PRIMARY KEY, lines INTEGER, functions INTEGER, classes INTEGER, error TEXT
);
CREATE TABLE IF NOT EXISTS imports (path TEXT, module TEXT, PRIMARY KEY (path, module));
"""


def connect(database):
    connection = sqlite3.connect(database, timeout=60)  # seconds to wait for other writers
    connection.execute("PRAGMA journal_mode = WAL")  # readers do not wait for the writer
    connection.executescript(SCHEMA)
    return connection


def find_sources(source):
    """Return the paths of all Python files of a tree, installed packages left out."""
    paths = []
    for folder, folders, names in os.walk(source):
        folders[:] = [f for f in folders if f not in ("site-packages", "dist-packages")]
        paths += [os.path.join(folder, name) for name in names if name.endswith(".py")]
    return sorted(path for path in paths if os.path.isfile(path))


def text_key(path):
    """Return the path as SQLite can hold it: a file name need not be valid UTF-8."""
    return path.encode("utf-8", "backslashreplace").decode()


def parse(path):
    """Return the file's row, and the modules that it imports."""
    lines = functions = classes = 0
    modules = set()
    error = None
    try:
        with open(path, "rb") as file:
            text = file.read()
        lines = text.count(b"\n")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                functions += 1
            elif isinstance(node, ast.ClassDef):
                classes += 1
            elif isinstance(node, ast.Import):
                modules.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                modules.add("." * node.level + (node.module or ""))
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError) as problem:
        error = f"{type(problem).__name__}: {problem}"  # recorded, not lost
    return (text_key(path), lines, functions, classes, error), modules


def work(queue, database):
    """Load files until there are no more: what each worker process runs."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # on Ctrl-C the parent ends its workers
    warnings.simplefilter("ignore")  # the sources' own bad escapes are not our business
    connection = connect(database)
    for path in queue:
        row, modules = parse(path)
        # A message comes at least once: killed before task_done(), it comes again in the next
        # run. So the load replaces what is there, in one transaction, and a repeat is harmless.
        with connection:
            connection.execute("DELETE FROM imports WHERE path = ?", row[:1])
            connection.execute("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?)", row)
            connection.executemany(
                "INSERT INTO imports VALUES (?, ?)", [(row[0], text_key(m)) for m in modules]
            )
        queue.task_done(path)  # only now, when the row is safe
    connection.close()


def run(source, database, pickups, workers, start_method):
    """Index all files that the database does not hold yet."""
    paths = find_sources(source)
    connection = connect(database)
    context = multiprocessing.get_context(start_method)
    current, previous = pickup_dirs(pickups, PREFIX)
    queue = PersistentQueue(PREFIX, current, previous, number_of_workers=workers, queue=context)
    try:
        processes = [
            context.Process(target=work, args=(queue, database), daemon=True)
            for _ in range(workers)
        ]
        for process in processes:
            process.start()
        with queue:  # which closes it at the end, so that the workers stop
            requeued = queue.requeue_unprocessed_work()
            loaded = {path for (path,) in connection.execute("SELECT path FROM files")}
            # put_many passes over what has been requeued.
            queue.put_many(path for path in paths if text_key(path) not in loaded)
        while any(process.exitcode is None for process in processes):
            show_progress(count_files(connection), len(paths))
            sentinels = [p.sentinel for p in processes if p.exitcode is None]
            multiprocessing.connection.wait(sentinels, timeout=0.2)
    except BaseException:
        # Nobody reads the queue any more, so do not wait for that: the journal has everything.
        queue.joinable_queue.cancel_join_thread()
        raise
    count = count_files(connection)
    show_progress(count, len(paths), end="\n")
    connection.close()
    print(f"requeued {requeued} files; {count} of {len(paths)} are in the database")
    # The others do the work of a worker that is killed. But if all of them died, some is left.
    left = outstanding_files(current)
    if left:
        codes = [process.exitcode for process in processes if process.exitcode]
        raise SystemExit(f"workers died (exit codes {codes}), {len(left)} files left: start again")


def outstanding_files(run_folder):
    """Return what a run has put and not completed."""
    return PersistentQueue(PREFIX, previous_pickup_dir=run_folder).get_list_of_outstanding_work()


def count_files(connection):
    return connection.execute("SELECT count(*) FROM files").fetchone()[0]


def show_progress(count, total, end=""):
    if sys.stderr.isatty():  # nothing in a log file
        print(f"\r{count} of {total} files", end=end, file=sys.stderr, flush=True)


def check(source, database):
    """Compare the database with a fresh look at the files; return what is wrong."""
    expected = {text_key(path): count_lines(path) for path in find_sources(source)}
    connection = connect(database)
    rows = connection.execute("SELECT path, lines FROM files").fetchall()
    (total,) = connection.execute("SELECT coalesce(sum(lines), 0) FROM files").fetchone()
    connection.close()
    problems = []
    if len(rows) != len(expected):
        problems.append(f"{len(rows)} rows for {len(expected)} files")
    if total != sum(expected.values()):
        problems.append(f"{total} lines in the database, {sum(expected.values())} in the files")
    loaded = dict(rows)
    for path in sorted(expected.keys() | loaded.keys()):
        if expected.get(path) != loaded.get(path):
            problems.append(f"{path}: {loaded.get(path)} lines, expected {expected.get(path)}")
    return problems


def count_lines(path):
    try:
        with open(path, "rb") as file:
            return file.read().count(b"\n")
    except OSError:
        return 0


def crash(source, workers, start_method):
    """Kill a run half way, start it again, and check what it has loaded."""
    half = len(find_sources(source)) // 2
    with tempfile.TemporaryDirectory() as folder:
        # A short run may be over before it can be killed; then try again, from the start.
        for attempt in range(5):
            database = os.path.join(folder, f"{attempt}.db")
            pickups = os.path.join(folder, f"pickups{attempt}")
            command = [sys.executable, os.path.abspath(__file__), "--source", source]
            command += ["--database", database, "--pickups", pickups, "--workers", str(workers)]
            command += ["--start-method", start_method] if start_method else []
            count = kill_half_way(command, database, half)
            _, killed_run = pickup_dirs(pickups, PREFIX)
            outstanding = outstanding_files(killed_run)
            if outstanding:
                break
        else:
            return ["each run ended before it could be killed; give a larger --source"]
        print(f"killed with {count} files in the database, {len(outstanding)} outstanding")
        again = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        print(again.stdout, end="")
        problems = check(source, database)
        if again.returncode:
            problems.append(f"the restart ended with exit code {again.returncode}")
        if not again.stdout.startswith(f"requeued {len(outstanding)} files;"):
            problems.append(f"the restart did not requeue the {len(outstanding)} files")
        return problems


def kill_half_way(command, database, half):
    """Kill a run with all its processes when it has loaded half; return how many it has."""
    # A session of its own is a process group of its own. What a killed process leaves among the
    # temporary files goes the way of the database.
    environment = {**os.environ, "TMPDIR": os.path.dirname(database)}
    child = subprocess.Popen(
        command, stdout=subprocess.PIPE, start_new_session=True, env=environment
    )
    connection = connect(database)
    try:
        while child.poll() is None and count_files(connection) < half:
            time.sleep(0.002)
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
        child.communicate()  # the pipe ends when the last process of the group has ended
    count = count_files(connection)
    connection.close()
    return count


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--source",
        default=sysconfig.get_path("stdlib"),
        help="folder whose .py files to index (default: this Python's standard library)",
    )
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes")
    methods = multiprocessing.get_all_start_methods()
    parser.add_argument("--start-method", choices=methods, help="how to start the processes")
    parser.add_argument("--database", help="SQLite file (default: index.db)")
    parser.add_argument("--pickups", help="folder for the journals (default: pickups)")
    parser.add_argument("--check", action="store_true", help="only compare database and files")
    parser.add_argument("--crash", action="store_true", help="kill a run, restart it, and check")
    options = parser.parse_args()
    source = os.path.abspath(options.source)
    if options.workers < 1:
        parser.error("--workers: expected 1 or more")
    if not find_sources(source):
        parser.error(f"--source: no .py files in {source}")
    if options.crash:
        if options.database or options.pickups:
            parser.error("--crash uses a database and pickups of its own")
        if not hasattr(os, "killpg"):
            parser.error("--crash needs process groups, which this system does not have")
        problems = crash(source, options.workers, options.start_method)
    else:
        database = options.database or "index.db"
        pickups = options.pickups or "pickups"
        if not options.check:
            run(source, database, pickups, options.workers, options.start_method)
            return
        problems = check(source, database)
    for problem in problems:
        print(problem, file=sys.stderr)
    if problems:
        raise SystemExit(1)
    print("proved: every file is in the database exactly once, with all its lines")


if __name__ == "__main__":
    main()
