"""What the controller knows of routers that fail."""

from __future__ import annotations

from trygon.control.events import CallerLost, RouterTroubled
from trygon.control.fold import fold
from trygon.control.state import Application, ControllerState


def told(count: int, caller: str = "ingress-0", error: str = "") -> RouterTroubled:
    return RouterTroubled(caller, "shop", "Model", count, error)


def a_state() -> tuple[ControllerState, Application]:
    state = ControllerState()
    state.applications["shop"] = Application("shop")
    return state, state.applications["shop"]


def test_troubles_of_all_callers_are_added_up_and_end_with_the_last() -> None:
    state, application = a_state()

    assert set() == fold(state, told(3, error="Traceback ...\nValueError: no idea"), 1.0)
    fold(state, told(2, "program-7", "it is slow"), 2.0)
    fold(state, told(4, error="ValueError: no idea"), 3.0)

    assert "failed for 9 requests" in application.router_trouble("Model")
    assert "" == application.router_trouble("Other")

    fold(state, told(0), 4.0)
    assert "failed for 2 requests" in application.router_trouble("Model")
    assert application.router_trouble("Model").endswith(": it is slow")

    fold(state, told(0, "program-7"), 5.0)
    assert "" == application.router_trouble("Model")
    assert [
        (1.0, "the request router fails: ValueError: no idea"),
        (5.0, "the request router routes again"),
    ] == list(application.log["Model"])


def test_a_caller_that_is_gone_has_no_troubles() -> None:
    state, application = a_state()
    fold(state, told(3, error="it is slow"), 1.0)

    fold(state, CallerLost("ingress-0"), 2.0)

    assert "" == application.router_trouble("Model")


def test_news_of_an_application_that_is_gone_change_nothing() -> None:
    state = ControllerState()

    assert set() == fold(state, told(3), 1.0)
    assert {} == state.applications
