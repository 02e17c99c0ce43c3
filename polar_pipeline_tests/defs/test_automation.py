"""The report follows when languages finish: after one or many, not before, and not twice."""

from typing import Any

import dagster as dg

from polar_pipeline.defs.automation import FOLLOWS_LANGUAGES

LANGUAGES = dg.StaticPartitionsDefinition(["swa", "deu", "eng"])


@dg.asset(partitions_def=LANGUAGES)
def predictions() -> None: ...


@dg.asset(deps=[predictions], automation_condition=FOLLOWS_LANGUAGES)
def report() -> None: ...


def test_it_follows_each_batch_of_languages_once() -> None:
    defs = dg.Definitions([predictions, report])
    with dg.instance_for_test() as instance:

        def requested(cursor: Any) -> tuple[int, Any]:
            result = dg.evaluate_automation_conditions(defs, instance, cursor=cursor)
            return result.total_requested, result.cursor

        count, cursor = requested(None)
        assert count == 0
        # one language of three is enough: the others are named in the report as absent
        dg.materialize([predictions], instance=instance, partition_key="deu")
        count, cursor = requested(cursor)
        assert count == 1
        dg.materialize([predictions, report], selection=[report], instance=instance)
        count, cursor = requested(cursor)
        assert count == 0
        for code in ("swa", "eng"):
            dg.materialize([predictions], instance=instance, partition_key=code)
        count, cursor = requested(cursor)
        assert count == 1


def test_it_waits_while_a_language_is_being_computed() -> None:
    seen = []
    cursors = []

    @dg.asset(partitions_def=LANGUAGES)
    def predictions(context: dg.AssetExecutionContext) -> None:
        if context.partition_key == "swa":
            seen.append(dg.evaluate_automation_conditions(defs, instance, cursor=cursors[0]).total_requested)

    @dg.asset(deps=[predictions], automation_condition=FOLLOWS_LANGUAGES)
    def report() -> None: ...

    defs = dg.Definitions([predictions, report])
    with dg.instance_for_test() as instance:
        cursors.append(dg.evaluate_automation_conditions(defs, instance).cursor)
        for code in ("deu", "swa"):
            dg.materialize([predictions], instance=instance, partition_key=code)
        seen.append(dg.evaluate_automation_conditions(defs, instance, cursor=cursors[0]).total_requested)
    assert seen == [0, 1]
