"""The tiny models of the tests of LoRA."""

from polar_pipeline_tests.backbones.lora.conftest import bases_root, elsewhere, here

__all__ = ["bases_root", "elsewhere", "here"]
