from __future__ import annotations

import json
from typing import Any

import pytest

from plait.definition import AgentDefinition, AgentTemplates
from plait.errors import ConfigurationError

WHOLE = AgentDefinition(
    name="Host",
    role="  You help hosts.\n",
    goal="Save them work.",
    constraints=["Be brief.", "Never guess."],
    personality={"tone": "friendly", "style": "practical"},
    examples=[{"user": "Hi", "assistant": "Hello!"}, {"user": "Bye", "assistant": "See you."}],
)


def test_compile() -> None:
    assert WHOLE.compile() == (
        "You help hosts.\n\n"
        "Goal: Save them work.\n\n"
        "Constraints:\n- Be brief.\n- Never guess.\n\n"
        "Personality:\n- tone: friendly\n- style: practical\n\n"
        "Examples:\n\nUser: Hi\nAssistant: Hello!\n\nUser: Bye\nAssistant: See you."
    )
    assert AgentDefinition(role="You are brief.").compile() == "You are brief."
    assert AgentDefinition(role="").compile() == ""


def test_a_definition_is_a_value() -> None:
    assert AgentDefinition(role="r", constraints=["a"], personality={"tone": "x"}) == AgentDefinition(
        role="r", constraints=("a",), personality={"tone": "x"}
    )
    assert hash(WHOLE) == hash(WHOLE.model_copy())
    assert repr(AgentDefinition(role="r", goal="g")) == "AgentDefinition(role='r', goal='g')"
    with pytest.raises(AttributeError, match="read-only"):
        WHOLE.role = "x"
    assert WHOLE.model_copy(update={"goal": None}).goal is None


def test_what_the_caller_gave_stays_theirs() -> None:
    rules, traits = ["a"], {"tone": "x"}
    made = AgentDefinition(role="r", constraints=rules, personality=traits)
    rules.append("b")
    traits["tone"] = "y"
    assert (made.constraints, made.personality) == (("a",), {"tone": "x"})


@pytest.mark.parametrize("definition", [WHOLE, AgentTemplates.assistant(), AgentDefinition(role="")])
def test_a_definition_survives_as_plain_data(definition: AgentDefinition) -> None:
    again = AgentDefinition(**json.loads(json.dumps(definition.to_dict())))
    assert again == definition
    assert again.compile() == definition.compile()
    assert again.hash_key == definition.hash_key


def test_plain_data() -> None:
    assert AgentDefinition(role="r", constraints=["a"], personality={"tone": "x"}).to_dict() == {
        "role": "r",
        "constraints": ["a"],
        "personality": {"tone": "x"},
    }


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({}, "role: field required"),
        ({"role": None}, "role: input should be a valid string (given: None)"),
        ({"rules": []}, "rules: extra inputs are not permitted"),
        ({"constraints": "be brief"}, "constraints: input should be a valid tuple (given: 'be brief')"),
        ({"constraints": [1]}, "constraints.0: input should be a valid string (given: 1)"),
        ({"personality": "kind"}, "personality: input should be a mapping"),
        ({"examples": ["hi"]}, "examples.0: input should be a mapping"),
        (
            {"examples": [{"user": "a", "asistant": "b"}]},
            "examples.0 should have a 'user' and an 'assistant' text; it has 'user', 'asistant'",
        ),
        ({"examples": [{}]}, "examples.0 should have a 'user' and an 'assistant' text; it has nothing"),
    ],
)
def test_wrong_input_is_one_sentence(fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        AgentDefinition(**({"role": "r", **fields} if fields else {}))
    assert str(raised.value) == f"AgentDefinition is not valid: {sentence}"


def test_templates() -> None:
    assistant = AgentTemplates.assistant("Ada")
    assert assistant.name == "Ada"
    assert assistant.compile().startswith("You are Ada, an assistant")
    papers = AgentTemplates.rag_assistant("Ada", domain="archive")
    assert papers.name == "Ada"
    assert "questions about the archive from its documents" in papers.compile()
    assert "Search the documents before you answer a question of fact." in papers.constraints
    manager = AgentTemplates.property_manager()
    assert manager.name == "Property manager"
    for made in (assistant, papers, manager, AgentTemplates.assistant(), AgentTemplates.rag_assistant()):
        assert made.goal
        assert made.constraints
        assert dict(made.personality).keys() == {"tone", "style"}
