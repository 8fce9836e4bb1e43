"""What a user-code helper can be asked: each service turns a question into a call of the user's, and its result into values."""

from __future__ import annotations

import hashlib
import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from trygon.processes.user_objects import load_user_object
from trygon.scaling.context import AutoscalingContext, DeploymentID, TimeStampedValue
from trygon.spec.autoscaling import AutoscalingConfig
from trygon.spec.helper import AUTOSCALING, Ask, UserFunction

__all__ = ["SERVICES", "UserFunctions"]


class UserFunctions:
    """The functions that were asked for, loaded once; a class is made once for each owner."""

    def __init__(self) -> None:
        self._loaded: dict[str, Callable[..., Any]] = {}

    def key(self, ask: Ask) -> str:
        """Return what tells one function of one owner from all others."""
        function = ask.function
        whole = msgspec.msgpack.encode(
            (function.import_path, function.definition, function.kwargs, ask.owner)
        )
        return hashlib.sha256(whole).hexdigest()

    def get(self, ask: Ask) -> Callable[..., Any]:
        """Return the function to call, with its keyword arguments bound; raises what its import raises."""
        key = self.key(ask)
        found = self._loaded.get(key)
        if found is None:
            found = self._loaded[key] = _load(ask.function)
        return found


def _load(function: UserFunction) -> Callable[..., Any]:
    target = load_user_object(function)
    if inspect.isclass(target):
        made = target(**function.kwargs)
        if not callable(made):
            raise TypeError(
                f"{function.title} makes objects that cannot be called; give it a __call__(self, context)"
            )
        return made
    if not function.kwargs:
        return target  # type: ignore[no-any-return]
    return lambda context: target(context, **function.kwargs)


# ---- autoscaling


def _autoscale(function: Callable[..., Any], ask: Ask) -> dict[str, dict[str, Any]]:
    """Call a policy, of one deployment or of the whole application."""
    contexts = {name: _context(fields) for name, fields in ask.body.items()}
    if ask.owner:
        context = contexts[ask.owner]
        count, state = _pair(function(context), "(number of replicas, state)")
        return {ask.owner: _proposal(count, state, ask.owner)}
    by_id = {context.deployment_id: context for context in contexts.values()}
    counts, states = _pair(function(by_id), "({deployment id: number of replicas}, state)")
    if not isinstance(counts, Mapping):
        raise TypeError(
            f"an application's policy returns a dict of numbers by deployment id, found {counts!r}"
        )
    states = states if isinstance(states, Mapping) else {}
    found = {}
    for key, count in counts.items():
        context = by_id[key] if key in by_id else contexts[key]
        name = context.deployment_name
        found[name] = _proposal(count, states.get(key, context.policy_state), name)
    return found


def _context(fields: dict[str, Any]) -> AutoscalingContext:
    name, app_name = fields["deployment_name"], fields["app_name"]
    raw = {
        metric: {key: [TimeStampedValue(at, value) for at, value in told] for key, told in found.items()}
        for metric, found in fields["raw_metrics"].items()
    }
    return AutoscalingContext(
        **{
            **fields,
            "config": AutoscalingConfig(**fields["config"]),
            "deployment_id": DeploymentID(name, app_name),
            "raw_metrics": raw,
        }
    )


def _pair(result: Any, wanted: str) -> tuple[Any, Any]:
    if not isinstance(result, tuple) or len(result) != 2:
        raise TypeError(f"an autoscaling policy returns {wanted}, found {result!r}")
    return result


def _proposal(count: Any, state: Any, name: str) -> dict[str, Any]:
    if isinstance(count, bool) or not isinstance(count, int | float) or not math.isfinite(count) or count < 0:
        raise ValueError(f"wanted the number of replicas of {name!r}, 0 or more, found {count!r}")
    state = {} if state is None else state
    if not isinstance(state, dict):
        raise TypeError(f"wanted the state of the policy for {name!r} as a dict, found {state!r}")
    try:
        msgspec.msgpack.encode(state)
    except (TypeError, OverflowError, ValueError) as error:
        raise TypeError(
            f"the state of the policy for {name!r} must be plain data (numbers, strings, lists, dicts): {error}"
        ) from None
    return {"count": float(count), "policy_state": state}


SERVICES: dict[str, Callable[[Callable[..., Any], Ask], Any]] = {AUTOSCALING: _autoscale}
