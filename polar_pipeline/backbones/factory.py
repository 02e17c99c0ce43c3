"""From a profile's entry to the backbone that it names."""

from polar_pipeline.backbones.base import Backbone
from polar_pipeline.backbones.imported import ImportedBackbone
from polar_pipeline.backbones.linear.backbone import LinearBackbone
from polar_pipeline.backbones.lora.backbone import LoraBackbone
from polar_pipeline.backbones.lora.loading import ModelCache
from polar_pipeline.backbones.lora.pooled import PooledBackbone
from polar_pipeline.settings.backbones import BackboneSettings, ImportedSettings, LoraSettings
from polar_pipeline.settings.profile import Profile


def make_backbone(settings: BackboneSettings, profile: Profile, models: ModelCache | None = None) -> Backbone:
    """The backbone of this entry.

    Making it trains nothing and imports nothing heavy; `models` is shared between backbones.
    """
    if isinstance(settings, ImportedSettings):
        return ImportedBackbone(settings)
    if isinstance(settings, LoraSettings):
        make = PooledBackbone if settings.scope == "pooled" else LoraBackbone
        return make(settings, profile.seed, profile.folds.count, models or ModelCache())
    return LinearBackbone(settings, profile.seed, profile.folds.count)
