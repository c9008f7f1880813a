"""Metrics of a supervisor and of all its workers as one page, and the small HTTP application that serves it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from prometheus_client import CONTENT_TYPE_LATEST, Metric, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from apps.health import Health
from apps.supervisor.crew import Supervisor
from apps.supervisor.report import STYLES, problem, report
from apps.supervisor.words import Report

WORKER = "worker"


def app(supervisor: Supervisor) -> Starlette:
    """`/livez`, `/readyz` (whether every id is served) and `/metrics` (its own and its workers')."""
    health = Health()
    health.begin()
    health.doubt = lambda: problem(report(supervisor))

    async def metrics(_: Request) -> Response:
        workers = supervisor.workers
        texts = await asyncio.gather(*(worker.measure() for worker in workers))
        told = {worker.identity or worker.name: text for worker, text in zip(workers, texts, strict=True)}
        own = [*health.registry.collect(), *counted(report(supervisor))]
        return Response(merged(own, told), media_type=CONTENT_TYPE_LATEST)

    others = [route for route in health.app().routes if getattr(route, "path", "") != "/metrics"]
    return Starlette(routes=[*others, Route("/metrics", metrics)])


def counted(found: Report) -> Iterator[Metric]:
    """What a report says in numbers."""
    workers = GaugeMetricFamily("penstock_supervisor_workers", "Workers by role", labels=["stage", "role"])
    roles = Counter(row.role for row in found.workers)
    for role in STYLES:
        workers.add_metric([found.stage, role], roles[role])
    restarts = CounterMetricFamily("penstock_supervisor_restarts", "Deaths of an id's workers", labels=[WORKER])
    lag = GaugeMetricFamily("penstock_supervisor_lag", "Records that a worker was not yet given", labels=[WORKER])
    for row in found.workers:
        if row.identity:
            restarts.add_metric([row.identity], row.restarts)
            if row.lag is not None:
                lag.add_metric([row.identity], row.lag)
    yield from (workers, restarts, lag)


class _Page:
    """Metrics that are there already, as a registry."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        """All of them."""
        return self._metrics


def merged(own: Iterable[Metric], texts: Mapping[str, str]) -> bytes:
    """`own` metrics, and those in each worker's text with its name as a label, each metric once."""
    families: dict[str, Metric] = {metric.name: metric for metric in own}
    for worker, text in texts.items():
        for metric in text_string_to_metric_families(text):
            family = families.setdefault(metric.name, Metric(metric.name, metric.documentation, metric.type))
            family.samples += [sample._replace(labels={**sample.labels, WORKER: worker}) for sample in metric.samples]
    return generate_latest(_Page(families.values()))
