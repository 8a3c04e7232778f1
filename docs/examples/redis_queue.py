"""A carrier in Redis: workers on any hosts, and the journals where the messages are put.

The parent's is `PersistentQueue(..., queue=RedisQueue(url, "jobs", begin=True))`, a worker's, on
any host, `PersistentQueue(queue=RedisQueue(url, "jobs"))`.
"""

import contextlib
import json
import queue
import threading
import time
import uuid

import redis

from persistq import DONE, FAILED

BEAT_S, DEAD_S = 2, 10
LOST = "Redis has lost this run, and its messages: start the job again"
# Each in one step: a run that Redis has lost is noticed, and what is in hand is reported once.
PUT = "return redis.call('get', KEYS[1]) == ARGV[1] and redis.call('rpush', KEYS[2], ARGV[2])"
REPORT = "if redis.call('lrem',KEYS[1],1,ARGV[1]) > 0 then redis.call('rpush',KEYS[2],ARGV[2]) end"


class RedisQueue:
    def __init__(self, url, name, begin=False):
        # No second try by itself: a command may have been done before its connection broke.
        self._redis = redis.Redis.from_url(url, retry=None)
        self._key, self._run, self._me = f"{name}:{{}}".format, uuid.uuid4().hex.encode(), ""
        if begin:  # what lies here of an earlier run is outstanding in the journals
            old = self._redis.keys(self._key("taken:*"))
            self._redis.delete(*map(self._key, ("todo", "back", "end")), *old)
            self._redis.set(self._key("run"), self._run)
            self._live(self._key("alive"))

    def _live(self, key):
        with contextlib.suppress(redis.RedisError):  # whoever uses the queue is told
            self._redis.set(key, "", ex=DEAD_S)
        beat = threading.Timer(BEAT_S, self._live, [key])
        beat.daemon = True
        beat.start()

    def put(self, obj, block=True, timeout=None):
        if obj is DONE or obj is FAILED:  # for every worker, however many there are
            self._redis.set(self._key("end"), obj.name)
        elif not self._redis.eval(PUT, 2, self._key("run"), self._key("todo"), self._run, obj):
            raise RuntimeError(LOST)

    def get(self, block=True, timeout=None):
        if not self._me:
            self._me = uuid.uuid4().hex
            self._live(self._key("alive:" + self._me))
        mine, end_s = self._key("taken:" + self._me), time.monotonic() + (timeout or 0)
        while True:
            if self._redis.exists(self._key("alive")):  # else nobody would record what is done
                if line := self._redis.blmove(self._key("todo"), mine, 0.5 if block else 0.001):
                    return line
                if end := self._redis.get(self._key("end")):
                    return DONE if end == b"DONE" else FAILED
            if not block or (timeout is not None and time.monotonic() >= end_s):
                raise queue.Empty
            time.sleep(0.01)

    def put_report(self, report):
        mine, (kind, line, why) = self._key("taken:" + self._me), report
        data = json.dumps([kind, line.decode("latin-1"), why])
        self._redis.eval(REPORT, 2, mine, self._key("back"), line, data)

    def get_report(self, block, timeout):
        if self._redis.get(self._key("run")) != self._run:
            raise RuntimeError(LOST)
        if found := self._redis.blpop(self._key("back"), timeout):
            kind, line, why = json.loads(found[1])
            return kind, line.encode("latin-1"), why
        for key in self._redis.keys(self._key("taken:*")):
            is_alive = self._redis.exists(key.replace(b":taken:", b":alive:"))
            if not is_alive and (line := self._redis.lpop(key)):
                return "lost", line, f"its worker has not been heard of for {DEAD_S} s"
        raise queue.Empty
