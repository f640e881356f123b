"""What the Python client programs share: arguments, the steps in order, one
JSON line for each. A step is ``NAME`` or ``!NAME``; the latter must fail.

=============  ==============================================================
connect        a new client object (an earlier one is left first), handshake
list           tools/list, the profile's tool must be in it
call           one tool call with a known answer
counter, pid   a tool call; its text is the detail
progress       a slow tool; at least one progress notification
cancel         a slow tool, cancelled after its first progress
cancelled      the server stopped what ``cancel`` cancelled (polled for 5 s)
elicit         the server asks for input, the handler answers
sample         the server asks for a sample, the handler answers
big            a big result, counted
stream         a passive stream is open: an announcement arrives on it
pause          prints its line, then waits for a line on stdin
close          leaves the client object in good order
=============  ==============================================================
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
import uuid
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import anyio

PROFILES = json.loads((Path(__file__).parent / "profiles.json").read_text())


class Failed(Exception):
    """A step did not do what it should."""


def arguments(**options: Any) -> argparse.Namespace:
    """The common arguments; ``options`` maps another argument's name to its choices."""
    parser = argparse.ArgumentParser(epilog=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--url")
    where.add_argument("--command", help="a stdio server to start instead (py2.py only)")
    parser.add_argument("--steps", required=True, help="comma-separated, run on one client object")
    parser.add_argument("--profile", default="own", choices=PROFILES)
    parser.add_argument("--header", action="append", default=[], metavar="'Name: value'")
    parser.add_argument("--timeout", type=float, default=90, help="seconds each step may take")
    for name, choices in options.items():
        parser.add_argument(f"--{name}", default=choices[0], choices=choices)
    args = parser.parse_args()
    args.headers = {}
    for header in args.header:
        name, _, value = header.partition(":")
        args.headers[name.strip()] = value.strip()
    return args


class Program:
    """One client program. A subclass connects and calls; the rest is here."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.profile: dict[str, Any] = PROFILES[args.profile]
        self.stack = AsyncExitStack()
        self.announced = anyio.Event()
        self.heard: list[str] = []
        self.cancelled_before = 0

    # -- what a subclass does -------------------------------------------------

    async def open(self) -> str:
        """Enters a client object on ``self.stack``; its revision is the detail."""
        raise NotImplementedError

    async def tools(self) -> list[str]:
        raise NotImplementedError

    async def call(self, tool: str, arguments: dict[str, Any], progress: Any = None) -> tuple[str, bool]:
        """The text of a call's result, and whether it is an error."""
        raise NotImplementedError

    async def open_stream(self) -> None:
        """Opens the passive stream, where the client does not do that by itself."""

    async def cancel_running(self) -> None:
        """Tells the server, where cancelling the call does not."""

    def on_notification(self, method: str) -> None:
        self.heard.append(method)
        if method == self.profile.get("stream", {}).get("method"):
            self.announced.set()

    # -- steps ----------------------------------------------------------------

    def tool(self, step: str) -> tuple[str, dict[str, Any]]:
        if step not in self.profile:
            raise Failed(f"profile {self.args.profile} has no tool for {step}")
        entry = self.profile[step]
        unique = uuid.uuid4().hex
        given = {k: v.replace("$unique", unique) if isinstance(v, str) else v for k, v in entry["arguments"].items()}
        return entry["tool"], given

    async def expect(self, step: str, progress: Any = None) -> str:
        text, error = await self.call(*self.tool(step), progress)
        wanted = self.profile[step].get("expect")
        if error or (wanted is not None and wanted not in text):
            raise Failed(f"{'error result' if error else 'unexpected result'}: {text[:300]}")
        return text

    async def step_connect(self) -> str:
        await self.step_close()
        return await self.open()

    async def step_close(self) -> str:
        stack, self.stack = self.stack, AsyncExitStack()
        await stack.aclose()
        return "closed"

    async def step_list(self) -> str:
        names = await self.tools()
        if self.tool("call")[0] not in names:
            raise Failed(f"tools are {names}")
        return f"{len(names)} tools"

    async def step_progress(self) -> str:
        seen: list[float] = []

        async def progress(done: float, total: float | None, message: str | None) -> None:
            seen.append(done)

        await self.expect("progress", progress)
        if not seen:
            raise Failed("no progress notification")
        return f"{len(seen)} progress notifications"

    async def cancellations(self) -> int:
        """How many the server has seen; 0 where the profile has no tool that tells."""
        return int((await self.call(*self.tool("cancelled")))[0]) if "cancelled" in self.profile else 0

    async def step_cancel(self) -> str:
        self.cancelled_before = await self.cancellations()
        running = anyio.Event()
        ended: list[str] = []

        async def progress(done: float, total: float | None, message: str | None) -> None:
            running.set()

        async def slow() -> None:
            try:
                text, _ = await self.call(*self.tool("cancel"), progress)
                ended.append(f"answered: {text[:200]}")
            except Exception as error:
                ended.append(f"failed: {error}")
                running.set()

        async with anyio.create_task_group() as group:
            group.start_soon(slow)
            await running.wait()
            if ended:
                raise Failed(f"ended before it was cancelled: {ended[0]}")
            began = time.monotonic()
            await self.cancel_running()
            group.cancel_scope.cancel()
        return f"ended {1000 * (time.monotonic() - began):.0f} ms after cancel"

    async def step_cancelled(self) -> str:
        self.tool("cancelled")
        give_up = time.monotonic() + 30
        while time.monotonic() < give_up:
            if await self.cancellations() > self.cancelled_before:
                return "the server stopped"
            await anyio.sleep(0.1)
        raise Failed("the server saw no cancellation")

    async def step_big(self) -> str:
        text = await self.expect("big")
        if len(text) != self.profile["big"]["bytes"]:
            raise Failed(f"{len(text)} bytes")
        return f"{len(text)} bytes"

    async def step_stream(self) -> str:
        """Announces until one announcement arrives: the stream may still be opening."""
        await self.open_stream()
        self.announced = anyio.Event()
        for attempt in range(1, 31):
            await self.expect("stream")
            with anyio.move_on_after(0.5):
                await self.announced.wait()
                return f"announcement {attempt} arrived"
        raise Failed(f"no announcement arrived; notifications heard: {sorted(set(self.heard))}")

    async def step_pause(self) -> str:
        line = await anyio.to_thread.run_sync(sys.stdin.readline)
        if not line:
            raise Failed("stdin was closed")
        return line.strip()

    async def run(self, step: str) -> str:
        method = getattr(self, f"step_{step.replace('get-stream', 'stream')}", None)
        return await (method() if method else self.expect(step))


async def deadline(seconds: float, work: Any) -> Any:
    """Like a cancel scope, but one that lets ``work`` leave scopes of its own open."""
    task = asyncio.current_task()
    expired = False

    def expire() -> None:
        nonlocal expired
        expired = True
        if task is not None:
            task.cancel()

    timer = asyncio.get_running_loop().call_later(seconds, expire)
    try:
        return await work
    except asyncio.CancelledError:
        if expired:
            raise Failed(f"took longer than {seconds:g} s") from None
        raise
    finally:
        timer.cancel()


def told(error: BaseException) -> str:
    """An error in one line, exception groups opened."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(told(one) for one in error.exceptions)
    return str(error) if isinstance(error, Failed) else f"{type(error).__name__}: {error}"


def line(**values: Any) -> None:
    print(json.dumps(values), flush=True)


async def steps(program: Program) -> bool:
    """Runs every step in order; stops at the first that does not do what it should."""
    for item in program.args.steps.split(","):
        must_fail, step = item.startswith("!"), item.removeprefix("!")
        if step == "pause":
            line(step="pause", waiting=True)
        began = time.monotonic()
        try:
            failed, detail = False, await deadline(program.args.timeout, program.run(step))
        except Exception as error:
            failed, detail = True, told(error)
        good = failed == must_fail
        line(step=item, ok=good, detail=detail, ms=round(1000 * (time.monotonic() - began)))
        if not good:
            return False
    return True


def main(program: Program) -> None:
    async def whole() -> bool:
        good = await steps(program)
        await deadline(10, program.step_close())
        return good

    try:
        good = asyncio.run(whole())
    except BaseException as error:
        line(step="end", ok=False, detail=told(error), ms=0)
        good = False
    sys.exit(0 if good else 1)
