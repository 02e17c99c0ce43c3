"""The base of the small facts that stages hand to each other as JSON: validated, immutable, no unknown keys."""

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """A frozen JSON record."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
