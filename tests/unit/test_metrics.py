"""What Prometheus reads."""

from __future__ import annotations

from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from rackwright.metrics import Metrics, Outcome


async def read(metrics: Metrics) -> list[str]:
    """The samples, without their explanations."""
    app = web.Application()
    app.add_routes(metrics.routes())
    async with TestClient(TestServer(app)) as client:
        response = await client.get("/metrics")
        assert response.status == 200
        assert response.content_type == "text/plain"
        return [line for line in (await response.text()).splitlines() if not line.startswith("#")]


async def test_every_series_is_there_before_anything_happened() -> None:
    assert await read(Metrics(new_machines=lambda: 0)) == [
        'rackwright_enlistments_total{outcome="enlisted"} 0.0',
        'rackwright_enlistments_total{outcome="recognised"} 0.0',
        'rackwright_enlistments_total{outcome="full"} 0.0',
        'rackwright_enlistments_total{outcome="failed"} 0.0',
        "rackwright_new_machines 0.0",
    ]


async def test_what_happened_is_counted_and_what_is_is_asked_for() -> None:
    waiting = 7
    metrics = Metrics(new_machines=lambda: waiting)
    metrics.enlistment(Outcome.FULL)
    metrics.enlistment(Outcome.FULL)
    samples = await read(metrics)
    assert 'rackwright_enlistments_total{outcome="full"} 2.0' in samples
    assert "rackwright_new_machines 7.0" in samples
    waiting = 8
    assert "rackwright_new_machines 8.0" in await read(metrics)
