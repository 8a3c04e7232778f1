"""Jobs one after the other, until so many processes have been killed in them."""

from __future__ import annotations

import json
import random
import re
import tempfile
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def jobs(
    one_job: Callable[[str, Any, random.Random], Mapping[str, int]], options: Any
) -> Counter[str]:
    """Do jobs, each in a folder of its own, and print what came of them.

    Args:
        one_job ((root, options, rng) -> Mapping[str, int]): Does one, and counts; how many it has
            killed is under `kills`, or names that end in " killed".
        options (argparse.Namespace): With `seed`, and `kills`, of which there must be so many.

    Returns:
        Counter[str]: All counts together.
    """
    rng, began_s = random.Random(options.seed), time.monotonic()
    total: Counter[str] = Counter()
    while sum(total[name] for name in total if re.search("^kills$| killed$", name)) < options.kills:
        with tempfile.TemporaryDirectory() as root:
            total.update(one_job(root, options, rng))
            total["jobs"] += 1
    print(json.dumps({**total, "seconds": round(time.monotonic() - began_s, 1)}))
    return total
