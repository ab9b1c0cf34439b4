"""plait: LLM agents that can be trusted in production.

::

    import asyncio
    from plait import Agent

    print(asyncio.run(Agent(role="You are helpful.").chat("Hello!")))

Every public name is imported from here, and loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from plait.agent import Agent as Agent
    from plait.agent import create_agent as create_agent
    from plait.attachments import attachment as attachment
    from plait.builtin import search_documents as search_documents
    from plait.clients.chat import AsyncOpenRouterClient as AsyncOpenRouterClient
    from plait.clients.completions import ChatCompletion as ChatCompletion
    from plait.clients.completions import ChatCompletionChunk as ChatCompletionChunk
    from plait.clients.completions import ChatCompletionMessage as ChatCompletionMessage
    from plait.clients.completions import TokenUsage as TokenUsage
    from plait.clients.mcp import AsyncMCPClient as AsyncMCPClient
    from plait.clients.mcp import MCPClient as MCPClient
    from plait.clients.streams import AsyncChatStream as AsyncChatStream
    from plait.clients.streams import ChatStream as ChatStream
    from plait.clients.sync import OpenRouterClient as OpenRouterClient
    from plait.clients.sync import ToolClient as ToolClient
    from plait.clients.tools import AsyncToolClient as AsyncToolClient
    from plait.context.window import ContextWindow as ContextWindow
    from plait.context.window import LastN as LastN
    from plait.context.window import MemoryStrategy as MemoryStrategy
    from plait.context.window import get_memory_strategy as get_memory_strategy
    from plait.definition import AgentDefinition as AgentDefinition
    from plait.definition import AgentTemplates as AgentTemplates
    from plait.entries import ContextNote as ContextNote
    from plait.entries import Entry as Entry
    from plait.errors import AgentError as AgentError
    from plait.errors import AlreadyAnswered as AlreadyAnswered
    from plait.errors import Cancelled as Cancelled
    from plait.errors import ConfigurationError as ConfigurationError
    from plait.errors import CorruptRecord as CorruptRecord
    from plait.errors import DeadlockError as DeadlockError
    from plait.errors import EmptyAnswer as EmptyAnswer
    from plait.errors import Expired as Expired
    from plait.errors import GuardrailError as GuardrailError
    from plait.errors import InvalidReply as InvalidReply
    from plait.errors import LimitExceeded as LimitExceeded
    from plait.errors import MCPError as MCPError
    from plait.errors import MissingExtra as MissingExtra
    from plait.errors import ModelError as ModelError
    from plait.errors import NothingToResume as NothingToResume
    from plait.errors import NotReplayable as NotReplayable
    from plait.errors import OpenRouterAPIError as OpenRouterAPIError
    from plait.errors import OpenRouterConnectionError as OpenRouterConnectionError
    from plait.errors import OpenRouterError as OpenRouterError
    from plait.errors import OutputInvalid as OutputInvalid
    from plait.errors import PlaitError as PlaitError
    from plait.errors import ProtocolViolation as ProtocolViolation
    from plait.errors import ProviderError as ProviderError
    from plait.errors import RateLimited as RateLimited
    from plait.errors import Refused as Refused
    from plait.errors import ReplayMismatch as ReplayMismatch
    from plait.errors import ReplyError as ReplyError
    from plait.errors import SecurityError as SecurityError
    from plait.errors import SessionGone as SessionGone
    from plait.errors import StaleInteraction as StaleInteraction
    from plait.errors import StateConflict as StateConflict
    from plait.errors import StoreError as StoreError
    from plait.errors import StoreUnavailable as StoreUnavailable
    from plait.errors import StreamTruncated as StreamTruncated
    from plait.errors import ToolError as ToolError
    from plait.errors import TransportError as TransportError
    from plait.errors import UnknownThread as UnknownThread
    from plait.errors import WrongInteraction as WrongInteraction
    from plait.events import Answer as Answer
    from plait.events import AttemptDelta as AttemptDelta
    from plait.events import Delta as Delta
    from plait.events import DetailsDelta as DetailsDelta
    from plait.events import Event as Event
    from plait.events import FinishDelta as FinishDelta
    from plait.events import MessageAdded as MessageAdded
    from plait.events import MessagesSummarised as MessagesSummarised
    from plait.events import ModelDelta as ModelDelta
    from plait.events import PartDelta as PartDelta
    from plait.events import ReasoningDelta as ReasoningDelta
    from plait.events import RefusalDelta as RefusalDelta
    from plait.events import RunFinished as RunFinished
    from plait.events import RunStarted as RunStarted
    from plait.events import StopReason as StopReason
    from plait.events import TextDelta as TextDelta
    from plait.events import ToolCallDelta as ToolCallDelta
    from plait.events import ToolCallFinished as ToolCallFinished
    from plait.events import ToolCallStarted as ToolCallStarted
    from plait.events import Usage as Usage
    from plait.events import UsageDelta as UsageDelta
    from plait.explaining import ExplainedPart as ExplainedPart
    from plait.explaining import Explanation as Explanation
    from plait.frozen import Frozen as Frozen
    from plait.guardrails.checks import InputCheck as InputCheck
    from plait.guardrails.checks import OutputCheck as OutputCheck
    from plait.guardrails.checks import ToolCallCheck as ToolCallCheck
    from plait.guardrails.checks import ToolResultCheck as ToolResultCheck
    from plait.guardrails.guarding import Guardrails as Guardrails
    from plait.guardrails.judge import InjectionJudge as InjectionJudge
    from plait.guardrails.patterns import forbid as forbid
    from plait.guardrails.patterns import redact as redact
    from plait.guardrails.provenance import said_by_user as said_by_user
    from plait.guardrails.provenance import unmarked as unmarked
    from plait.hooks import AfterRequest as AfterRequest
    from plait.hooks import BeforeRequest as BeforeRequest
    from plait.hooks import BudgetExceeded as BudgetExceeded
    from plait.hooks import ContextOverflow as ContextOverflow
    from plait.hooks import FunctionCallEnd as FunctionCallEnd
    from plait.hooks import FunctionCallStart as FunctionCallStart
    from plait.hooks import MessagesDropped as MessagesDropped
    from plait.hooks import PrefixChanged as PrefixChanged
    from plait.hooks import RunEnded as RunEnded
    from plait.hooks import TokenReceived as TokenReceived
    from plait.hooks import Veto as Veto
    from plait.interrupts import Secret as Secret
    from plait.limits import Budget as Budget
    from plait.limits import spent as spent
    from plait.log import hidden as hidden
    from plait.log import history as history
    from plait.log import stats as stats
    from plait.log import usage as usage
    from plait.mcp.client.connection import MCPConnection as MCPConnection
    from plait.mcp.client.toolset import MCPChange as MCPChange
    from plait.mcp.server.host import Elicited as Elicited
    from plait.mcp.server.host import MCPHost as MCPHost
    from plait.mcp.server.host import mcp_host as mcp_host
    from plait.mcp.server.server import MCPServer as MCPServer
    from plait.messages import AssistantMessage as AssistantMessage
    from plait.messages import AudioPart as AudioPart
    from plait.messages import FilePart as FilePart
    from plait.messages import ImagePart as ImagePart
    from plait.messages import Message as Message
    from plait.messages import ReasoningPart as ReasoningPart
    from plait.messages import ServerToolPart as ServerToolPart
    from plait.messages import SystemMessage as SystemMessage
    from plait.messages import TextPart as TextPart
    from plait.messages import ToolCall as ToolCall
    from plait.messages import ToolMessage as ToolMessage
    from plait.messages import ToolResult as ToolResult
    from plait.messages import UserMessage as UserMessage
    from plait.options import RunOptions as RunOptions
    from plait.plain import FrozenDict as FrozenDict
    from plait.portal import SyncStream as SyncStream
    from plait.prices import Price as Price
    from plait.prices import Prices as Prices
    from plait.promises import Promise as Promise
    from plait.promises import Scope as Scope
    from plait.promises import StreamedPromise as StreamedPromise
    from plait.providers.base import Provider as Provider
    from plait.providers.base import Request as Request
    from plait.providers.base import Settings as Settings
    from plait.providers.base import ToolDefinition as ToolDefinition
    from plait.providers.catalog import get_provider as get_provider
    from plait.providers.catalog import register_provider as register_provider
    from plait.providers.fallback import Fallback as Fallback
    from plait.providers.http.reading import TransportLimits as TransportLimits
    from plait.providers.images import AsyncImageClient as AsyncImageClient
    from plait.providers.images import ImageEditResponse as ImageEditResponse
    from plait.providers.images import ImageGenerationResponse as ImageGenerationResponse
    from plait.providers.models import OpenRouterModel as OpenRouterModel
    from plait.providers.models import OpenRouterModelRegistry as OpenRouterModelRegistry
    from plait.providers.models import register_model as register_model
    from plait.providers.offline import OfflineProvider as OfflineProvider
    from plait.providers.recording import Recording as Recording
    from plait.providers.recording import Replay as Replay
    from plait.providers.recording import cassette as cassette
    from plait.providers.retry import Retrying as Retrying
    from plait.providers.retry import RetryPolicy as RetryPolicy
    from plait.providers.retry import RetryRule as RetryRule
    from plait.providers.vendors import ChatForm as ChatForm
    from plait.providers.vendors import Vendor as Vendor
    from plait.run import RunContext as RunContext
    from plait.run import RunLimits as RunLimits
    from plait.run import RunResult as RunResult
    from plait.run import StopPoll as StopPoll
    from plait.run import StopSignal as StopSignal
    from plait.simple.agents import AsyncOpenAISimpleAgent as AsyncOpenAISimpleAgent
    from plait.simple.kinds import AsyncOpenAIMultimodalAgent as AsyncOpenAIMultimodalAgent
    from plait.simple.kinds import AsyncOpenAIMultiModelAgent as AsyncOpenAIMultiModelAgent
    from plait.simple.kinds import AsyncOpenAIStreamingAgent as AsyncOpenAIStreamingAgent
    from plait.simple.kinds import MessageStream as MessageStream
    from plait.simple.response import MessageResponse as MessageResponse
    from plait.store.base import Store as Store
    from plait.store.catalog import open_store as open_store
    from plait.store.ledger import Spending as Spending
    from plait.store.memory import MemoryStore as MemoryStore
    from plait.streams import AgentRun as AgentRun
    from plait.streams import OutputStream as OutputStream
    from plait.streams import TextStream as TextStream
    from plait.tools import FunctionTool as FunctionTool
    from plait.tools import Tool as Tool
    from plait.tools import register_tool as register_tool
    from plait.tools import tool as tool

# Where each public name lives. A name costs its module only when it is used (a bare `import plait` costs nothing).
_HOME = {
    "plait.agent": (
        "Agent",
        "create_agent",
    ),
    "plait.attachments": ("attachment",),
    "plait.builtin": ("search_documents",),
    "plait.clients.chat": ("AsyncOpenRouterClient",),
    "plait.clients.completions": (
        "ChatCompletion",
        "ChatCompletionChunk",
        "ChatCompletionMessage",
        "TokenUsage",
    ),
    "plait.clients.mcp": (
        "AsyncMCPClient",
        "MCPClient",
    ),
    "plait.clients.streams": (
        "AsyncChatStream",
        "ChatStream",
    ),
    "plait.clients.sync": (
        "OpenRouterClient",
        "ToolClient",
    ),
    "plait.clients.tools": ("AsyncToolClient",),
    "plait.context.window": (
        "ContextWindow",
        "LastN",
        "MemoryStrategy",
        "get_memory_strategy",
    ),
    "plait.definition": (
        "AgentDefinition",
        "AgentTemplates",
    ),
    "plait.entries": (
        "ContextNote",
        "Entry",
    ),
    "plait.errors": (
        "AgentError",
        "AlreadyAnswered",
        "Cancelled",
        "ConfigurationError",
        "CorruptRecord",
        "DeadlockError",
        "EmptyAnswer",
        "Expired",
        "GuardrailError",
        "InvalidReply",
        "LimitExceeded",
        "MCPError",
        "MissingExtra",
        "ModelError",
        "NotReplayable",
        "NothingToResume",
        "OpenRouterAPIError",
        "OpenRouterConnectionError",
        "OpenRouterError",
        "OutputInvalid",
        "PlaitError",
        "ProtocolViolation",
        "ProviderError",
        "RateLimited",
        "Refused",
        "ReplayMismatch",
        "ReplyError",
        "SecurityError",
        "SessionGone",
        "StaleInteraction",
        "StateConflict",
        "StoreError",
        "StoreUnavailable",
        "StreamTruncated",
        "ToolError",
        "TransportError",
        "UnknownThread",
        "WrongInteraction",
    ),
    "plait.events": (
        "Answer",
        "AttemptDelta",
        "Delta",
        "DetailsDelta",
        "Event",
        "FinishDelta",
        "MessageAdded",
        "MessagesSummarised",
        "ModelDelta",
        "PartDelta",
        "ReasoningDelta",
        "RefusalDelta",
        "RunFinished",
        "RunStarted",
        "StopReason",
        "TextDelta",
        "ToolCallDelta",
        "ToolCallFinished",
        "ToolCallStarted",
        "Usage",
        "UsageDelta",
    ),
    "plait.explaining": (
        "ExplainedPart",
        "Explanation",
    ),
    "plait.frozen": ("Frozen",),
    "plait.guardrails.checks": (
        "InputCheck",
        "OutputCheck",
        "ToolCallCheck",
        "ToolResultCheck",
    ),
    "plait.guardrails.guarding": ("Guardrails",),
    "plait.guardrails.judge": ("InjectionJudge",),
    "plait.guardrails.patterns": (
        "forbid",
        "redact",
    ),
    "plait.guardrails.provenance": (
        "said_by_user",
        "unmarked",
    ),
    "plait.hooks": (
        "AfterRequest",
        "BeforeRequest",
        "BudgetExceeded",
        "ContextOverflow",
        "FunctionCallEnd",
        "FunctionCallStart",
        "MessagesDropped",
        "PrefixChanged",
        "RunEnded",
        "TokenReceived",
        "Veto",
    ),
    "plait.interrupts": ("Secret",),
    "plait.limits": (
        "Budget",
        "spent",
    ),
    "plait.log": (
        "hidden",
        "history",
        "stats",
        "usage",
    ),
    "plait.mcp.client.connection": ("MCPConnection",),
    "plait.mcp.client.toolset": ("MCPChange",),
    "plait.mcp.server.host": (
        "Elicited",
        "MCPHost",
        "mcp_host",
    ),
    "plait.mcp.server.server": ("MCPServer",),
    "plait.messages": (
        "AssistantMessage",
        "AudioPart",
        "FilePart",
        "ImagePart",
        "Message",
        "ReasoningPart",
        "ServerToolPart",
        "SystemMessage",
        "TextPart",
        "ToolCall",
        "ToolMessage",
        "ToolResult",
        "UserMessage",
    ),
    "plait.options": ("RunOptions",),
    "plait.plain": ("FrozenDict",),
    "plait.portal": ("SyncStream",),
    "plait.prices": (
        "Price",
        "Prices",
    ),
    "plait.promises": (
        "Promise",
        "Scope",
        "StreamedPromise",
    ),
    "plait.providers.base": (
        "Provider",
        "Request",
        "Settings",
        "ToolDefinition",
    ),
    "plait.providers.catalog": (
        "get_provider",
        "register_provider",
    ),
    "plait.providers.fallback": ("Fallback",),
    "plait.providers.http.reading": ("TransportLimits",),
    "plait.providers.images": (
        "AsyncImageClient",
        "ImageEditResponse",
        "ImageGenerationResponse",
    ),
    "plait.providers.models": (
        "OpenRouterModel",
        "OpenRouterModelRegistry",
        "register_model",
    ),
    "plait.providers.offline": ("OfflineProvider",),
    "plait.providers.recording": (
        "Recording",
        "Replay",
        "cassette",
    ),
    "plait.providers.retry": (
        "RetryPolicy",
        "RetryRule",
        "Retrying",
    ),
    "plait.providers.vendors": (
        "ChatForm",
        "Vendor",
    ),
    "plait.run": (
        "RunContext",
        "RunLimits",
        "RunResult",
        "StopPoll",
        "StopSignal",
    ),
    "plait.simple.agents": ("AsyncOpenAISimpleAgent",),
    "plait.simple.kinds": (
        "AsyncOpenAIMultiModelAgent",
        "AsyncOpenAIMultimodalAgent",
        "AsyncOpenAIStreamingAgent",
        "MessageStream",
    ),
    "plait.simple.response": ("MessageResponse",),
    "plait.store.base": ("Store",),
    "plait.store.catalog": ("open_store",),
    "plait.store.ledger": ("Spending",),
    "plait.store.memory": ("MemoryStore",),
    "plait.streams": (
        "AgentRun",
        "OutputStream",
        "TextStream",
    ),
    "plait.tools": (
        "FunctionTool",
        "Tool",
        "register_tool",
        "tool",
    ),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = sorted(_MODULE_OF)  # noqa: PLE0605  # one list of names is enough


def __getattr__(name: str) -> object:
    module = _MODULE_OF.get(name)
    if module is None:
        if name == "__version__":
            from importlib.metadata import version  # 30 ms, and hardly ever asked for

            return version("plait")
        msg = f"module 'plait' has no attribute {name!r}"
        raise AttributeError(msg)
    value = getattr(import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
