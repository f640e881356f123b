"""A small interop server on FastMCP of PyPI ``mcp`` 1.x (2024-11-05 to 2025-11-25).

    py1_server.py stdio | http | sse

HTTP listens at ``/mcp``, the 2024-11-05 transport at ``/sse`` and ``/messages/``,
both on ``$HOST:$PORT`` (default 127.0.0.1:8000). The tools are those of
``py2_server.py``; ``counter`` counts per session, in this process's memory.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from weakref import WeakKeyDictionary

import anyio
from mcp.server.fastmcp import Context, FastMCP
from mcp.types import SamplingMessage, TextContent
from pydantic import BaseModel

server = FastMCP(
    "interop-py1",
    host=os.environ.get("HOST", "127.0.0.1"),
    port=int(os.environ.get("PORT", "8000")),
    log_level="WARNING",
)
COUNTS: WeakKeyDictionary[object, int] = WeakKeyDictionary()
DONE: Counter[str] = Counter()


class Name(BaseModel):
    name: str


@server.tool(description="Returns the message")
async def echo(message: str) -> str:
    return message


@server.tool(description="Counts this session's calls")
async def counter(ctx: Context) -> str:
    COUNTS[ctx.session] = COUNTS.get(ctx.session, 0) + 1
    return str(COUNTS[ctx.session])


@server.tool(description="Takes ms milliseconds, with a progress notification after each step")
async def slow(ctx: Context, ms: int = 500, steps: int = 5) -> str:
    try:
        for step in range(1, steps + 1):
            await anyio.sleep(ms / steps / 1000)
            await ctx.report_progress(step, steps)
    except anyio.get_cancelled_exc_class():
        DONE["cancelled"] += 1
        raise
    return "done"


@server.tool(description="How many slow calls were cancelled in this process")
async def cancellations() -> str:
    return str(DONE["cancelled"])


@server.tool(description="Asks the user for a name")
async def elicit(ctx: Context) -> str:
    answer = await ctx.elicit("What is your name?", Name)
    return f"{answer.action}: Hello, {answer.data.name if answer.action == 'accept' else None}"


@server.tool(description="Asks the client's model")
async def sample(ctx: Context, prompt: str) -> str:
    message = SamplingMessage(role="user", content=TextContent(type="text", text=prompt))
    answer = await ctx.session.create_message([message], max_tokens=100, related_request_id=ctx.request_id)
    return f"The model said: {getattr(answer.content, 'text', answer.content)}"


@server.tool(description="Returns a text of that many bytes", structured_output=False)
async def big(bytes: int = 1_000_000) -> str:
    return "x" * bytes


@server.tool(description="Announces a changed tool list on the passive stream")
async def announce(ctx: Context) -> str:
    await ctx.session.send_tool_list_changed()
    return "announced"


@server.tool(description="The process id of this server")
async def pid() -> str:
    return str(os.getpid())


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["stdio"]:
            server.run("stdio")
        case ["http"]:
            server.run("streamable-http")
        case ["sse"]:
            server.run("sse")
        case _:
            sys.exit("usage: py1_server.py stdio | http | sse")
