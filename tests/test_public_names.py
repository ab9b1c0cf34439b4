"""The public surface: what the root has, that nothing is added or lost by accident, and what importing it loads."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import plait

PUBLIC = """
AfterRequest Agent AgentDefinition AgentError AgentRun AgentTemplates AlreadyAnswered Answer AssistantMessage
AsyncChatStream AsyncImageClient AsyncMCPClient AsyncOpenAIMultiModelAgent AsyncOpenAIMultimodalAgent
AsyncOpenAISimpleAgent AsyncOpenAIStreamingAgent AsyncOpenRouterClient AsyncToolClient AttemptDelta AudioPart
BeforeRequest Budget BudgetExceeded Cancelled ChatCompletion ChatCompletionChunk ChatCompletionMessage ChatForm
ChatStream ConfigurationError ContextNote ContextOverflow ContextWindow CorruptRecord DeadlockError Delta DetailsDelta
Elicited EmptyAnswer Entry Event Expired ExplainedPart Explanation Fallback FilePart FinishDelta Frozen FrozenDict
FunctionCallEnd FunctionCallStart FunctionTool GuardrailError Guardrails ImageEditResponse ImageGenerationResponse
ImagePart InjectionJudge InputCheck InvalidReply LimitExceeded MCPChange MCPClient MCPConnection MCPError MCPHost
MCPServer MemoryStore MemoryStrategy Message MessageAdded MessageResponse MessageStream MessagesDropped
MessagesSummarised MissingExtra ModelDelta ModelError NotReplayable NothingToResume OfflineProvider OpenRouterAPIError
OpenRouterClient OpenRouterConnectionError OpenRouterError OpenRouterModel OpenRouterModelRegistry OutputCheck
OutputInvalid OutputStream PartDelta PlaitError PrefixChanged Price Prices Promise ProtocolViolation Provider
ProviderError RateLimited ReasoningDelta ReasoningPart Recording RefusalDelta Refused Replay ReplayMismatch ReplyError
Request RetryPolicy RetryRule Retrying RunContext RunEnded RunFinished RunLimits RunOptions RunResult RunStarted Scope
Secret SecurityError ServerToolPart SessionGone Settings Spending StaleInteraction StateConflict StopPoll StopReason
StopSignal Store StoreError StoreUnavailable StreamTruncated StreamedPromise SyncStream SystemMessage TextDelta
TextPart TextStream TokenReceived TokenUsage Tool ToolCall ToolCallCheck ToolCallDelta ToolCallFinished
ToolCallStarted ToolClient ToolDefinition ToolError ToolMessage ToolResult ToolResultCheck TransportError
TransportLimits UnknownThread Usage UsageDelta UserMessage Vendor Veto WrongInteraction attachment cassette
create_agent forbid get_memory_strategy get_provider hidden history mcp_host open_store redact register_model
register_provider register_tool said_by_user search_documents spent stats tool unmarked usage
""".split()  # noqa: SIM905  # a list of names is easier to read, and to change, as a text

HEAVY = ("aiohttp", "alembic", "anyio", "docstring_parser", "mcp", "rich", "sqlalchemy", "typer")


def test_the_public_names_are_these() -> None:
    assert sorted(plait.__all__) == PUBLIC
    assert dir(plait) == sorted([*PUBLIC, "__version__"])


@pytest.mark.parametrize("name", PUBLIC)
def test_each_name_is_there_and_says_what_it_is(name: str) -> None:
    assert getattr(plait, name) is not None
    module = sys.modules.get(getattr(getattr(plait, name), "__module__", "plait"))
    assert module is not None
    assert module.__doc__


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'plait' has no attribute 'Agnet'"):
        _ = plait.Agnet


def test_no_public_name_is_a_module_of_the_package() -> None:
    folder = Path(plait.__file__).parent
    modules = {path.stem for path in folder.glob("*.py")} | {path.name for path in folder.iterdir() if path.is_dir()}
    assert modules & set(PUBLIC) == set()


def test_type_checkers_see_the_same_names() -> None:
    source = Path(plait.__file__).read_text(encoding="utf-8")
    stated = [line.split(" as ")[1] for line in source.splitlines() if line.startswith("    from plait.")]
    assert sorted(stated) == PUBLIC


def loaded_by(statement: str) -> list[str]:
    code = f"import json, sys\n{statement}\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return list(json.loads(done.stdout))


def test_a_bare_import_loads_no_other_module_of_plait() -> None:
    assert [name for name in loaded_by("import plait") if name.startswith("plait")] == ["plait"]
    assert not {"asyncio", "pydantic", "msgspec"} & set(loaded_by("import plait"))


def test_an_agent_loads_nothing_heavy() -> None:
    code = "from plait import Agent, tool\nAgent(role='r', provider='offline', store='memory://')"
    loaded = loaded_by(code)
    assert "plait.agent" in loaded
    assert set(HEAVY) & set(loaded) == set()
