"""The folder of tiny models, as the tests of LoRA have it."""

from polar_pipeline_tests.backbones.lora.conftest import bases_root

__all__ = ["bases_root"]
