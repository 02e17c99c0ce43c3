"""From a profile's entry to the backbone that it names."""

from polar_pipeline.backbones.base import Backbone
from polar_pipeline.backbones.imported import ImportedBackbone
from polar_pipeline.backbones.linear.backbone import LinearBackbone
from polar_pipeline.task.profile import BackboneSettings, ImportedSettings, Profile


def make_backbone(settings: BackboneSettings, profile: Profile) -> Backbone:
    """The backbone of this entry; making it trains nothing and imports nothing heavy."""
    if isinstance(settings, ImportedSettings):
        return ImportedBackbone(settings)
    return LinearBackbone(settings, profile.seed, profile.folds.count)
