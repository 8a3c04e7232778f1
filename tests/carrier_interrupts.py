"""A process that puts, interrupted at random moments by a signal handler that puts, ends or raises.

    python tests/carrier_interrupts.py put 17

What the handler does is the first argument, what decides about the moments the second:

- put: it puts messages, small and large, and in the end says that no more come, and closes;
- raise: it raises TimeoutError, which is an OSError, out of whatever it has interrupted;
- exit: it puts a last message, ends, closes, waits for the feeder, and ends the process.

Prints what is wrong, and nothing else.
"""

from __future__ import annotations

import logging
import os
import pickle
import random
import signal
import sys
import time
import traceback
from queue import Empty
from typing import Any

from persistq._carrier.carrier import Carrier, is_refusal

SIZES = [1, 1, 1, 240, 600, 9000]
NUMBER = 8000


class Program:
    def __init__(self, mode: str, seed: int) -> None:
        self.mode = mode
        self.chance = random.Random(seed)
        self.maxsize = self.chance.choice([0, 0, 20_000]) if mode != "raise" else 0
        self.queue = Carrier(self.maxsize)
        self.put: list[tuple[str, int]] = []
        self.unknown: set[tuple[str, int]] = set()
        self.interrupts = 0
        self.current = ("", 0)
        self.is_armed = False
        self.is_ended = False

    def arm(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0.00002 + self.chance.random() * 0.002)

    def send(self, name: tuple[str, int]) -> None:
        """Put a message, alone or among others, and remember what is certain about it."""
        data = pickle.dumps((name, "x" * self.chance.choice(SIZES)))
        self.current = name
        try:
            self.is_armed = True
            self.queue.put_bytes(data)
            self.is_armed = False
        except BaseException as error:
            self.is_armed = False
            if not is_refusal(error):
                self.unknown.add(name)
            raise
        self.put.append(name)

    def handle(self, signum: int, frame: Any) -> None:
        if self.mode == "raise":
            self.arm()
            if not self.is_armed:
                return
            self.is_armed = False
            self.interrupts += 1
            raise TimeoutError("too slow")
        self.interrupts += 1
        if self.mode == "exit" and len(self.put) > 3000:
            self.unknown.add(self.current)  # it never comes to its end
            self.send(("last", self.interrupts))
            self.queue.end(b"D", 1)
            self.queue.close()
            self.queue.join_thread()
            self.report()
        elif self.interrupts < 150 and len(self.put) < NUMBER:
            for _ in range(self.chance.randrange(3)):
                self.send(("handler", self.interrupts * 10 + _))
        elif not self.is_ended:
            self.is_ended = True
            self.queue.end(b"D", 1)
            self.queue.close()
            return
        self.arm()

    def report(self) -> None:
        with open(sys.argv[3], "wb") as file:
            pickle.dump((self.put, self.unknown, self.interrupts), file)
        os._exit(0)

    def run(self) -> None:
        signal.signal(signal.SIGALRM, self.handle)
        self.arm()
        number = 0
        while True:
            number += 1
            try:
                self.send(("main", number))
            except TimeoutError as error:
                if is_refusal(error):
                    self.put.append(("refused what a handler raised", 0))
            except (ValueError, OSError):
                if self.is_ended:
                    break
                raise
            if self.mode == "raise" and number > NUMBER * 3:
                break
        signal.setitimer(signal.ITIMER_REAL, 0)
        if self.mode == "raise":
            self.queue.end(b"D", 1)
            self.queue.close()
        self.queue.join_thread()
        self.report()


def main() -> None:
    mode, seed, path = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    logging.disable(logging.CRITICAL)
    program = Program(mode, seed)
    queue = program.queue
    pid = os.fork()
    if pid == 0:
        try:
            program.run()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(9)
    taken: list[tuple[str, int]] = []
    deadline = time.monotonic() + 25
    wrong = []
    while True:
        ended = os.waitpid(pid, os.WNOHANG)
        try:
            while True:
                data = queue.get_bytes(timeout=0.01)
                if data is not None:
                    taken.append(pickle.loads(data)[0])
                    queue.task_done()
        except Empty:
            pass
        if ended[0]:
            break
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            sys.exit("it hangs")
    if ended[1]:
        wrong.append(f"it ended with {ended[1]}")
    with open(path, "rb") as file:
        put, unknown, interrupts = pickle.load(file)
    if len(set(taken)) != len(taken):
        wrong.append("something came twice")
    if set(put) - set(taken):
        wrong.append(f"{len(set(put) - set(taken))} of {len(put)} did not come")
    if set(taken) - set(put) - unknown:
        wrong.append(f"came though it was refused: {set(taken) - set(put) - unknown}")
    if queue.board.count(b"D") != 1:
        wrong.append("its end was not told once")
    if not unknown and not queue.join(0):
        wrong.append("a task is left")
    if interrupts < (1 if mode == "exit" else 20):
        wrong.append(f"only {interrupts} interrupts")
    if wrong:
        sys.exit("; ".join(wrong))


if __name__ == "__main__":
    main()
