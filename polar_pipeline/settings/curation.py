"""Settings of curation: which synthetic posts are kept, and how many of them a language trains on."""

from typing import Any, Literal

from pydantic import Field

from polar_pipeline.settings.yaml_files import Settings


class LanguageShare(Settings):
    """One language's share in place of the profile's."""

    share: float = Field(ge=0, le=0.9)
    """Most synthetic posts among those trained on."""


class CurationSettings(Settings):
    """Which synthetic posts are kept."""

    near_duplicate: float = Field(default=0.9, gt=0, le=1)
    """Cosine from which a synthetic post counts as a copy of an earlier one or of any real post: that of the
    runner-up system.
    """
    embedder: str = "ngrams"
    """What posts are compared by. ngrams: counts of character n-grams, which need no weights. The name of a
    sentence-transformers model: its embeddings. api: and a model's name (api:NAME): embeddings of the endpoint.
    """
    language_model: str | None = Field(default=None, min_length=1)
    """A fastText file (.bin or .ftz) that identifies languages in place of CLD3, such as GlotLID or lid.176, from the
    folder of this profile. null: CLD3. Needs `pip install polar-pipeline[fasttext]`.
    """
    share: float = Field(default=0.3, ge=0, le=0.9)
    """Most synthetic posts among those trained on: about the best share of the runner-up system."""
    per_language: dict[str, LanguageShare] = Field(default={})
    """The share that a language has instead, such as {swa: {share: 0.1}}. In the runner-up system high shares hurt
    Swahili and Khmer.
    """
    gate: bool = True
    """Whether each language takes only the share that helps the linear backbone out of fold, beyond the error.
    false: each takes the share above, whether it helps or not.
    """
    round_trip: float | None = Field(default=None, gt=0, le=1)
    """Cosine of a post to its translation to English and back, below which a rewritten or contrastive post is
    dropped. It compares meaning, so embedder may not be ngrams then. null asks for no translation.
    """
    judge: bool = False
    """Whether the endpoint gives each post, without knowing its label, the probability that it is positive."""
    judge_threshold: float = Field(default=0.7, ge=0, le=1)
    """Probability that the judge must give the label that a post was asked for, or the post is dropped: that of the
    best Hausa system of the task. A post that it gives no number passes.
    """
    judge_real_posts: int = Field(default=100, ge=0)
    """Real training posts, half of each label, that the judge is asked about too, blind, to see whether it can be
    believed. They are kept whatever it says.
    """
    temperature: float | None = Field(default=0.0, ge=0, le=2)
    """Temperature of translation and judge, whose answers should be the same every time. null sends none."""
    contradictions: Literal["keep", "drop"] = "keep"
    """What happens to equal training posts with different labels. keep: all are trained on. drop: none is."""

    @property
    def asks_endpoint(self) -> bool:
        """Whether curation costs requests: translation, the judge, or an endpoint's embeddings."""
        return self.round_trip is not None or self.judge or self.embedder.startswith("api:")

    def content_settings(self) -> dict[str, Any]:
        """The settings of one language (see `of`) that change which posts are kept, as JSON.

        Without `language_model`, whose contents are among the sources of the asset.
        """
        unused = set() if self.judge or self.round_trip is not None else {"temperature"}
        unused |= set() if self.judge else {"judge_threshold", "judge_real_posts"}
        return self.model_dump(mode="json", exclude={"per_language", "language_model", *unused})

    def of(self, code: str) -> "CurationSettings":
        """The settings of one language."""
        own = self.per_language.get(code)
        return self.model_copy(update={"share": own.share if own else self.share, "per_language": {}})
