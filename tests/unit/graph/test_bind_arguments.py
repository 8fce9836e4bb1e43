"""What is bound must fit the constructor."""

from __future__ import annotations

from typing import Any

import pytest

from trygon.errors import ServeError
from trygon.graph.build import build_application
from trygon.graph.deployment import Application, deployment


def build(app: Application, **options: Any) -> None:
    build_application(app, handle_factory=lambda name, app_name: (name, app_name), **options)


@deployment
class Two:
    def __init__(self, one: int, other: int = 2) -> None:
        self.one = one

    def __call__(self) -> int:
        return self.one


@pytest.mark.parametrize("app", [Two.bind(), Two.bind(1, 2, 3), Two.bind(1, third=3)])
def test_arguments_that_do_not_fit_are_refused_before_a_replica_starts(app: Application) -> None:
    with pytest.raises(ServeError, match=r"'Two' cannot be constructed .* its constructor is Two\(one"):
        build(app)


def test_arguments_that_fit_are_taken() -> None:
    build(Two.bind(1, other=3))
