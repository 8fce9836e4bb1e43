"""The option classes: keyword-only, checked when made, never changed after."""

from __future__ import annotations

import pickle

import pytest

from trygon.errors import ServeError
from trygon.spec.validation import (
    OptionError,
    Options,
    integer,
    list_of,
    near_names,
    notices,
    number,
    option,
    optional,
    options_of,
    string,
)


class Inner(Options):
    size: int = option(default=1, check=integer(1))


class Outer(Options, refuse_unknown=False):
    name: str = option(check=string)
    delay_s: float = option(default=2.0, check=number())
    tags: list[str] = option(default=[], check=list_of(string))
    inner: Inner = option(default=Inner(), check=options_of(Inner))
    limit: int | None = option(default=None, check=optional(integer(0, 10)))


def test_fields_are_taken_by_name_and_defaults_fill_the_rest() -> None:
    made = Outer(name="a", limit=3)

    assert ("a", 2.0, [], Inner(), 3) == (made.name, made.delay_s, made.tags, made.inner, made.limit)


def test_a_missing_field_is_named() -> None:
    with pytest.raises(OptionError, match="Outer needs 'name': wanted a string, found nothing"):
        Outer()


def test_positions_are_refused() -> None:
    with pytest.raises(TypeError):
        Outer("a")  # type: ignore[misc]


@pytest.mark.parametrize(
    "given, text",
    [
        ({"name": 3}, "Outer, name: wanted a string, found 3 of type int"),
        ({"name": "a", "delay_s": -1}, "Outer, delay_s: wanted a number of 0 or more, found -1 of type int"),
        ({"name": "a", "delay_s": "soon"}, "found 'soon' of type str"),
        ({"name": "a", "delay_s": float("nan")}, "not a finite number"),
        ({"name": "a", "tags": "x"}, "wanted a list, each item a string"),
        ({"name": "a", "limit": 11}, "wanted None or an integer of 0 to 10, found 11"),
        ({"name": "a", "inner": {"size": 0}}, "Outer, inner: Inner, size: wanted an integer of 1 or more"),
        ({"name": "a", "inner": 5}, "wanted an Inner or a dict of its options, found 5"),
    ],
)
def test_a_bad_value_says_what_was_wanted_and_found(given: dict, text: str) -> None:
    with pytest.raises(OptionError) as caught:
        Outer(**given)

    assert text in str(caught.value)
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, ServeError)


@pytest.mark.parametrize("value, kept", [("7", 7), (7.0, 7), (7, 7)])
def test_whole_numbers_may_be_written_as_text_or_floats(value: object, kept: int) -> None:
    assert kept == Inner(size=value).size


@pytest.mark.parametrize("value", [True, 1.5, "many", None, [1], float("inf")])
def test_other_things_are_not_whole_numbers(value: object) -> None:
    with pytest.raises(OptionError, match="Inner, size"):
        Inner(size=value)


def test_an_unknown_name_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(OptionError, match="Inner has no option 'sise'; did you mean 'size'"):
        Inner(sise=3)


def test_where_ray_serve_ignores_unknown_names_we_warn_once() -> None:
    with pytest.warns(UserWarning, match="Outer has no option 'dealy_s'; did you mean 'delay_s'"):
        Outer(name="a", dealy_s=3)

    assert Outer(name="a") == Outer(name="a", dealy_s=3)


def test_options_do_not_change() -> None:
    made = Inner(size=2)

    with pytest.raises(AttributeError, match=r"Inner.replace\(size=3\)"):
        made.size = 3
    with pytest.raises(AttributeError):
        del made.size
    assert 2 == made.size


def test_a_changed_copy_is_checked_again() -> None:
    made = Outer(name="a", delay_s=1)

    assert Outer(name="a", delay_s=1, limit=4) == made.replace(limit=4)
    with pytest.raises(OptionError):
        made.replace(limit=40)


def test_only_what_was_given_is_given() -> None:
    assert {"name": "a", "delay_s": 2.0} == Outer(name="a", delay_s=2).given()


def test_two_objects_never_share_a_default_list() -> None:
    Outer(name="a").tags.append("x")

    assert [] == Outer(name="b").tags


def test_options_pickle_and_compare() -> None:
    made = Outer(name="a", inner={"size": 4})

    copied = pickle.loads(pickle.dumps(made))

    assert made == copied
    assert hash(made) == hash(copied)
    assert made != Outer(name="b")
    assert "Outer(name='a', delay_s=2.0, tags=[], inner=Inner(size=4), limit=None)" == repr(made)


def test_options_become_json_values() -> None:
    made = Outer(name="a", inner={"size": 4})

    assert {
        "name": "a",
        "delay_s": 2.0,
        "tags": [],
        "inner": {"size": 4},
        "limit": None,
    } == made.to_builtins()
    assert {"size": 4} == made.model_dump()["inner"]


def test_a_notice_points_at_the_line_of_the_user() -> None:
    with pytest.warns(UserWarning, match="once") as caught:
        notices.once("here", "once")
    notices.once("here", "once")

    assert [__file__] == [warning.filename for warning in caught]


def test_near_names_are_empty_when_nothing_is_near() -> None:
    assert "" == near_names("zzz", ["size"])
