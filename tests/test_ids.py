from __future__ import annotations

import os
import re
from concurrent.futures import ThreadPoolExecutor

import pytest

from plait.ids import new_id


def test_an_id_is_its_prefix_and_128_bits() -> None:
    assert re.fullmatch(r"thr_[0-9a-f]{32}", new_id("thr"))


def test_no_id_is_given_twice_not_even_to_two_threads() -> None:
    with ThreadPoolExecutor(8) as threads:
        made = [name for names in threads.map(lambda _: [new_id("x") for _ in range(500)], range(16)) for name in names]
    assert len(set(made)) == 16 * 500


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_process_gives_ids_of_its_own() -> None:
    new_id("x")  # now some are drawn ahead
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, "\n".join(new_id("x") for _ in range(100)).encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        of_child = set(pipe.read().split("\n"))
    assert len(of_child) == 100
    assert of_child.isdisjoint({new_id("x") for _ in range(100)})
