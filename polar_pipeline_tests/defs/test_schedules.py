"""The weekly schedule asks for each language once per date."""

from datetime import UTC, datetime

import dagster as dg

from polar_pipeline.defs.build import build_defs
from polar_pipeline.defs.project import Project


def test_one_dated_request_per_language(project: Project) -> None:
    repository = build_defs(project).get_repository_def()
    with dg.instance_for_test() as instance:
        context = dg.build_schedule_context(
            instance, repository_def=repository, scheduled_execution_time=datetime(2026, 3, 2, 3, tzinfo=UTC)
        )
        data = repository.get_schedule_def("weekly_retraining").evaluate_tick(context)
    requests = data.run_requests or []
    assert [(request.run_key, request.partition_key) for request in requests] == [
        ("2026-03-02|eng", "eng"), ("2026-03-02|deu", "deu"), ("2026-03-02|hin", "hin"),
    ]  # fmt: skip
