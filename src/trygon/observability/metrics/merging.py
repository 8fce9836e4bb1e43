"""Adding up the families of many processes. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from trygon.observability.metrics.families import PROCESS_LABELS, FamilySnapshot, Value

__all__ = ["merge", "shown", "without_processes"]


def merge(families: Iterable[FamilySnapshot]) -> list[FamilySnapshot]:
    """Return one family for each name: counts and histograms added up, of levels the last one.

    Of families that share a name and nothing else (kind, bounds), the first one stays.
    """
    merged: dict[str, FamilySnapshot] = {}
    for family in families:
        known = merged.get(family.name)
        if known is None:
            merged[family.name] = family._replace(samples=dict(family.samples))
        elif (known.kind, known.bounds, known.is_user) == (family.kind, family.bounds, family.is_user):
            if known.labels != family.labels:
                known = merged[family.name] = _with_labels(known, family.labels)
                family = _with_labels(family, known.labels)
            _add(known, family)
    return list(merged.values())


def _with_labels(family: FamilySnapshot, more: tuple[str, ...]) -> FamilySnapshot:
    """Return the family with further labels, which are empty in its samples."""
    labels = (*family.labels, *(label for label in more if label not in family.labels))
    if labels == family.labels:
        return family
    # Same order for both sides: known labels first.
    places = {label: place for place, label in enumerate(family.labels)}
    samples = {
        tuple(values[places[label]] if label in places else "" for label in labels): value
        for values, value in family.samples.items()
    }
    return family._replace(labels=labels, samples=samples)


def _add(known: FamilySnapshot, family: FamilySnapshot) -> None:
    samples = known.samples
    order = [family.labels.index(label) for label in known.labels]
    is_ordered = order == list(range(len(order)))
    for values, value in family.samples.items():
        key = values if is_ordered else tuple(values[place] for place in order)
        before = samples.get(key)
        if before is None or family.kind == "gauge":
            samples[key] = value
        else:
            samples[key] = _sum(before, value)


def _sum(one: Value, other: Value) -> Value:
    if isinstance(one, list) and isinstance(other, list):
        return [a + b for a, b in zip(one, other, strict=True)]
    assert not isinstance(one, list)
    assert not isinstance(other, list)
    return one + other


def without_processes(family: FamilySnapshot) -> FamilySnapshot:
    """Return the family without the labels that name a process, its samples added up."""
    kept = [place for place, label in enumerate(family.labels) if label not in PROCESS_LABELS]
    if len(kept) == len(family.labels):
        return family
    samples: dict[tuple[str, ...], Value] = {}
    for values, value in family.samples.items():
        key = tuple(values[place] for place in kept)
        samples[key] = _sum(samples[key], value) if key in samples else value
    return family._replace(labels=tuple(family.labels[place] for place in kept), samples=samples)


def shown(
    running: Iterable[FamilySnapshot], gone: Iterable[FamilySnapshot], totals: Iterable[FamilySnapshot]
) -> list[FamilySnapshot]:
    """Return what an exposition shows.

    Args:
        running: Of processes that run.
        gone: Of those that died lately, whose series are still shown.
        totals: Of all that ever died, without the labels that name a process.
    """
    running = list(running)
    found = list(running)
    totals = list(totals)
    found += [family for family in totals if not family.total]
    found += [family for family in gone if _names_process(family)]
    sums = [
        without_processes(family)._replace(name=family.total, total="")
        for family in (*running, *totals)
        if family.total
    ]
    return merge([*found, *sums])


def _names_process(family: FamilySnapshot) -> bool:
    return family.kind != "gauge" and any(label in PROCESS_LABELS for label in family.labels)
