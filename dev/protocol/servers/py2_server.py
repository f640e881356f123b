"""A small interop server on the low-level Server of PyPI ``mcp`` 2.x, all revisions.

    py2_server.py stdio | http

HTTP listens at ``/mcp`` on ``$HOST:$PORT`` (default 127.0.0.1:8000). Tools: see
``TOOLS``; the same as in ``py1_server.py``. ``counter`` counts per session, in
this process's memory; where there is no session (stdio, modern) per process.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections import Counter
from typing import Any

import anyio
import mcp_types as types
from mcp.server.context import ServerRequestContext as Ctx
from mcp.server.lowlevel import NotificationOptions, Server
from mcp.server.stdio import stdio_server
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler, ToolsListChanged
from mcp.shared.exceptions import MCPDeprecationWarning, MCPError
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

warnings.simplefilter("ignore", MCPDeprecationWarning)

BUS = InMemorySubscriptionBus()
COUNTS: Counter[str] = Counter()
CANCELLED = 0


def schema(**properties: str) -> dict[str, Any]:
    return {"type": "object", "properties": {name: {"type": kind} for name, kind in properties.items()}}


TOOLS = [
    types.Tool(name=name, description=description, input_schema=wants)
    for name, description, wants in (
        ("echo", "Returns the message", schema(message="string")),
        ("counter", "Counts this session's calls", schema()),
        ("slow", "Takes ms milliseconds, with a progress notification after each step", schema(ms="integer", steps="integer")),
        ("cancellations", "How many slow calls were cancelled in this process", schema()),
        ("elicit", "Asks the user for a name", schema()),
        ("sample", "Asks the client's model", schema(prompt="string")),
        ("big", "Returns a text of that many bytes", schema(bytes="integer")),
        ("announce", "Announces a changed tool list on the passive stream", schema()),
        ("pid", "The process id of this server", schema()),
    )
]


def said(value: str, **more: Any) -> types.CallToolResult:
    return types.CallToolResult(content=[types.TextContent(text=value)], **more)


def session_key(ctx: Ctx) -> str:
    headers = getattr(ctx.request, "headers", None)
    return headers.get("mcp-session-id", "") if headers is not None else ""


async def slow(ctx: Ctx, ms: int, steps: int) -> types.CallToolResult:
    global CANCELLED
    try:
        for step in range(1, steps + 1):
            await anyio.sleep(ms / steps / 1000)
            await ctx.session.report_progress(step, steps)
    except anyio.get_cancelled_exc_class():
        CANCELLED += 1
        raise
    return said("done")


NAME_FORM = types.ElicitRequestFormParams(
    message="What is your name?",
    requested_schema={"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]},
)


async def elicit(ctx: Ctx, params: types.CallToolRequestParams) -> Any:
    if ctx.protocol_version in MODERN_PROTOCOL_VERSIONS:
        got = (params.input_responses or {}).get("name")
        if not isinstance(got, types.ElicitResult):
            return types.InputRequiredResult(input_requests={"name": types.ElicitRequest(params=NAME_FORM)})
        answer = got
    else:
        answer = await ctx.session.elicit_form(NAME_FORM.message, NAME_FORM.requested_schema, ctx.request_id)
    return said(f"{answer.action}: Hello, {(answer.content or {}).get('name')}")


async def sample(ctx: Ctx, params: types.CallToolRequestParams) -> Any:
    prompt = str((params.arguments or {}).get("prompt", ""))
    messages = [types.SamplingMessage(role="user", content=types.TextContent(text=prompt))]
    if ctx.protocol_version in MODERN_PROTOCOL_VERSIONS:
        got = (params.input_responses or {}).get("answer")
        if got is None:
            request = types.CreateMessageRequest(
                params=types.CreateMessageRequestParams(messages=messages, max_tokens=100)
            )
            return types.InputRequiredResult(input_requests={"answer": request})
        content: Any = got.content
    else:
        content = (await ctx.session.create_message(messages, max_tokens=100, related_request_id=ctx.request_id)).content
    return said(f"The model said: {getattr(content, 'text', content)}")


async def announce(ctx: Ctx) -> types.CallToolResult:
    await BUS.publish(ToolsListChanged())
    if ctx.protocol_version not in MODERN_PROTOCOL_VERSIONS:
        await ctx.session.send_tool_list_changed()
    return said("announced")


async def on_call_tool(ctx: Ctx, params: types.CallToolRequestParams) -> Any:
    args = params.arguments or {}
    match params.name:
        case "echo":
            return said(str(args.get("message", "")))
        case "counter":
            COUNTS[session_key(ctx)] += 1
            return said(str(COUNTS[session_key(ctx)]))
        case "slow":
            return await slow(ctx, int(args.get("ms", 500)), int(args.get("steps", 5)))
        case "cancellations":
            return said(str(CANCELLED))
        case "elicit":
            return await elicit(ctx, params)
        case "sample":
            return await sample(ctx, params)
        case "big":
            return said("x" * int(args.get("bytes", 1_000_000)))
        case "announce":
            return await announce(ctx)
        case "pid":
            return said(str(os.getpid()))
        case _:
            raise MCPError(types.INVALID_PARAMS, f"no such tool: {params.name}")


async def on_list_tools(ctx: Ctx, params: Any) -> types.ListToolsResult:
    return types.ListToolsResult(tools=TOOLS)


class Interop(Server[Any]):
    def create_initialization_options(self, *args: Any, **kwargs: Any) -> Any:
        """The handshake says truly that the tool list may change."""
        return super().create_initialization_options(NotificationOptions(tools_changed=True))


def build() -> Interop:
    return Interop(
        "interop-py2",
        version="1.0.0",
        on_list_tools=on_list_tools,
        on_call_tool=on_call_tool,
        on_subscriptions_listen=ListenHandler(BUS),
    )


async def serve_stdio() -> None:
    server = build()
    async with stdio_server() as (reader, writer):
        await server.run(reader, writer, server.create_initialization_options())


def serve_http() -> None:
    import uvicorn

    host, port = os.environ.get("HOST", "127.0.0.1"), int(os.environ.get("PORT", "8000"))
    app = build().streamable_http_app(host=host)
    uvicorn.run(app, host=host, port=port, log_level="warning", timeout_graceful_shutdown=1)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["stdio"]:
            anyio.run(serve_stdio)
        case ["http"]:
            serve_http()
        case _:
            sys.exit("usage: py2_server.py stdio | http")
