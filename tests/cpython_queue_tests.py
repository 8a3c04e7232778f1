"""CPython's own tests of multiprocessing queues, run against Carrier.

    START_METHOD=spawn python -m unittest cpython_queue_tests

A module of its own, so that a spawned child can import it.
"""

from __future__ import annotations

import multiprocessing
import os
import unittest
from typing import Any
from unittest import mock

from test import _test_multiprocessing as theirs

from persistq._carrier.carrier import Carrier

multiprocessing.set_start_method(os.environ.get("START_METHOD", "fork"), force=True)

# Each test that does not apply, and why. All others must pass.
DOES_NOT_APPLY = {
    "test_queue_feeder_donot_stop_onexc": (
        "expects that put() accepts what cannot be pickled and the feeder prints a traceback; a "
        "Carrier pickles in put(), which raises"
    ),
    "test_queue_feeder_on_queue_feeder_error": (
        "subclasses the plain Queue to see the feeder fail to pickle; a Carrier's feeder has "
        "nothing to pickle"
    ),
}


def make(maxsize: int = 0) -> Carrier:
    return Carrier(maxsize)


class TestCarrier(theirs.ProcessesMixin, theirs._TestQueue, unittest.TestCase):  # type: ignore
    Queue = staticmethod(make)
    JoinableQueue = staticmethod(make)

    def setUp(self) -> None:
        if self._testMethodName in DOES_NOT_APPLY:
            self.skipTest(DOES_NOT_APPLY[self._testMethodName])
        # Some of the tests make their queues by these names.
        for name in ("Queue", "JoinableQueue"):
            patch: Any = mock.patch.object(multiprocessing, name, make)
            patch.start()
            self.addCleanup(patch.stop)

    @classmethod
    def tearDownClass(cls) -> None:
        super().tearDownClass()
        missing = set(DOES_NOT_APPLY) - set(dir(theirs._TestQueue))
        assert not missing, f"not among this interpreter's tests: {missing}"


class TestCarrierTimeoutsOfJoin(unittest.TestCase):
    """So that a run with nothing but skips is not taken for a pass."""

    def test_the_class_under_test_is_the_carrier(self) -> None:
        assert type(TestCarrier.Queue()) is Carrier
