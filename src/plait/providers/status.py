"""What a provider's error answer means: typed errors from a status, headers and body.

Pure functions; they know no HTTP library and no dialect. Every provider reports errors as JSON in one of a few
shapes, behind proxies that answer in HTML or not at all.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from datetime import UTC
from email.utils import parsedate_to_datetime
from math import inf, isfinite
from typing import TYPE_CHECKING, Any, Final

from plait.errors import ProtocolViolation, ProviderError, RateLimited, excerpt
from plait.plain import parse_json

if TYPE_CHECKING:
    from collections.abc import Mapping

TOO_MANY_REQUESTS: Final = 429
_UNAUTHORIZED: Final = 401
_NOT_FOUND: Final = 404
_SERVER_ERROR: Final = 500
_RETRYABLE: Final = frozenset({408, 409, TOO_MANY_REQUESTS})
_REQUEST_IDS: Final = ("x-request-id", "request-id", "x-generation-id", "cf-ray")
_NUMBER: Final = re.compile(r"\s*\+?(\d+\.?\d*|\.\d+)(e\+?\d+)?\s*", re.ASCII | re.IGNORECASE)
_HTTP_STATUSES: Final = range(100, 600)
# Words for passing failures, for error objects that carry no status.
_BUSY: Final = frozenset(
    {"server_error", "api_error", "internal_error", "internal_server_error", "timeout", "timeout_error"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """Who is asked for anything, for the sentences of errors.

    Attributes:
        address: its host and port.
        provider: the vendor's name; None for who is none.
        unreachable: what to do when nobody answers at the address.
        secrets: texts that must not appear in an error: the key, and what else authorises.
    """

    address: str
    provider: str | None = None
    unreachable: str = "check the address"
    secrets: tuple[str, ...] = field(default=(), repr=False)

    def clean(self, text: str) -> str:
        """Cut the secrets out of what the provider wrote: some repeat the key they refuse."""
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return text


@dataclass(frozen=True, slots=True, kw_only=True)
class Service(Host):
    """A provider that is asked, for the sentences of errors.

    Attributes:
        provider: the vendor's name.
        model: the model asked for, or the empty string.
        key_variable: the environment variable its key is usually in, if it needs one.
        unreachable: what to do when nobody answers at the address.
        get_model: the command that gets the model when it is not there, if there is one.
        path: what is asked at the address.
    """

    provider: str
    model: str = ""
    key_variable: str | None = None
    unreachable: str = "check base_url"
    get_model: str = ""
    path: str = ""


def violation(host: Host, what: str, said: bytes | str) -> ProtocolViolation:
    """Give the error for an answer that breaks its rules, with the beginning of what was said."""
    text = excerpt(host.clean(said.decode("utf-8", "replace") if isinstance(said, bytes) else said))
    shown = f": {text}" if text else ""
    return ProtocolViolation(f"{host.address} {what}{shown}", excerpt=text, provider=host.provider)


def is_retryable(status: int) -> bool:
    """Whether a request that got this status may succeed when it is sent again."""
    return status in _RETRYABLE or status >= _SERVER_ERROR


def http_error(status: int, headers: Mapping[str, str], body: bytes, service: Service) -> ProviderError:
    """Make the error for an HTTP answer that is no success.

    Args:
        status: 300 or above.
        headers: the answer's, looked up in lower case.
        body: what it wrote: JSON of any shape, HTML, text or nothing.
        service: who was asked.

    Returns:
        `RateLimited` for 429, else `ProviderError`; ``retryable`` says what ``x-should-retry`` says, else what
        the status means.
    """
    try:
        said = parse_json(body)
    except (ValueError, RecursionError):
        said = None
    message, code = _said(said)
    text = body.decode("utf-8", "replace")
    wish = headers.get("x-should-retry", "").strip().lower()
    return _error(
        service,
        status=status,
        code=code,
        message=message or ("" if said is not None else text),
        body=text,
        retryable=wish == "true" if wish in ("true", "false") else is_retryable(status),
        retry_after=retry_after(headers),
        request_id=next((headers[name] for name in _REQUEST_IDS if headers.get(name)), None),
    )


def error_object(said: object, service: Service) -> ProviderError:
    """Make the error for an error object inside an answer whose HTTP status was a success.

    Args:
        said: the value of ``error``: an object, or a text.
        service: who was asked.

    Returns:
        As `http_error`; a numeric code is the status.
    """
    message, code = _said({"error": said})
    status = int(code) if code is not None and code.isascii() and code.isdigit() and len(code) < 4 else None  # noqa: PLR2004  # a status has three digits
    if status not in _HTTP_STATUSES:
        status = None
    words = f"{code} {said.get('type') if isinstance(said, dict) else ''}"
    if status is None and "rate_limit" in words:
        status = TOO_MANY_REQUESTS
    busy = "overloaded" in words or any(word in _BUSY for word in words.split())
    retryable = busy if status is None else is_retryable(status)
    return _error(service, status=status, code=code, message=message, body=message, retryable=retryable)


def _error(
    service: Service,
    *,
    status: int | None,
    code: str | None,
    message: str,
    body: str,
    retryable: bool,
    retry_after: float | None = None,
    request_id: str | None = None,
) -> ProviderError:
    head = f"{service.provider} answered {status}" if status is not None else f"{service.provider} reported an error"
    named = f" ({excerpt(service.clean(code), 60)})" if code is not None and code != str(status) else ""
    advice = _advice(status, service) if retry_after is None else ""  # else the error says how long it asks to wait
    said = f": {excerpt(service.clean(message))}" if message.strip() else ""
    said = said.removesuffix(".") if advice else said
    made = RateLimited if status == TOO_MANY_REQUESTS else ProviderError
    return made(
        f"{head}{named}{said}{advice}",
        status=status,
        code=None if code is None else excerpt(service.clean(code)),
        body=excerpt(service.clean(body)),
        retryable=retryable,
        retry_after=retry_after,
        provider=service.provider,
        request_id=None if request_id is None else excerpt(service.clean(request_id)),
    )


def _advice(status: int | None, service: Service) -> str:
    if status == _UNAUTHORIZED:
        variable = f", or {service.key_variable}" if service.key_variable else ""
        return f"; check the key that was given{variable}"
    if status == _NOT_FOUND:
        pull = service.get_model
        check = f"get it with {pull!r}, or check its name" if pull else f"check the model name {service.model!r}"
        asked_at = excerpt(service.clean(f"{service.address}{service.path}"), 200)
        return f"; {check} and the base_url (asked at {asked_at})"
    return ""


def _said(said: Any) -> tuple[str, str | None]:
    """Find message and code in the shapes in use: {"error": {...}}, {"error": "text"}, {"message"}, {"detail"}."""
    if isinstance(said, list) and len(said) == 1:  # Google's endpoint wraps it in an array
        said = said[0]
    if not isinstance(said, dict):
        return (said if isinstance(said, str) else "", None)
    inner = said.get("error", said)
    if not isinstance(inner, dict):
        inner = {**said, "message": inner}
    message = next((inner[key] for key in ("message", "detail", "error") if isinstance(inner.get(key), str)), "")
    metadata = inner.get("metadata")
    if isinstance(metadata, dict) and isinstance(metadata.get("raw"), str):  # OpenRouter: what its provider said
        message = f"{message}: {metadata['raw']}"
    code = next((inner[key] for key in ("code", "type", "status") if _is_code(inner.get(key))), None)
    return message, None if code is None else str(code)


def _is_code(value: object) -> bool:
    return (isinstance(value, str) and bool(value)) or (isinstance(value, int) and not isinstance(value, bool))


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Read how long the provider asks to wait.

    Args:
        headers: the answer's, looked up in lower case.

    Returns:
        Seconds, 0 or more: from ``retry-after-ms``, else ``retry-after`` (seconds, or a date relative to the
        answer's own clock, so that ours may be wrong); None when it says nothing that makes sense.
        https://www.rfc-editor.org/rfc/rfc9110#field.retry-after
    """
    milliseconds = _number(headers.get("retry-after-ms", ""))
    if milliseconds is not None:
        return milliseconds / 1000
    text = headers.get("retry-after", "")
    seconds = _number(text)
    if seconds is not None:
        return seconds
    until = _timestamp(text)
    if until is None:
        return None
    now = _timestamp(headers.get("date", ""))
    wait = until - (time.time() if now is None else now)
    return wait if wait >= 0 else None


def _number(text: str) -> float | None:
    number = float(text) if _NUMBER.fullmatch(text) else inf
    return number if isfinite(number) else None


def _timestamp(text: str) -> float | None:
    try:
        moment = parsedate_to_datetime(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
