"""Synthetic posts, and the posts that are trained on: real ones and those synthetic ones that curation kept."""

import dagster as dg
import pandas as pd

from polar_pipeline.backbones.factory import make_backbone
from polar_pipeline.curation.curate import REAL, capped, curate
from polar_pipeline.curation.embedding import make_embedder
from polar_pipeline.curation.funnel import funnel
from polar_pipeline.curation.second_look import Endpoint, objections_on_second_look
from polar_pipeline.decision.augmentation import evaluate_shares, helpful_share
from polar_pipeline.defs.metadata import frame_metadata, table
from polar_pipeline.defs.owners import OWNERS
from polar_pipeline.defs.partitions import language_partitions
from polar_pipeline.defs.project import Project
from polar_pipeline.defs.tracked import StepContext, tracked_asset
from polar_pipeline.synthesis.make import make_posts
from polar_pipeline.task.backbones import LinearSettings
from polar_pipeline.task.languages import language
from polar_pipeline.tracking.base import TrackedRun


def synthesis_assets(project: Project) -> list[dg.AssetsDefinition]:
    """`synthetic_posts` and `deduped_posts`."""
    profile, card, home = project.profile, project.card, project.home
    shared = {
        "partitions_def": language_partitions(profile),
        "group_name": "synthesis",
        "owners": OWNERS,
        "io_manager_key": "tables",
    }

    @tracked_asset(
        **shared, kinds={"openai", "parquet"}, code_version=project.code_version("synthesis", "folds", "synthesis")
    )
    def synthetic_posts(context: StepContext, raw_posts: pd.DataFrame, run: TrackedRun) -> pd.DataFrame:
        """Posts that a model wrote or a perturbation made, each with its label, its fold and what it was made from."""
        settings = profile.synthesis
        made = make_posts(
            raw_posts, context.partition_key, card, settings, profile.seed, home.ledgers, context.log.info
        )
        params = settings.model_dump(mode="json", include={"source", "model", "posts", "temperature"})
        run.log(params=params, metrics={"posts": len(made.posts), "dollars": made.dollars})
        context.add_output_metadata(
            {
                **frame_metadata(made.posts),
                "source": settings.source,
                "dollars": made.dollars,
                "stopped_at_a_cap": made.capped,
                "requests": dg.MetadataValue.json(dict(made.outcomes)),
            }
        )
        return made.posts

    @tracked_asset(
        **shared, kinds={"numpy", "parquet"}, code_version=project.code_version("curation", "folds", "curation")
    )
    def deduped_posts(
        context: StepContext, raw_posts: pd.DataFrame, synthetic_posts: pd.DataFrame, run: TrackedRun
    ) -> pd.DataFrame:
        """Real and synthetic posts, each kept or flagged with the stage that objected, the reason and what it is like."""
        embedder = make_embedder(profile.curation.embedder, home.artifacts / "embeddings", profile.synthesis.base_url)
        endpoint = Endpoint(language(context.partition_key), profile.synthesis, home.ledgers, context.log.info)
        wanted = profile.curation.round_trip is not None or profile.curation.judge
        curated = curate(
            raw_posts,
            synthetic_posts,
            context.partition_key,
            profile.curation,
            embedder,
            (lambda posts: objections_on_second_look(posts, card, profile.curation, embedder, endpoint))
            if wanted
            else None,
        )
        share = profile.curation.share
        if profile.curation.gate and (curated["source"] != REAL).any():
            share = _gated_share(context, curated)
        curated = capped(curated, share)
        survival = funnel(curated)
        made = curated[curated["source"] != REAL]
        stages = {f"stage_{stage}": int(count) for stage, count in made["stage"].value_counts().items() if stage}
        run.log(metrics={"synthetic": len(made), "synthetic_kept": int(made["keep"].sum()), "share": share, **stages})
        context.add_output_metadata(
            {
                **frame_metadata(curated),
                "synthetic_kept": int(made["keep"].sum()),
                "share_allowed": share,
                **({"funnel": table(survival)} if survival else {}),
            }
        )
        return curated

    def _gated_share(context: StepContext, curated: pd.DataFrame) -> float:
        """The share that helps the cheapest backbone beyond the error, at most the profile's; 0 when none does."""
        own = next((entry for entry in profile.backbones if isinstance(entry, LinearSettings)), LinearSettings())
        results = evaluate_shares(curated, context.partition_key, card, profile, make_backbone(own, profile))
        for result in results:
            context.log.info(
                f"share {result.share:.0%}: macro-F1 {result.macro_f1:.4f}, {result.difference.value:+.4f}"
            )
        return min(helpful_share(results), profile.curation.share)

    return [synthetic_posts, deduped_posts]
