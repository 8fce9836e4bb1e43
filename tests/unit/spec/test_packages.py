"""What `pip` of a runtime environment may say, and when two environments are the same."""

from __future__ import annotations

from typing import Any

import pytest

from trygon.spec.application import ApplicationSpec, CodeLocation, DeploymentOptions, DeploymentSpec
from trygon.spec.packages import PackageEnvironment, check_pip, describe_packages, logical_lines
from trygon.spec.plan import Change, InstanceGoal, plan_changes, without_definitions
from trygon.spec.validation import OptionError


def test_a_list_a_path_and_a_dict_are_understood() -> None:
    as_list = check_pip([" a==1 # for the model", "# nothing", "b"])
    as_path = check_pip("requirements.txt")
    as_dict = check_pip(
        {"packages": ["a"], "pip_check": True, "pip_version": "==24.0", "pip_install_options": ["--no-deps"]}
    )

    assert check_pip(None) is None
    assert PackageEnvironment(requirements=("a==1", "b")) == as_list
    assert PackageEnvironment(file="requirements.txt") == as_path
    assert as_dict == PackageEnvironment(
        requirements=("a",), pip_check=True, pip_version="==24.0", pip_install_options=("--no-deps",)
    )


@pytest.mark.parametrize(
    "given, told",
    [
        (3, "wanted a list of requirements"),
        ("", "wanted a list of requirements"),
        ("https://x/requirements.txt", "is not a local file"),
        ([3.1], "found 3.1 of type float; put it in quotes"),
        ({}, "'packages' is missing"),
        ({"package": []}, "did you mean 'packages'?"),
        ({"packages": [], "colour": 1}, "it takes packages, pip_check"),
        ({"packages": [], "pip_check": "yes"}, "pip_check: wanted True or False, found 'yes'"),
        ({"packages": [], "pip_version": 24}, "pip_version: wanted a version"),
        ({"packages": [], "pip_version": "24.0"}, "pip_version: wanted a version"),
        ({"packages": [], "pip_install_options": "--no-deps"}, "pip_install_options: wanted a list"),
        ({"packages": 3}, "wanted a list of requirements"),
    ],
)
def test_what_cannot_be_is_told_with_what_to_write(given: Any, told: str) -> None:
    with pytest.raises(OptionError) as caught:
        check_pip(given)

    assert told in str(caught.value)


def test_the_order_of_packages_and_repetitions_make_no_other_environment() -> None:
    one, other = PackageEnvironment(), PackageEnvironment(pip_check=True)

    assert one.completed(["b", "a", "a"], {}) == one.completed(["a", "b"], {})
    assert one.completed(["a"], {}).id != one.completed(["b"], {}).id
    assert one.completed(["a"], {"a": "1"}).id != one.completed(["a"], {"a": "2"}).id
    assert one.completed(["a"], {}).id != other.completed(["a"], {}).id


def test_options_keep_their_order_before_the_packages_and_are_none() -> None:
    complete = PackageEnvironment().completed(["z", "--pre", "-e /x", "--no-index"], {})

    assert ("--pre", "--no-index", "-e /x", "z") == complete.requirements
    assert 2 == complete.num_packages
    assert "2 packages" == describe_packages(complete)
    assert "1 package" == describe_packages(PackageEnvironment().completed(["z"], {}))
    assert not PackageEnvironment()


def test_lines_are_joined_and_comments_left_out() -> None:
    assert ["a --hash=sha256:1", "b#c"] == logical_lines("a \\\n  --hash=sha256:1\n\n# x\nb#c\t# y\n")


def test_a_plan_shows_which_packages_change_and_no_password() -> None:
    def application(*lines: str) -> ApplicationSpec:
        packages = PackageEnvironment().completed(lines, {})
        deployment = DeploymentSpec(
            name="A", app_name="x", definition=b"", options=DeploymentOptions(packages=packages)
        )
        code = CodeLocation(packages=packages)
        return ApplicationSpec(name="x", ingress="A", deployments=(deployment,), code=code)

    old = application("--index-url https://me:secret@host/", "a==1", "b")
    new = application("a @ https://me:secret@host/a.whl", "b")
    goal = InstanceGoal(applications=(without_definitions(old),))

    (same,) = plan_changes(goal, (old,), ()).applications
    (changed,) = plan_changes(goal, (new,), ()).applications

    assert Change.UNCHANGED is same.change
    assert Change.ROLLED is changed.change
    told = str(changed)
    assert "packages changed (-a==1, +a @ https://***@host/a.whl)" in told
    assert "secret" not in told
