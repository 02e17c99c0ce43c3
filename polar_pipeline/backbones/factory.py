"""The backbone of each kind of profile entry."""

from polar_pipeline.backbones.base import Backbone
from polar_pipeline.backbones.encoder.backbone import EncoderBackbone
from polar_pipeline.backbones.imported import ImportedBackbone
from polar_pipeline.backbones.linear.backbone import LinearBackbone
from polar_pipeline.backbones.lora.backbone import LoraBackbone
from polar_pipeline.backbones.lora.loading import ModelCache
from polar_pipeline.backbones.lora.pooled import PooledBackbone
from polar_pipeline.settings.backbones import BackboneSettings, EncoderSettings, ImportedSettings, LinearSettings
from polar_pipeline.settings.profile import Profile
from polar_pipeline.storage.home import Home
from polar_pipeline.task.card import TaskCard


def make_backbone(
    settings: BackboneSettings, profile: Profile, card: TaskCard, home: Home, models: ModelCache | None = None
) -> Backbone:
    """The backbone of an entry of a profile. Imports nothing heavy."""
    root = home.adapters
    if isinstance(settings, ImportedSettings):
        return ImportedBackbone(settings, card, root)
    if isinstance(settings, LinearSettings):
        return LinearBackbone(settings, profile.seed, profile.folds.count, card, root)
    if isinstance(settings, EncoderSettings):
        return EncoderBackbone(settings, profile.seed, profile.folds.count, card, root, home.embeddings)
    make = LoraBackbone if settings.scope == "language" else PooledBackbone
    return make(settings, profile.seed, profile.folds.count, card, root, models or ModelCache())
