"""A websocket: what comes in goes back, for as long as the client stays.

Run ``python -m examples.websocket_echo`` and you will see::

    1: hello
    2: is there an echo?
    closed with code 1000

To keep it running: ``trygon run examples.websocket_echo:app``, then
``python -m websockets ws://127.0.0.1:8000/echo``.
"""

from __future__ import annotations

from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from trygon import serve

URL = "ws://127.0.0.1:8000/echo"

api = FastAPI()


@serve.deployment
@serve.ingress(api)
class Echo:
    """Number what each client says and send it back."""

    @api.websocket("/echo")
    async def echo(self, websocket: WebSocket) -> None:
        """Talk to one client until it leaves or says "bye"."""
        await websocket.accept()
        number = 0
        try:
            while (text := await websocket.receive_text()) != "bye":
                number += 1
                await websocket.send_text(self.reply(number, text))
            await websocket.close()
        except WebSocketDisconnect:
            return

    def reply(self, number: int, text: str) -> str:
        """Write one answer; callable through a handle too."""
        return f"{number}: {text}"


app = Echo.bind()


def main() -> None:
    """Say two things, then bye."""
    serve.run(app)
    with connect(URL) as websocket:
        for text in ("hello", "is there an echo?"):
            websocket.send(text)
            print(websocket.recv(timeout=10))
        websocket.send("bye")
        try:
            websocket.recv(timeout=10)
        except ConnectionClosed as closed:
            print("closed with code", closed.rcvd.code if closed.rcvd else None)
    serve.shutdown()


if __name__ == "__main__":
    main()
