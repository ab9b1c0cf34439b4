"""Who an agent is: role, goal, constraints, personality and examples, compiled into its system prompt."""

from __future__ import annotations

from typing import Any

from plait.errors import ConfigurationError, excerpt
from plait.frozen import Frozen, JsonObject, TupleOf
from plait.plain import EMPTY


class AgentDefinition(Frozen):
    """Structured instructions for an agent.

    Attributes:
        role: who it is; the first paragraph of the prompt.
        goal: what it is for.
        constraints: rules it keeps.
        personality: traits by name, such as ``{"tone": "friendly", "style": "practical"}``.
        examples: exchanges to follow, each ``{"user": ..., "assistant": ...}``.
        name: what the agent is called, where the definition knows.

    Raises:
        ConfigurationError: a field is unknown or of the wrong type, or an example is no such exchange.
    """

    role: str
    goal: str | None = None
    constraints: TupleOf[str] = ()
    personality: JsonObject = EMPTY
    examples: TupleOf[JsonObject] = ()
    name: str | None = None

    def model_post_init(self, context: Any, /) -> None:
        """Look at the examples: a misspelt key would otherwise be an empty line in the prompt."""
        super().model_post_init(context)
        for number, example in enumerate(self.examples):
            if example.keys() != {"user", "assistant"}:
                keys = excerpt(", ".join(map(repr, example)), 60) or "nothing"
                msg = f"examples.{number} should have a 'user' and an 'assistant' text; it has {keys}"
                raise ConfigurationError(msg)

    def compile(self) -> str:
        """Give the system prompt; the same definition gives the same text in every process."""
        blocks = [self.role.strip()]
        if self.goal:
            blocks.append(f"Goal: {self.goal}")
        if self.constraints:
            blocks.append("Constraints:\n" + "\n".join(f"- {rule}" for rule in self.constraints))
        if self.personality:
            traits = (f"- {trait}: {value}" for trait, value in self.personality.items())
            blocks.append("Personality:\n" + "\n".join(traits))
        if self.examples:
            shown = (f"User: {example['user']}\nAssistant: {example['assistant']}" for example in self.examples)
            blocks.append("Examples:\n\n" + "\n\n".join(shown))
        return "\n\n".join(blocks)

    def to_dict(self) -> dict[str, Any]:
        """Give the definition as plain data, as `AgentDefinition(**data)` takes it."""
        return self.to_json()


class AgentTemplates:
    """Definitions for common uses."""

    @staticmethod
    def assistant(name: str = "Assistant") -> AgentDefinition:
        """Give a general assistant."""
        return AgentDefinition(
            name=name,
            role=f"You are {name}, an assistant that answers questions and helps with everyday tasks.",
            goal="Give correct, useful answers with as few words as they need.",
            constraints=("Say so when you do not know something.", "Ask when a request can be read in two ways."),
            personality={"tone": "friendly", "style": "clear"},
        )

    @staticmethod
    def rag_assistant(name: str = "Assistant", domain: str = "knowledge base") -> AgentDefinition:
        """Give an assistant that answers from documents; offer it the ``search_documents`` tool."""
        return AgentDefinition(
            name=name,
            role=f"You are {name}, an assistant that answers questions about the {domain} from its documents.",
            goal=f"Answer from the {domain}, and say which document an answer comes from.",
            constraints=(
                "Search the documents before you answer a question of fact.",
                "Answer only from what the search found; say so when it found nothing.",
                "Name the documents you used.",
            ),
            personality={"tone": "helpful", "style": "precise"},
        )

    @staticmethod
    def property_manager() -> AgentDefinition:
        """Give an assistant for hosts of holiday homes."""
        return AgentDefinition(
            name="Property manager",
            role="You assist the hosts of holiday rentals with running their properties.",
            goal="Take everyday work off the hosts: guests' questions, bookings, cleaning and repairs.",
            constraints=(
                "Speak only of properties that are in the system.",
                "Look facts up with the tools before you state them.",
                "Never give door codes, keys or personal data of guests to anyone but the host.",
            ),
            personality={"tone": "friendly", "style": "practical"},
        )
