from __future__ import annotations

from kcp.base.metrics import Metrics


def test_metrics_appear_in_the_text_format_under_their_names() -> None:
    metrics = Metrics()
    requests = metrics.counter("apiserver_request_total", "Requests.", ("verb", "code"))
    requests.of("GET", "200").inc()
    requests.of("GET", "200").inc(2)
    metrics.gauge("workqueue_depth", "Depth.", ("name",)).of("deployment").set(7)
    metrics.histogram("took_seconds", "Took.", buckets=(0.1, 1)).of().observe(0.5)
    metrics.gauge_from("answer", "Read when scraped.", lambda: 42)
    text = metrics.exposition().decode()
    assert 'apiserver_request_total{code="200",verb="GET"} 3.0' in text.replace(
        'verb="GET",code="200"', 'code="200",verb="GET"'
    )
    assert 'workqueue_depth{name="deployment"} 7.0' in text
    assert 'took_seconds_bucket{le="1.0"} 1.0' in text
    assert "answer 42.0" in text
    assert "_created" not in text


def test_the_same_name_is_the_same_family_and_children_are_kept() -> None:
    metrics = Metrics()
    first = metrics.counter("a_total", "A.", ("x",))
    assert metrics.counter("a_total", "A.", ("x",)) is first
    assert first.of("1") is first.of("1")
    first.of("1").inc()
    first.forget("1")
    assert 'x="1"' not in metrics.exposition().decode()


def test_two_instances_do_not_share() -> None:
    one, two = Metrics(), Metrics()
    one.counter("a_total", "A.").of().inc()
    assert "a_total" not in two.exposition().decode()
