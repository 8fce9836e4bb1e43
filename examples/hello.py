"""Composition: one deployment calls two others through their handles, both at once.

Run ``python -m examples.hello`` and you will see::

    Hello, World!
    Bonjour, Ada!

To keep it running: ``trygon run examples.hello:app``, then
``curl "http://127.0.0.1:8000/?language=fr&name=Ada"``.
"""

from __future__ import annotations

import httpx
from starlette.requests import Request

from trygon import serve
from trygon.serve.handle import DeploymentHandle

URL = "http://127.0.0.1:8000"


@serve.deployment
class Greeting:
    """Know how people say hello."""

    def __init__(self, words: dict[str, str]) -> None:
        self.words = words

    def word(self, language: str) -> str:
        """Return the greeting of a language, English if it is not known."""
        return self.words.get(language, self.words["en"])


@serve.deployment
def tidy_name(name: str) -> str:
    """Write a name as names are written; a function is a deployment too."""
    return name.strip().title()


@serve.deployment
class Hello:
    """Ask both deployments at the same time and put their answers together.

    Args:
        greeting: In the program below an application is bound; here its handle arrives.
        name: The same.
    """

    def __init__(self, greeting: DeploymentHandle, name: DeploymentHandle) -> None:
        self.greeting = greeting
        self.name = name

    async def __call__(self, request: Request) -> str:
        """Answer HTTP: ``?language=fr&name=Ada``."""
        query = request.query_params
        return await self.greet(query.get("language", "en"), query.get("name", "world"))

    async def greet(self, language: str, name: str) -> str:
        """Greet; both calls are under way before the first answer is awaited."""
        word = self.greeting.word.remote(language)
        tidy = self.name.remote(name)
        return f"{await word}, {await tidy}!"


app = Hello.bind(Greeting.bind({"en": "Hello", "fr": "Bonjour", "nl": "Hallo"}), tidy_name.bind())


def main() -> None:
    """Greet over HTTP and through the handle."""
    handle = serve.run(app)
    print(httpx.get(URL).text)
    print(handle.greet.remote("fr", "ada").result(timeout_s=10))
    serve.shutdown()


if __name__ == "__main__":
    main()
