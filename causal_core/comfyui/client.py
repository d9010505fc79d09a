"""Speak to a running ComfyUI: queue a prompt, follow it over the websocket, fetch what it made.

Calls block; failures of the prompt come back as one CounterfactError in plain words that names the node.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from ..errors import CounterfactError

if TYPE_CHECKING:
    import requests

Prompt = dict[str, dict[str, Any]]
OnEvent = Callable[[str, dict[str, Any]], None]

HTTP_SECONDS = 60.0
POLL_SECONDS = 0.5
# How long a process that has closed its sockets may take to be seen as ended.
DEATH_SECONDS = 5.0


class ComfyClient:
    """A client of one ComfyUI server.

    Parameters
    ----------
    base_url : such as http://127.0.0.1:8188
    check_alive : called now and then during a run; raises when the server has ended (`ComfyServer.check_alive`)
    """

    def __init__(self, base_url: str, check_alive: Callable[[], None] = lambda: None) -> None:
        import requests

        self.base_url = base_url.rstrip("/")
        self.check_alive = check_alive
        self._session = requests.Session()
        self._session.trust_env = False  # the server is on this machine: no proxy

    def system_stats(self, patience: float = DEATH_SECONDS) -> dict[str, Any]:
        """Versions, arguments and devices of the server; `patience` as in a start, when silence means little."""
        return self._call("GET", "/system_stats", patience=patience).json()

    def object_info(self) -> dict[str, Any]:
        """Input and output definitions of all nodes, by node id."""
        return self._call("GET", "/object_info").json()

    def get(self, path: str, **query: str) -> Any:
        """The JSON that the server answers to GET `path`."""
        return self._call("GET", path, params=query).json()

    def queue(self, prompt: Prompt, client_id: str | None = None) -> str:
        """Queue a prompt in API format and return its id.

        Raises
        ------
        CounterfactError
            If the server refuses it or one of its outputs; the message names nodes, inputs and reasons.
        """
        body = {"prompt": prompt, **({"client_id": client_id} if client_id else {})}
        response = self._call("POST", "/prompt", json=body, check=False)
        try:
            answer = response.json()
        except ValueError:
            answer = {}
        if response.status_code != 200 or answer.get("node_errors"):
            raise CounterfactError(explain_refusal(answer, prompt))
        return answer["prompt_id"]

    def history(self, prompt_id: str) -> dict[str, Any] | None:
        """What became of a prompt: `outputs` by node id, `status`; None while it has not ended."""
        return self.get(f"/history/{prompt_id}").get(prompt_id)

    def interrupt(self) -> None:
        """Stop the running prompt."""
        self._call("POST", "/interrupt", json={})

    def upload_image(self, file: Path, name: str | None = None) -> str:
        """Put an image into the server's input folder; returns the name by which LoadImage knows it."""
        data = Path(file).read_bytes()
        answer = self._call("POST", "/upload/image", files={"image": (name or Path(file).name, data)}).json()
        return "/".join(filter(None, (answer.get("subfolder"), answer["name"])))

    def view(self, filename: str, subfolder: str = "", type: str = "output") -> bytes:
        """The bytes of a file that a run has made; takes the entries of `outputs[node]["images"]` as they are."""
        query = {"filename": filename, "subfolder": subfolder, "type": type}
        return self._call("GET", "/view", params=query).content

    def run(self, prompt: Prompt, on_event: OnEvent | None = None, timeout: float | None = None) -> dict[str, Any]:
        """Queue a prompt, wait for its end and return its history entry.

        Parameters
        ----------
        prompt : the prompt in API format
        on_event : called with type and data of each websocket message of this prompt (`executing`, `progress`,
            `progress_state`, `execution_cached`, `executed`, ...)
        timeout : seconds after which the prompt is interrupted; None waits as long as the server lives

        Raises
        ------
        CounterfactError
            If the prompt is refused, a node fails, the run is interrupted or takes too long.
        """
        entry = asyncio.run(self._run(prompt, on_event or (lambda kind, data: None), timeout))
        problem = explain_failure(entry.get("status") or {}, prompt)
        if problem:
            raise CounterfactError(problem)
        return entry

    async def _run(self, prompt: Prompt, on_event: OnEvent, timeout: float | None) -> dict[str, Any]:
        import aiohttp

        client_id = uuid.uuid4().hex
        address = "ws" + self.base_url.removeprefix("http") + f"/ws?clientId={client_id}"
        broken = f"ComfyUI at {self.base_url} broke off the connection in the middle of the run"
        try:
            async with aiohttp.ClientSession() as session, session.ws_connect(address, max_msg_size=0) as socket:
                prompt_id = self.queue(prompt, client_id)
                async with aclosing(self._messages(socket, timeout)) as messages:
                    async for message in messages:
                        kind, data = message.get("type"), message.get("data") or {}
                        if data.get("prompt_id") != prompt_id:
                            continue
                        on_event(kind, data)
                        if kind == "executing" and data.get("node") is None:
                            return self.history(prompt_id) or {}
        except (aiohttp.ClientError, OSError) as error:
            broken += f": {error}"
        self._raise_broken(broken, DEATH_SECONDS)

    async def _messages(self, socket: Any, timeout: float | None) -> AsyncIterator[dict[str, Any]]:
        """The JSON messages up to the end of the connection; raises when the server ends or the time is up."""
        import aiohttp

        end = time.monotonic() + (timeout or math.inf)
        receiving = asyncio.ensure_future(socket.receive())
        try:
            while True:
                await asyncio.wait({receiving}, timeout=POLL_SECONDS)
                if time.monotonic() > end:
                    self.interrupt()
                    raise CounterfactError(f"the run took longer than {timeout:g} seconds and was interrupted")
                if not receiving.done():
                    self.check_alive()
                    continue
                message = receiving.result()
                if message.type == aiohttp.WSMsgType.TEXT:
                    yield json.loads(message.data)
                elif message.type != aiohttp.WSMsgType.BINARY:  # those are preview pictures
                    return
                receiving = asyncio.ensure_future(socket.receive())
        finally:
            receiving.cancel()

    def _call(
        self, method: str, path: str, check: bool = True, patience: float = DEATH_SECONDS, **options: Any
    ) -> requests.Response:
        import requests

        try:
            response = self._session.request(method, self.base_url + path, timeout=HTTP_SECONDS, **options)
        except requests.RequestException as error:
            self._raise_broken(f"ComfyUI at {self.base_url} does not answer: {error}", patience)
        if check and not response.ok:
            raise CounterfactError(f"ComfyUI answered {response.status_code} {response.reason} to {method} {path}")
        return response

    def _raise_broken(self, problem: str, patience: float) -> NoReturn:
        """Raise through `check_alive` if the server ends within `patience` seconds, else with `problem`."""
        end = time.monotonic() + patience
        self.check_alive()
        while time.monotonic() < end:
            time.sleep(0.1)
            self.check_alive()
        raise CounterfactError(problem)


def node_title(prompt: Mapping[str, Any], node_id: str) -> str:
    """The title of a node as the editor shows it, else its class."""
    node = prompt.get(str(node_id)) or {}
    return (node.get("_meta") or {}).get("title") or node.get("class_type") or f"node {node_id}"


def explain_refusal(answer: Mapping[str, Any], prompt: Mapping[str, Any]) -> str:
    """The server's answer to a prompt it did not accept, in words.

    Examples
    --------
    >>> reason = {"message": "Value not in list", "details": "do: 'x' not in []", "extra_info": {"input_name": "do"}}
    >>> prompt = {"4": {"class_type": "CausalDoIntervention", "_meta": {"title": "What if"}}}
    >>> print(explain_refusal({"node_errors": {"4": {"errors": [reason]}}}, prompt))
    ComfyUI refused the workflow. Node "What if", input "do": Value not in list (do: 'x' not in [])
    """
    lines = []
    for node_id, node in (answer.get("node_errors") or {}).items():
        for reason in node.get("errors") or ():
            name = (reason.get("extra_info") or {}).get("input_name")
            where = f'Node "{node_title(prompt, node_id)}"' + (f', input "{name}"' if name else "")
            lines.append(f"{where}: {_reason(reason)}")
    if not lines and isinstance(answer.get("error"), Mapping):
        lines.append(_reason(answer["error"]))
    return "ComfyUI refused the workflow. " + ("\n".join(lines) or "It gave no reason.")


def explain_failure(status: Mapping[str, Any], prompt: Mapping[str, Any]) -> str | None:
    """Why a run did not succeed, from the `status` of its history entry; None if it did.

    Examples
    --------
    >>> error = {"node_id": "7", "node_type": "CausalCSGSampler", "exception_message": "steps must be positive"}
    >>> print(explain_failure({"status_str": "error", "messages": [["execution_error", error]]}, {}))
    node "CausalCSGSampler" failed: steps must be positive
    """
    if status.get("status_str") == "success":
        return None
    for kind, data in status.get("messages") or ():
        if kind == "execution_interrupted":
            return "the run was interrupted"
        if kind == "execution_error":
            titled = str(data.get("node_id")) in prompt
            name = node_title(prompt, data["node_id"]) if titled else data.get("node_type")
            return f'node "{name}" failed: {str(data.get("exception_message")).strip()}'
    return "the run ended without a result"


def _reason(reason: Mapping[str, Any]) -> str:
    details = reason.get("details")
    return f"{reason.get('message')}" + (f" ({details})" if details else "")
