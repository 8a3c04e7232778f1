"""Two stages of a load as separate processes, with folders between them.

The first stage reads the Python files of a source tree and writes, for each package, three TSV
files: its functions, its classes and its imports. It puts them on a folder queue. The second
stage takes them off in whole groups, all three kinds of one package, and loads each group into
SQLite in one transaction.

    python folder_pipeline.py work                     # both stages, several consumers
    python folder_pipeline.py work --crash             # the same, with kills, and a proof
    python folder_pipeline.py work --stage extract     # by hand: one shell runs this,
    python folder_pipeline.py work --stage load        # and any number of others this

After a crash: `--stage reset`, then both stages again. Nothing that was finished is done again,
and nothing is lost.
"""

from __future__ import annotations

import argparse
import ast
import os
import signal
import sqlite3
import subprocess
import sys
import sysconfig
import warnings

from persistq import DONE, FAILED, ReadableGroupedFileFolderQueue, WritableFolderQueue

KINDS = ["classes", "functions", "imports"]


# A file is called <package>~<kind>.tsv. These functions go to other processes with the queue, so
# they are defined at the top of the module.
def package_of(filename):
    return filename.rpartition("~")[0]


def kind_of(filename):
    return filename.rpartition("~")[2].removesuffix(".tsv")


def queue_folder(work):
    return os.path.join(work, "queue")


def open_database(work):
    database = sqlite3.connect(
        os.path.join(work, "result.sqlite"), timeout=60, isolation_level=None
    )
    database.execute(
        "CREATE TABLE IF NOT EXISTS found (package TEXT, kind TEXT, file TEXT, name TEXT)"
    )
    return database


# ------------------------------------------------------------------------- the first stage


def packages(source):
    """Yield each top-level package or module, and its Python files."""
    for name in sorted(os.listdir(source)):
        path = os.path.join(source, name)
        if name.endswith(".py"):
            yield name[:-3], [path]
        elif os.path.isfile(os.path.join(path, "__init__.py")):
            files = []
            for folder, folders, names in os.walk(path):
                folders.sort()
                files += [os.path.join(folder, name) for name in sorted(names)]
            yield name, [file for file in files if file.endswith(".py")]


def read_names(path):
    """Yield the kind and name of everything of interest in one Python file."""
    with open(path, "rb") as file:
        content = file.read()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(content)
    except (SyntaxError, ValueError):
        return  # the standard library holds some on purpose, to test compilers with
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield "functions", node.name
        elif isinstance(node, ast.ClassDef):
            yield "classes", node.name
        elif isinstance(node, ast.Import):
            for alias in node.names:
                yield "imports", alias.name
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield "imports", node.module


def extract(work, source, limit=None, die_after=None):
    """Write three files for each package, and put them on the queue."""
    staging = os.path.join(work, f"staging-{os.getpid()}")
    os.makedirs(staging, exist_ok=True)
    # Its own record of what an earlier run has put: a package that is in it is not read again.
    put_before = os.path.join(work, "put.txt")
    done = set()
    if os.path.exists(put_before):
        with open(put_before) as file:
            done = set(file.read().split("\n"))
    with WritableFolderQueue(queue_folder(work)) as queue:
        for count, (package, files) in enumerate(packages(source)):
            if count == limit:
                break
            if package in done:
                continue
            rows = {kind: [] for kind in KINDS}
            for path in files:
                for kind, name in read_names(path):
                    rows[kind].append(f"{os.path.relpath(path, source)}\t{name}\n")
            for kind in KINDS:
                path = os.path.join(staging, f"{package}~{kind}.tsv")
                with open(path, "w", encoding="utf-8", errors="surrogateescape") as file:
                    file.writelines(rows[kind])
                try:
                    queue.put(path)
                except FileExistsError:
                    os.unlink(path)  # put just before a crash, and not yet in the record
                if die_after is not None and count >= die_after:
                    os.kill(os.getpid(), signal.SIGKILL)
            with open(put_before, "a") as file:
                file.write(package + "\n")
    os.rmdir(staging)


# ------------------------------------------------------------------------ the second stage


def load(work, die_after=None):
    """Load whole groups until the first stage is done; give how many there were."""
    queue = ReadableGroupedFileFolderQueue(
        queue_folder(work),
        grouping_function=package_of,
        item_function=kind_of,
        list_of_items_in_group=KINDS,
    )
    database = open_database(work)
    count = 0
    while (group := queue.get()) is not DONE:
        if group is FAILED:
            raise SystemExit("the first stage failed; see its output, then run --stage reset")
        database.execute("BEGIN IMMEDIATE")
        for path in group:
            name = os.path.basename(queue.original_filename_from_wip(path))
            package, kind = package_of(name), kind_of(name)
            # A group may come twice, when a loader died between this transaction and task_done:
            # to load it again must change nothing.
            database.execute("DELETE FROM found WHERE package = ? AND kind = ?", (package, kind))
            with open(path, encoding="utf-8", errors="surrogateescape", newline="\n") as file:
                for line in file:
                    where, _, found = line.rstrip("\n").partition("\t")
                    database.execute(
                        "INSERT INTO found VALUES (?, ?, ?, ?)", (package, kind, where, found)
                    )
        if die_after is not None and count >= die_after:
            os.kill(os.getpid(), signal.SIGKILL)  # in the middle of a transaction
        database.execute("COMMIT")
        queue.task_done(group)
        count += 1
    database.close()
    return count


# ---------------------------------------------------------------------------- both at once


def start(work, stage, options, *more):
    command = [sys.executable, os.path.abspath(__file__), work, "--stage", stage, *more]
    command += ["--source", options.source]
    if options.limit is not None:
        command += ["--limit", str(options.limit)]
    return subprocess.Popen(command)


def run(work, options, crash=False):
    """Run both stages as processes; with crash, kill one of each half way, reset, and go on."""
    os.makedirs(work, exist_ok=True)
    keeper = WritableFolderQueue(queue_folder(work))  # announced before any consumer looks
    if crash:
        producer = start(work, "extract", options, "--die-after", "5")
        consumer = start(work, "load", options, "--die-after", "2")
        print("a producer was killed:", producer.wait() == -signal.SIGKILL)
        print("a consumer was killed:", consumer.wait() == -signal.SIGKILL)
        keeper.reset()  # what the dead consumer had claimed waits again
    stages = [start(work, "extract", options)]
    stages += [start(work, "load", options) for _ in range(options.consumers)]
    codes = [stages[0].wait()]
    keeper.close()
    codes += [stage.wait() for stage in stages[1:]]
    if any(codes):
        raise SystemExit(f"a stage ended with an error: {codes}")


def result(work):
    database = open_database(work)
    rows = database.execute("SELECT * FROM found ORDER BY 1, 2, 3, 4").fetchall()
    database.close()
    return rows


def main():
    parser = argparse.ArgumentParser(description="Load the names in a source tree into SQLite.")
    parser.add_argument("work", help="folder of the queue and the result; made if missing")
    parser.add_argument("--source", default=sysconfig.get_path("stdlib"), help="tree to read")
    parser.add_argument("--stage", choices=["extract", "load", "reset"], help="one stage alone")
    parser.add_argument("--consumers", type=int, default=2, help="processes that load (2)")
    parser.add_argument("--limit", type=int, help="only so many packages")
    parser.add_argument("--crash", action="store_true", help="kill half way, and compare")
    parser.add_argument("--die-after", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    work = os.path.abspath(options.work)
    if options.stage == "extract":
        extract(work, options.source, options.limit, options.die_after)
    elif options.stage == "load":
        print(f"process {os.getpid()} loaded {load(work, options.die_after)} groups")
    elif options.stage == "reset":
        queue = WritableFolderQueue(queue_folder(work))
        queue.reset()
        queue.purge_control_messages()  # this process only tidies up: it will put nothing
    elif options.crash:
        run(os.path.join(work, "undisturbed"), options)
        run(os.path.join(work, "crashed"), options, crash=True)
        expected = result(os.path.join(work, "undisturbed"))
        same = result(os.path.join(work, "crashed")) == expected
        verdict = "equal" if same else "NOT EQUAL"
        print(f"{len(expected)} rows; with and without the crash they are {verdict}")
        sys.exit(0 if same else 1)
    else:
        run(work, options)
        print(f"{len(result(work))} rows in {os.path.join(work, 'result.sqlite')}")


if __name__ == "__main__":
    main()
