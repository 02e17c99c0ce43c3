"""A model before it is loaded: what is wrong with its settings, and which weights it has."""

from pathlib import Path

import pytest

from polar_pipeline.backbones.lora.model_files import check_model_settings
from polar_pipeline.backbones.lora.tiny import tiny_checkpoint
from polar_pipeline.errors import InputError
from polar_pipeline_tests.backbones.lora.examples import settings
from polar_pipeline_tests.backbones.lora.processes import SHAPES


@pytest.mark.parametrize("model", ["./gone", "/gone/model", "../a", "~/model", "a/b/c"])
def test_a_folder_that_does_not_exist(model: str) -> None:
    with pytest.raises(InputError, match=r"of backbone 'tiny' is no folder: correct its path, or give the name"):
        check_model_settings(settings(model=model))


def test_a_tiny_model_that_does_not_exist_and_a_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'tiny:gemma4' is no tiny model: use one of tiny:gemma3"):
        check_model_settings(settings(model="tiny:gemma4"))
    with pytest.raises(InputError, match=r"holds no config\.json"):
        check_model_settings(settings(model=str(tmp_path)))


@pytest.mark.parametrize("model", ["google/gemma-3-12b-pt", "gpt2", "tiny:qwen3"])
def test_a_name_on_a_hub_and_a_tiny_one_pass(model: str) -> None:
    check_model_settings(settings(model=model, target_modules=["whatever"]))


@pytest.mark.parametrize("shape", SHAPES)
def test_layers_that_a_folder_does_not_have_are_named(shape: str, bases_root: Path) -> None:
    folder = str(tiny_checkpoint(f"tiny:{shape}", bases_root))
    some = ["query", "value"] if shape == "xlm_roberta" else ["q_proj", "v_proj"]
    check_model_settings(settings(model=folder, target_modules=some))
    check_model_settings(settings(model=folder))
    check_model_settings(settings(model=folder, target_modules=["q_prj"], tuning="full"))
    with pytest.raises(
        InputError, match=rf"target_modules q_prj are no layers of .*, use all-linear or some of .*{some[0]}"
    ):
        check_model_settings(settings(model=folder, target_modules=[*some, "q_prj"]))


@pytest.mark.parametrize("content", [b"", b"\xff" * 12, b"\x05\0\0\0\0\0\0\0[1,2]"])
def test_damaged_weights_are_left_to_loading(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(content)
    check_model_settings(settings(model=str(tmp_path), target_modules=["q_proj"]))
