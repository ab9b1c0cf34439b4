from __future__ import annotations

import copy
import dataclasses
import json
import logging
import pickle
import pprint
import traceback
from typing import TYPE_CHECKING

import msgspec
import pydantic_core
import pytest
from pydantic import BaseModel, ConfigDict

from plait.errors import ConfigurationError, PlaitError
from plait.interrupts import Secret
from plait.messages import Message
from plait.plain import FrozenDict, to_json
from plait.run import RunContext

if TYPE_CHECKING:
    from collections.abc import Callable

VALUE = "hunter2-\u00e9-xyzzy"
SECRET = Secret(VALUE)


class Holder(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    secret: Secret


def formatted(value: object) -> str:
    return "%s %r" % (value, value)  # noqa: UP031  # one of the ways in which text is made


@pytest.mark.parametrize(
    "show",
    [
        repr,
        str,
        ascii,
        format,
        formatted,
        pprint.pformat,
        lambda secret: f"{secret} {secret!r} {secret!s} {secret!a} {secret:>40} {secret:.2}",
        lambda secret: "{} {0!r}".replace("{}", "{0}").format(secret),
        lambda secret: repr([secret, {"a": secret}, RunContext(deps=None, secrets={"a": secret})]),
        lambda secret: repr(Holder(secret=secret)),
        lambda secret: repr(dataclasses.asdict(RunContext(deps=secret, secrets={"a": secret}))),
        lambda secret: json.dumps({"a": secret}, default=str),
        lambda secret: pydantic_core.to_json(secret, serialize_unknown=True).decode(),
        lambda secret: str(PlaitError(secret)),
        lambda secret: repr(vars(type(secret))),
        lambda secret: repr(dir(secret)),
    ],
)
def test_no_text_form_shows_the_value(show: Callable[[Secret], str]) -> None:
    shown = show(SECRET)
    assert shown
    assert "hunter2" not in shown
    assert "xyzzy" not in shown


@pytest.mark.parametrize(
    "use",
    [
        json.dumps,
        pickle.dumps,
        to_json,
        msgspec.json.encode,
        msgspec.to_builtins,
        pydantic_core.to_json,
        lambda secret: Holder(secret=secret).model_dump_json(),
        lambda secret: Message(metadata={"a": secret}),
        lambda secret: Message(text=secret),
        lambda secret: FrozenDict({"a": secret}),
        "".join,
        lambda secret: "a" + secret,
        iter,
        lambda secret: secret[0],
        len,
        bytes,
        int,
    ],
)
def test_what_would_write_it_down_refuses(use: Callable[[object], object]) -> None:
    with pytest.raises((TypeError, ValueError)) as raised:
        use(SECRET)
    assert VALUE not in "".join(traceback.format_exception(raised.value))


def test_logs_do_not_show_it(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("plait.test").info("%s %r", SECRET, {"a": SECRET})
    assert caplog.messages == ["Secret('***') {'a': Secret('***')}"]


def test_reveal_gives_the_value() -> None:
    assert SECRET.reveal() == VALUE
    assert (str(SECRET), repr(SECRET), f"{SECRET}") == ("Secret('***')", "Secret('***')", "***")


def test_equality_and_copies() -> None:
    assert Secret("a") == Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert len({Secret("a"), Secret("a"), Secret("b")}) == 2
    assert copy.copy(SECRET) is copy.deepcopy(SECRET) is SECRET
    context = RunContext(deps=None, secrets={"a": SECRET})
    assert dataclasses.asdict(context)["secrets"] == {"a": SECRET}
    with pytest.raises(TypeError, match="a Secret cannot be pickled"):
        pickle.dumps(context)


@pytest.mark.parametrize("value", [None, 3, b"bytes", SECRET])
def test_a_secret_holds_text(value: object) -> None:
    with pytest.raises(ConfigurationError, match="a Secret holds a text, not ") as raised:
        Secret(value)  # type: ignore[arg-type]
    assert "bytes'" not in str(raised.value)
