"""What a deploy call changes, and the revision that follows from it. Pure.

`serve.run` rolls every deployment. A configuration file or a REST call says what is wanted, and is compared with
what is: a deployment whose code, arguments, resources and environment are the same keeps its replicas, whatever
else changed.
"""

from __future__ import annotations

import msgspec

from trygon.control.state import Application, Revision
from trygon.spec.application import ApplicationSpec, DeploymentSpec
from trygon.spec.effects import Effect, changed_options, effect_of, restart_reasons

__all__ = ["next_revision"]


def next_revision(application: Application | None, asked: Revision, *, declarative: bool) -> Revision | None:
    """Return the revision to aim at, or None when it is what is aimed at already.

    Args:
        application: What is known under this name; not changed.
        asked: The new revision, with its number, as if nothing ran.
        declarative: Compare with what runs; otherwise every deployment gets new replicas.
    """
    bases = _bases(application) if declarative else []
    if bases and application is not None and bases[0] is application.target and bases[0].spec == asked.spec:
        return None
    generations: dict[str, int] = {}
    configs: dict[str, int] = {}
    resized_from: dict[str, int] = {}
    batched = {d.name for d in asked.spec.deployments if d.options.max_surge_percent is not None}
    for deployment in asked.spec.deployments:
        name = deployment.name
        generations[name] = configs[name] = asked.number
        for base in bases:
            old = next((d for d in base.spec.deployments if d.name == name), None)
            if old is None or not _is_same_code(base.spec, old, asked.spec, deployment):
                continue
            generations[name] = base.generation(name)
            (batched.add if name in base.batched else batched.discard)(name)
            if _is_same_config(base.spec, old, asked.spec, deployment):
                configs[name] = base.config(name)
            if old.options.num_replicas != deployment.options.num_replicas:
                resized_from[name] = old.options.num_replicas
            break
    return msgspec.structs.replace(
        asked,
        generations=generations,
        configs=configs,
        resized_from=resized_from,
        batched=tuple(sorted(batched)),
    )


def _bases(application: Application | None) -> list[Revision]:
    """Return the revisions whose replicas may be kept; one on its way before the one that serves.

    One that was given up is no base: what is asked for again shall be tried again.
    """
    if application is None or application.deleting:
        return []
    return [r for r in (application.wanted, application.serving) if r is not None]


def _is_same_code(
    old_app: ApplicationSpec, old: DeploymentSpec, new_app: ApplicationSpec, new: DeploymentSpec
) -> bool:
    """Whether a replica of the one can become one of the other without a restart."""
    changed = changed_options(old.options, new.options)
    return (
        # Here with all of its files, of which people are told in a few words.
        old_app.code == new_app.code
        and not restart_reasons(old_app, new_app, old, new)
        and not any(effect_of(option) is Effect.RESTART for option in changed)
    )


def _is_same_config(
    old_app: ApplicationSpec, old: DeploymentSpec, new_app: ApplicationSpec, new: DeploymentSpec
) -> bool:
    """Whether replicas of the same code need to hear of nothing."""
    return old_app.logging == new_app.logging and old.options == new.options
