"""PyPI ``mcp`` 1.x client: streamable HTTP, or ``--transport sse``. Steps: see steps.py."""

from __future__ import annotations

from typing import Any

import mcp.types as types
from mcp import ClientSession
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamablehttp_client
from steps import Failed, Program, arguments, main


async def elicited(context: Any, params: types.ElicitRequestParams) -> types.ElicitResult:
    return types.ElicitResult(action="accept", content={"name": "Ada"})


async def sampled(context: Any, params: types.CreateMessageRequestParams) -> types.CreateMessageResult:
    content = types.TextContent(type="text", text="Paris")
    return types.CreateMessageResult(role="assistant", content=content, model="test")


class Py1(Program):
    async def open(self) -> str:
        if self.args.command:
            raise Failed("this client has no --command")
        if self.args.transport == "sse":
            streams = await self.stack.enter_async_context(sse_client(self.args.url, headers=self.args.headers))
        else:
            streams = await self.stack.enter_async_context(streamablehttp_client(self.args.url, headers=self.args.headers))
        session = ClientSession(
            streams[0],
            streams[1],
            sampling_callback=sampled,
            elicitation_callback=elicited,
            message_handler=self.message,
        )
        self.session = await self.stack.enter_async_context(session)
        return str((await self.session.initialize()).protocolVersion)

    async def message(self, message: Any) -> None:
        if isinstance(message, types.ServerNotification):
            self.on_notification(message.root.method)

    async def tools(self) -> list[str]:
        return [tool.name for tool in (await self.session.list_tools()).tools]

    async def call(self, tool: str, arguments: dict[str, Any], progress: Any = None) -> tuple[str, bool]:
        self.last = self.session._request_id  # the id the next request gets; cancelling has no public form here
        result = await self.session.call_tool(tool, arguments, progress_callback=progress)
        return "".join(getattr(part, "text", "") for part in result.content), bool(result.isError)

    async def cancel_running(self) -> None:
        params = types.CancelledNotificationParams(requestId=self.last, reason="the test cancels")
        await self.session.send_notification(types.ClientNotification(types.CancelledNotification(params=params)))


if __name__ == "__main__":
    main(Py1(arguments(transport=["http", "sse"])))
