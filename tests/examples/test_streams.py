"""Streaming text and the websocket echo."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from websockets.exceptions import ConnectionClosedOK
from websockets.sync.client import connect

from examples import streaming, websocket_echo
from tests.examples.conftest import RunApp


def test_words_stream_over_http_one_by_one(run_app: RunApp, client: httpx.Client) -> None:
    run_app(streaming.Storyteller.bind(pause_s=0.02))

    with client.stream("GET", "/", params={"words": 9}) as response:
        chunks = list(response.iter_text())

    assert "text/plain; charset=utf-8" == response.headers["content-type"]
    assert "Once upon a time there was a model. Once" == "".join(chunks)
    assert len(chunks) > 1


def test_words_stream_through_a_handle(run_app: RunApp) -> None:
    handle = run_app(streaming.Storyteller.bind(pause_s=0))

    words = handle.options(stream=True).tell.remote(3)

    assert ["Once ", "upon ", "a"] == list(words)


def test_a_stream_is_read_asynchronously_too(run_app: RunApp) -> None:
    handle = run_app(streaming.Storyteller.bind(pause_s=0))

    async def read() -> list[str]:
        return [word async for word in handle.options(stream=True).tell.remote(3)]

    assert ["Once ", "upon ", "a"] == asyncio.run(read())


def test_a_reader_that_leaves_does_not_stop_the_others(run_app: RunApp, client: httpx.Client) -> None:
    run_app(streaming.Storyteller.bind(pause_s=0))

    with client.stream("GET", "/", params={"words": 1_000_000}) as response:
        next(response.iter_text())

    assert "Once upon a" == client.get("/", params={"words": 3}).text


def test_websocket_echoes_until_bye(run_app: RunApp, http_url: str) -> None:
    handle = run_app(websocket_echo.app)

    with connect(http_url.replace("http:", "ws:") + "/echo") as websocket:
        for number, text in enumerate(["hello", "", "hé" * 10_000], start=1):
            websocket.send(text)
            assert f"{number}: {text}" == websocket.recv(timeout=10)
        websocket.send("bye")
        with pytest.raises(ConnectionClosedOK):
            websocket.recv(timeout=10)

    assert "3: hello" == handle.reply.remote(3, "hello").result(timeout_s=10)


def test_websocket_clients_are_counted_apart(run_app: RunApp, http_url: str) -> None:
    run_app(websocket_echo.app)
    url = http_url.replace("http:", "ws:") + "/echo"

    with connect(url) as one, connect(url) as two:
        for websocket in (one, two):
            websocket.send("hello")
            assert "1: hello" == websocket.recv(timeout=10)
