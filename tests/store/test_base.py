from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from plait.errors import ConfigurationError
from plait.ids import new_id
from plait.store.base import NAME_LENGTH, check_name, owner_is_dead, owner_name

TELL_AND_WAIT = """
import sys
from plait.store.base import owner_name
print(owner_name(), flush=True)
sys.stdin.read()
"""

on_linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only /proc proves that a process is gone")


def test_an_owners_name_says_where_it_runs_and_is_another_each_time() -> None:
    names = {owner_name() for _ in range(100)}

    assert len(names) == 100
    assert {name.rsplit("/")[:2] == [os.uname().nodename, str(os.getpid())] for name in names} == {True}


def test_this_process_is_alive() -> None:
    assert not owner_is_dead(owner_name())


@on_linux
def test_a_killed_process_is_dead_at_once_even_before_its_parent_takes_note() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", TELL_AND_WAIT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        owner = child.stdout.readline().strip()
        alive = not owner_is_dead(owner)
        child.send_signal(signal.SIGKILL)
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it has ended; nobody has taken note
        as_zombie = owner_is_dead(owner)
        child.wait()

    assert (alive, as_zombie, owner_is_dead(owner)) == (True, True, True)


@on_linux
def test_another_process_with_the_same_id_is_not_the_owner() -> None:
    *proof, started = owner_name().split("/")

    assert owner_is_dead("/".join([*proof, str(int(started) - 1)]))


@pytest.mark.parametrize("position", [3, 4])
def test_of_another_machine_or_container_nothing_is_known(position: int) -> None:
    """The process id is that of nobody, so it would be dead here."""
    owner = f"{owner_name()}/no/proof/here".split("/")[:6]
    owner[1], owner[position] = str(2**22 + 1), "another"

    assert not owner_is_dead("/".join(owner))


@pytest.mark.parametrize("owner", ["", "host/1", "host/1/ab", "a/b/c/d/e/f", "////////", "someone", "host/x/ab/c/d/e"])
def test_of_a_name_that_proves_nothing_nothing_is_known(owner: str) -> None:
    assert not owner_is_dead(owner)


@pytest.mark.parametrize("name", ["a", " ", "'; DROP TABLE threads; --", "../..", "%_*", "\N{FAMILY}\u200d", "x" * 200])
def test_a_name_is_kept_as_it_is(name: str) -> None:
    assert check_name(name) is name


@pytest.mark.parametrize("name", ["", "a\nb", "\x00", "\x7f", "\x9b", "\ud800", "x" * (NAME_LENGTH + 1), 7, None, b"a"])
def test_what_is_no_name_is_refused_in_a_sentence(name: object) -> None:
    with pytest.raises(ConfigurationError, match=r"^the user id .* use 1 to 200 printable characters$") as caught:
        check_name(name, "user id")

    assert len(str(caught.value)) < 200
    assert str(caught.value).isprintable()


def test_ids_have_128_random_bits() -> None:
    first, second = new_id("thr"), new_id("thr")

    assert first != second
    assert first.startswith("thr_")
    assert len(bytes.fromhex(first.removeprefix("thr_"))) * 8 == 128
