"""PyPI ``mcp`` 2.x ``Client``; ``--era auto`` (its default), ``legacy`` or ``modern``. Steps: see steps.py.

With ``--command`` instead of ``--url`` it starts a stdio server and talks to that.
"""

from __future__ import annotations

import shlex
import warnings
from typing import Any

import anyio
import httpx2
import mcp_types as types
from mcp import Client, MCPDeprecationWarning, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from steps import Program, arguments, main

warnings.simplefilter("ignore", MCPDeprecationWarning)

MODES = {"auto": "auto", "legacy": "legacy", "modern": MODERN_PROTOCOL_VERSIONS[-1]}


async def elicited(context: Any, params: Any) -> types.ElicitResult:
    return types.ElicitResult(action="accept", content={"name": "Ada"})


async def sampled(context: Any, params: Any) -> types.CreateMessageResult:
    return types.CreateMessageResult(role="assistant", content=types.TextContent(text="Paris"), model="test")


class Py2(Program):
    listening = False

    async def open(self) -> str:
        client = Client(
            await self.server(),
            mode=MODES[self.args.era],
            cache=None,
            sampling_callback=sampled,
            elicitation_callback=elicited,
            message_handler=self.message,
        )
        self.client = await self.stack.enter_async_context(client)
        self.listening = False
        return self.client.protocol_version

    async def server(self) -> Any:
        if self.args.command:
            command, *rest = shlex.split(self.args.command)
            return StdioServerParameters(command=command, args=rest)
        http: httpx2.AsyncClient = await self.stack.enter_async_context(
            create_mcp_http_client(headers=self.args.headers)
        )
        return streamable_http_client(self.args.url, http_client=http)

    async def message(self, message: Any) -> None:
        method = getattr(message, "method", None)
        if isinstance(method, str):
            self.on_notification(method)

    async def tools(self) -> list[str]:
        return [tool.name for tool in (await self.client.list_tools()).tools]

    async def call(self, tool: str, arguments: dict[str, Any], progress: Any = None) -> tuple[str, bool]:
        result = await self.client.call_tool(tool, arguments, progress_callback=progress)
        return "".join(getattr(part, "text", "") for part in result.content), bool(result.is_error)

    async def open_stream(self) -> None:
        """Modern clients listen; legacy ones have their GET stream already."""
        if self.listening or self.client.protocol_version not in MODERN_PROTOCOL_VERSIONS:
            return
        subscription = await self.stack.enter_async_context(self.client.listen(tools_list_changed=True))
        group = await self.stack.enter_async_context(anyio.create_task_group())
        self.stack.callback(group.cancel_scope.cancel)

        async def drain() -> None:
            try:
                async for _ in subscription:
                    self.on_notification("notifications/tools/list_changed")
            finally:
                self.listening = False

        self.listening = True
        group.start_soon(drain)


if __name__ == "__main__":
    main(Py2(arguments(era=list(MODES))))
