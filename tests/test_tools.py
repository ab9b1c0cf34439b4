from __future__ import annotations

import functools
import gc
import inspect
import weakref
from typing import TYPE_CHECKING, Annotated, Any

import pytest

from plait.errors import ConfigurationError, ToolError
from plait.interrupts import Secret
from plait.run import RunContext
from plait.toolbase import prepare, source_of
from plait.tools import FunctionTool, Tool, ToolDefinition, as_tool, find_tools, register_tool, tool

if TYPE_CHECKING:
    from plait.run import RunContext as Hidden

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


def get_weather(city: str) -> str:
    """Get the weather."""
    return f"Sunny in {city}"


def told(made: Tool) -> tuple[str, str, dict[str, Any], bool]:
    definition = prepare(made).definition
    return definition.name, definition.description, definition.parameters, definition.strict


class WeatherTool(Tool):
    name = "get_weather"
    description = "Get the weather."

    async def execute(self, city: str) -> str:
        return f"Sunny in {city}"


def test_decorator_class_dict_and_function_say_the_same_to_the_model() -> None:
    expected = (
        "get_weather",
        "Get the weather.",
        {**CITY, "additionalProperties": False},
        True,
    )
    assert told(tool(get_weather)) == expected
    assert told(tool(description="Get the weather.")(get_weather)) == expected
    assert told(WeatherTool()) == expected
    assert told(as_tool({"name": "get_weather", "func": get_weather})) == expected
    assert told(as_tool(get_weather)) == expected


@pytest.mark.parametrize(
    "schema",
    [
        CITY,
        {"name": "get_weather", "description": "By hand.", "parameters": CITY},
        {"type": "function", "function": {"name": "get_weather", "description": "By hand.", "parameters": CITY}},
        {"name": "get_weather", "description": "By hand.", "input_schema": CITY},
    ],
)
def test_a_schema_written_by_hand_is_used_as_given(schema: dict[str, Any]) -> None:
    made = as_tool({"name": "get_weather", "function_schema": schema, "func": get_weather})
    description = "Get the weather." if schema is CITY else "By hand."
    assert told(made) == ("get_weather", description, CITY, False)


def test_a_class_may_write_its_definition_by_hand() -> None:
    class ByHand(Tool):
        name = "by_hand"
        description = "By hand."

        async def execute(self, **given: Any) -> Any:
            return given

        def get_definition(self) -> ToolDefinition:
            return ToolDefinition(name=self.name, description=self.description, parameters=CITY)

    made = ByHand()
    assert told(made) == ("by_hand", "By hand.", CITY, False)
    assert prepare(made) is prepare(made)
    assert prepare(made).validate('{"city": "Bonn", "more": 1}') == {"city": "Bonn", "more": 1}


STRICT_CITY = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "days": {"type": ["integer", "null"]},
        "unit": {"enum": ["C", "F"]},
        "stops": {"type": "array", "items": {"$ref": "#/$defs/stop"}},
        "either": {"anyOf": [{"type": "string"}, {"type": "boolean"}]},
    },
    "required": ["city"],
    "additionalProperties": False,
    "$defs": {"stop": {"type": "object", "properties": {"at": {"type": "number"}}, "required": ["at"]}},
}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "'city' is missing"),
        ("[]", "the value should be object, got a list of 0"),
        ('{"city": 1}', "'city' should be string, got 1"),
        ('{"city": "a", "town": 1}', "'town' is not known here; known are: city, days, unit, stops, either"),
        ('{"city": "a", "days": 1.5}', "'days' should be integer or null, got 1.5"),
        ('{"city": "a", "days": true}', "'days' should be integer or null, got true"),
        ('{"city": "a", "unit": "K"}', '\'unit\' should be one of "C", "F", got "K"'),
        ('{"city": "a", "stops": [{"at": 1}, {}]}', "'stops[1].at' is missing"),
        ('{"city": "a", "either": 1}', "'either' fits none of the 2 forms it may have, got 1"),
    ],
)
def test_arguments_are_checked_against_a_schema_written_by_hand(text: str, sentence: str) -> None:
    made = as_tool({"name": "use", "function_schema": STRICT_CITY, "func": get_weather})
    with pytest.raises(ToolError) as caught:
        prepare(made).validate(text)
    assert str(caught.value) == f"wrong arguments for 'use': {sentence}"


def test_arguments_that_fit_a_schema_written_by_hand_are_plain_data() -> None:
    made = as_tool({"name": "use", "function_schema": STRICT_CITY, "func": get_weather})
    given = {"city": "a", "days": None, "unit": "C", "stops": [{"at": 1}], "either": True}
    text = '{"city": "a", "days": null, "unit": "C", "stops": [{"at": 1}], "either": true}'
    assert prepare(made).validate(text) == given


def test_a_schema_that_refers_to_itself_ends() -> None:
    loop = {"type": "object", "properties": {"a": {"$ref": "#/$defs/a"}}, "$defs": {"a": {"$ref": "#/$defs/a"}}}
    made = as_tool({"name": "use", "function_schema": loop, "func": get_weather})
    assert prepare(made).validate('{"a": 1}') == {"a": 1}


def test_what_the_decorator_returns_can_be_called() -> None:
    @tool(name="area_of", description="Area.", timeout=5, idempotent=True, exclusive=True, max_result=10)
    def area(width: int, height: int = 2) -> int:
        return width * height

    assert area(3) == 6
    assert area(width=3, height=4) == 12
    assert str(inspect.signature(area)) == "(width: 'int', height: 'int' = 2) -> 'int'"
    assert (area.name, area.description, area.timeout, area.idempotent, area.exclusive, area.max_result) == (
        "area_of",
        "Area.",
        5,
        True,
        True,
        10,
    )
    assert repr(area) == "FunctionTool(name='area_of')"
    with pytest.raises(AttributeError):
        area.name = "other"  # type: ignore[misc]  # that it is refused is the point


async def test_an_async_function_stays_one() -> None:
    @tool
    async def double(x: int) -> int:
        return 2 * x

    assert await double(4) == 8


def test_a_method_becomes_a_tool_of_its_object() -> None:
    class Shop:
        def __init__(self, name: str) -> None:
            self.name = name

        @tool
        def sell(self, item: str) -> str:
            """Sell."""
            return f"{self.name} sells {item}"

    made = as_tool(Shop("A").sell)
    assert told(made)[2] == {
        "type": "object",
        "properties": {"item": {"type": "string"}},
        "required": ["item"],
        "additionalProperties": False,
    }
    assert made.execute(item="tea") == "A sells tea"
    assert prepare(made).definition is prepare(as_tool(Shop("B").sell)).definition
    with pytest.raises(ConfigurationError, match=r"tools=\[thing.sell\]"):
        Shop.sell.execute(item="tea")
    with pytest.raises(ConfigurationError, match=r"tools=\[thing.sell\]"):
        as_tool(Shop.sell)


def test_a_tool_in_a_class_body_is_no_method_of_it() -> None:
    made = tool(get_weather)

    class Setup:
        favourite = made

    assert Setup().favourite is made


@pytest.mark.parametrize(
    ("annotation", "name", "expected"),
    [
        (str, "user_id", "user_id"),
        (str, "chat_id", "chat_id"),
        (str, "thread_id", "thread_id"),
        (str, "agent_name", "agent_name"),
        (str, "city", None),
        (RunContext, "ctx", "context"),
        (RunContext[int], "ctx", "context"),
        (RunContext[int] | None, "ctx", "context"),
        (Annotated[RunContext[int], "x"], "ctx", "context"),
        ("Hidden[int]", "ctx", None),
        ("RunContext[int]", "ctx", "context"),
        ("plait.RunContext | None", "ctx", "context"),
        ("Optional[Secret]", "token", "secret"),
        ("MySecretary", "token", None),
        (Secret, "token", "secret"),
        (Secret | None, "token", "secret"),
    ],
)
def test_what_the_run_fills_is_told_by_name_and_type(annotation: Any, name: str, expected: str | None) -> None:
    assert source_of(name, annotation) == expected


def test_what_the_run_fills_is_never_in_the_schema() -> None:
    def use(city: str, *, user_id: str, chat_id: str, agent_name: str, ctx: RunContext[Any], token: Secret) -> None: ...

    made = prepare(as_tool(use))
    assert list(made.definition.parameters["properties"]) == ["city"]
    assert dict(made.injected) == {
        "user_id": "user_id",
        "chat_id": "chat_id",
        "agent_name": "agent_name",
        "ctx": "context",
        "token": "secret",
    }


def test_a_type_imported_for_type_checkers_only_is_refused_unless_it_is_known_by_its_text() -> None:
    def use(ctx: Hidden[Any]) -> None: ...

    with pytest.raises(ConfigurationError, match="annotation 'Hidden\\[Any\\]' of the parameter 'ctx'"):
        as_tool(use)


def test_a_function_is_made_a_tool_once() -> None:
    def use(x: int) -> None: ...

    @functools.wraps(use)
    def wrapper(x: int) -> None: ...

    assert as_tool(use) is as_tool(use)
    wrapped = as_tool(wrapper)
    assert isinstance(wrapped, FunctionTool)
    assert wrapped.function is wrapper


def _used_once() -> weakref.ref[Any]:
    def use(x: int) -> None: ...

    as_tool(use)
    return weakref.ref(use)


def test_a_function_ends_with_its_tool() -> None:
    gone = _used_once()
    gc.collect()
    assert gone() is None


def no_name(x: int) -> None: ...


no_name.__name__ = "a name with blanks"


@pytest.mark.parametrize(
    ("form", "sentence"),
    [
        (WeatherTool, r"the class WeatherTool is no tool: .*; pass an instance: WeatherTool\(\)$"),
        (42, r"^int 42 is no tool: give a function, a Tool, a dict with 'func', or a registered name$"),
        ({"name": "x"}, r"^the tool 'x' needs a function under 'func'$"),
        ({"func": get_weather, "execution": "locked"}, r"has unknown keys: execution; known are: description, "),
        ({"func": get_weather, "function_schema": "x"}, r"must be a dict, not str 'x'"),
        ({"func": get_weather, "function_schema": {"type": "array", "properties": {}}}, r"an object at its root"),
        ({"func": get_weather, "timeout": 0}, r"timeout of the tool 'get_weather' must be seconds above 0"),
        ({"func": get_weather, "max_result": -1}, r"max_result of the tool 'get_weather'"),
        (
            {"func": get_weather, "isolate": "yes"},
            r"^isolate of the tool 'get_weather' must be True or False, not 'yes'$",
        ),
        (
            {"func": get_weather, "idempotent": 1},
            r"^idempotent of the tool 'get_weather' must be True or False, not 1$",
        ),
        ({"func": get_weather, "exclusive": None}, r"^exclusive of the tool 'get_weather' must be .*, not None$"),
        (
            {"func": get_weather, "function_schema": {"name": "x", "parameters": {}, "strict": "no"}},
            r"^strict of the tool 'x' must be True or False, not 'no'$",
        ),
        ({"func": get_weather, "name": "get weather"}, r"'get weather' \(get_weather\) is no name for a tool"),
        (lambda x: x, r"'<lambda>' \(<lambda>\) is no name for a tool: .* set name='...'"),
        (no_name, "'a name with blanks'"),
    ],
)
def test_what_is_no_tool_is_refused_with_a_sentence(form: Any, sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        as_tool(form)


def test_a_class_without_a_name_is_refused() -> None:
    class Nameless(Tool):
        def execute(self) -> None: ...

    with pytest.raises(ConfigurationError, match=r"'' \(Nameless\) is no name for a tool"):
        as_tool(Nameless())


@pytest.mark.parametrize("option", ["isolate", "idempotent", "exclusive", "strict"])
def test_what_is_on_or_off_takes_no_text(option: str) -> None:
    said = f"^{option} of the tool 'switched' must be True or False, not 'yes'$"

    def switched() -> None: ...

    wrong: Any = {option: "yes"}
    with pytest.raises(ConfigurationError, match=said):
        tool(**wrong)(switched)

    class Switched(Tool):
        name = "switched"

        def execute(self) -> None: ...

    if option == "strict":  # a class says it in its definition
        definition = ToolDefinition(name="switched", **wrong)
        wrong = {"get_definition": lambda _: definition}
    with pytest.raises(ConfigurationError, match=said):
        as_tool(type("Made", (Switched,), wrong)())


def test_the_decorator_goes_on_functions_only() -> None:
    with pytest.raises(ConfigurationError, match="@tool goes on a function, not on the class WeatherTool"):
        tool(WeatherTool)


def test_the_decorator_registers_and_a_name_finds_the_tool() -> None:
    @tool(name="registered_by_decorator")
    def use() -> None: ...

    by_class = register_tool(WeatherTool())
    found = find_tools(["registered_by_decorator", "get_weather"])
    assert found == {"registered_by_decorator": use, "get_weather": by_class}
    assert list(found) == ["registered_by_decorator", "get_weather"]


def test_the_latest_of_one_module_or_of_a_function_is_found() -> None:
    def define() -> FunctionTool[..., Any]:
        @tool(name="defined_again")
        def use() -> None: ...

        return use

    define()
    again = define()
    assert find_tools(["defined_again"]) == {"defined_again": again}

    @tool(name="defined_again")
    def other() -> None: ...

    assert find_tools(["defined_again"]) == {"defined_again": other}


def _module(name: str, file: str) -> FunctionTool[..., Any]:
    """Run a module's text, as importing it, or running a notebook cell, would."""
    source = "from plait import tool\n@tool\ndef look_up(x: int) -> int:\n    return x\n"
    scope: dict[str, Any] = {"__name__": name}
    source = source.replace("from plait import tool", "from plait.tools import tool")
    exec(compile(source, file, "exec"), scope)  # noqa: S102  # there is no other way to be two modules
    made: FunctionTool[..., Any] = scope["look_up"]
    return made


def test_a_module_or_cell_that_runs_again_replaces_its_tool() -> None:
    _module("shop_a", "<cell 1>")
    again = _module("shop_a", "<cell 2>")
    assert find_tools(["look_up"]) == {"look_up": again}
    as_script = _module("__main__", "<cell 2>")
    assert find_tools(["look_up"]) == {"look_up": as_script}


def test_one_name_for_tools_of_two_modules_is_an_error_only_where_it_is_named() -> None:
    first = _module("shop_b", "b.py")
    second = _module("shop_c", "c.py")
    with pytest.raises(
        ConfigurationError, match=r"'look_up' stands for several tools: .*shop_b.look_up and shop_c.look_up"
    ):
        find_tools(["look_up"])
    assert find_tools([first]) == {"look_up": first}
    assert find_tools([second]) == {"look_up": second}


def test_an_unknown_name_is_refused_with_names_like_it() -> None:
    @tool(name="get_the_temperature")
    def use() -> None: ...

    with pytest.raises(
        ConfigurationError, match=r"^there is no tool 'get_temperature'; the tools are: get_the_temperat"
    ):
        find_tools(["get_temperature"])


def test_ready_made_tools_are_found_after_registered_ones() -> None:
    made = as_tool(get_weather)

    @tool(name="both")
    def both() -> None: ...

    found = find_tools(["ready", "both"], {"ready": lambda: made, "both": lambda: made})
    assert found == {"get_weather": made, "both": both}


def test_two_tools_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="two tools are named 'get_weather'"):
        find_tools([get_weather, WeatherTool()])
    assert list(find_tools([get_weather, get_weather])) == ["get_weather"]
