"""A client of the cluster's API server, with what this tool needs of it."""

from __future__ import annotations

import http.client
import json
import ssl
import time
from collections.abc import Callable

from layout import API_PORT, NODE_IP, PKI, Failure


class Refused(Failure):
    """The API server's own no."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"the API server said {status}: {text}")
        self.status = status


class Api:
    """One kept connection, as the administrator; opened anew when it was lost."""

    def __init__(self) -> None:
        self._context = ssl.create_default_context(cafile=str(PKI / "ca.crt"))
        self._context.load_cert_chain(PKI / "admin.crt", PKI / "admin.key")
        self._connection: http.client.HTTPSConnection | None = None

    def ask(self, method: str, path: str, body: object = None, kind: str = "application/json") -> str:
        """The body of a good answer. `OSError` if the server is away."""
        if self._connection is None:
            self._connection = http.client.HTTPSConnection(NODE_IP, API_PORT, context=self._context, timeout=10)
        try:
            content = None if body is None else json.dumps(body)
            self._connection.request(method, path, content, {"Content-Type": kind})
            answer = self._connection.getresponse()
            text = answer.read().decode()
        except (OSError, http.client.HTTPException) as cause:
            self._connection.close()
            self._connection = None
            raise OSError(f"the API server does not answer: {cause}") from cause
        if answer.status >= 300:
            raise Refused(answer.status, text)
        return text

    def get(self, path: str) -> dict:
        return json.loads(self.ask("GET", path))

    def find(self, path: str) -> dict | None:
        """The object at a path, or none if there is none."""
        try:
            return self.get(path)
        except Refused as refused:
            if refused.status == 404:
                return None
            raise

    def apply(self, path: str, body: dict) -> dict:
        """Server-side apply: makes the object so, whatever it was."""
        return json.loads(self.ask("PATCH", f"{path}?fieldManager=dev-cluster&force=true", body,
                                   "application/apply-patch+yaml"))

    def delete(self, path: str, grace: int | None = None) -> None:
        try:
            self.ask("DELETE", path, None if grace is None else {"gracePeriodSeconds": grace})
        except Refused as refused:
            if refused.status != 404:
                raise


def wait(what: str, seconds: float, done: Callable[[], object], check: Callable[[], object] = lambda: None) -> None:
    """Polls until `done` is true; `check` may raise meanwhile to give up early.

    A server that is away or not yet ready counts as not done."""
    deadline = time.monotonic() + seconds
    why = "it never was"
    while True:
        try:
            if done():
                return
        except (OSError, Refused) as cause:
            why = str(cause)[:300]
        check()
        if time.monotonic() > deadline:
            raise Failure(f"{what}: not within {seconds:.0f} s ({why}); see dev/cluster status")
        time.sleep(0.03)
