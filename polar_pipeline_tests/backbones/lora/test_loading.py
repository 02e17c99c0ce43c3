"""A base is loaded with every weight of its checkpoint, or one sentence says why not and what to do."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from polar_pipeline.backbones.lora import loading, memory
from polar_pipeline.backbones.lora.base_model import BaseModel
from polar_pipeline.backbones.lora.loading import check_model_settings, load_base, pick_dtype
from polar_pipeline.errors import InputError
from polar_pipeline.pretrained import model_files
from polar_pipeline.pretrained.model_files import pick_device
from polar_pipeline.pretrained.tiny import tiny_checkpoint
from polar_pipeline.settings.backbones import LoraSettings
from polar_pipeline_tests.backbones.lora.examples import settings
from polar_pipeline_tests.backbones.lora.processes import SHAPES
from polar_pipeline_tests.pretrained.hub import at, hub


def copied(bases_root: Path, folder: Path, shape: str = "gemma3") -> Path:
    return Path(shutil.copytree(tiny_checkpoint(f"tiny:{shape}", bases_root), folder / shape))


def changed_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    save_file(change(load_file(folder / "model.safetensors")), folder / "model.safetensors", metadata={"format": "pt"})


def changed_config(folder: Path, **changes: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


FIRST = "embed_tokens.weight"


def test_every_weight_is_the_checkpoints_and_only_the_head_is_not(base: BaseModel, bases_root: Path) -> None:
    """The trap: a multimodal checkpoint loads into the text class without a word, and leaves all weights random."""
    shape = base.name.removeprefix("tiny:")
    saved = load_file(tiny_checkpoint(base.name, bases_root) / "model.safetensors")
    prefix = base.model.base_model_prefix
    towers = {"gemma3": "model.", "qwen3": "model.", "xlm_roberta": "roberta."}
    towers["gemma3_multimodal"] = next((name.removesuffix(FIRST) for name in saved if name.endswith(FIRST)), "")
    loaded = {name: value for name, value in base.model.state_dict().items() if name.startswith(f"{prefix}.")}
    assert len(loaded) > 50
    for name, value in loaded.items():
        assert torch.equal(value, saved[towers[shape] + name.removeprefix(f"{prefix}.")]), name
    assert {name.partition(".")[0] for name in base.model.state_dict()} == {prefix, base.head}
    text = {name for name in saved if name.startswith(towers[shape])}
    assert len(text) == len(loaded)  # none of the text tower's was left behind
    assert base.model.config.num_labels == 1


def test_the_old_multimodal_names_are_known_too(bases_root: Path, tmp_path: Path) -> None:
    """Google published checkpoints with `language_model.model.`; transformers writes `model.language_model.` now."""
    folder = copied(bases_root, tmp_path, "gemma3_multimodal")
    old = "language_model.model."

    def rename(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        assert any(name.startswith(("model.language_model.", old)) for name in state)
        return {name.replace("model.language_model.", old): value for name, value in state.items()}

    expected = load_base(settings(model="tiny:gemma3_multimodal"), bases_root).model.state_dict()
    changed_weights(folder, rename)
    found = load_base(settings(model=str(folder)), bases_root).model.state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected if not name.startswith("score"))


WEIGHTS: dict[str, Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]] = {
    "renamed": lambda state: {name.replace("layers.3.mlp", "layers.3.mpl"): value for name, value in state.items()},
    "one missing": lambda state: {name: value for name, value in state.items() if "layers.5.mlp.up_proj" not in name},
    "a layer missing": lambda state: {name: value for name, value in state.items() if "layers.2." not in name},
    "one too many": lambda state: state | {"model.layers.6.mlp.up_proj.weight": torch.zeros(128, 64)},
    "another prefix": lambda state: {f"tower.{name}": value for name, value in state.items()},
    "another shape": lambda state: state | {"model.norm.weight": torch.zeros(32)},
}


@pytest.mark.parametrize("change", WEIGHTS)
def test_weights_that_do_not_fit_are_refused(bases_root: Path, tmp_path: Path, change: str) -> None:
    folder = copied(bases_root, tmp_path)
    changed_weights(folder, WEIGHTS[change])
    with pytest.raises(InputError, match=r"model '.*gemma3'.*(do not fit|cannot be loaded)"):
        load_base(settings(model=str(folder)), bases_root)


FOLDERS: dict[str, Callable[[Path], object]] = {
    "weights cut": lambda at: (at / "model.safetensors").write_bytes((at / "model.safetensors").read_bytes()[:-500]),
    "weights are text": lambda at: (at / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1"),
    "weights gone": lambda at: (at / "model.safetensors").unlink(),
    "weights only as a pickle": lambda at: (at / "model.safetensors").rename(at / "pytorch_model.bin"),
    "tokenizer gone": lambda at: [file.unlink() for file in at.glob("tokenizer*")],
    "tokenizer cut": lambda at: (at / "tokenizer.json").write_text('{"version'),
    "configuration gone": lambda at: (at / "config.json").unlink(),
    "configuration cut": lambda at: (at / "config.json").write_text("{"),
    "unknown architecture": lambda at: changed_config(at, model_type="gemma17"),
    "no classifier of that kind": lambda at: changed_config(at, model_type="clip_vision_model"),
    "a pickle of tokens": lambda at: (at / "tokenizer.json").rename(at / "tokenizer.pickle"),
    "folder gone": lambda at: shutil.rmtree(at),
}


@pytest.mark.parametrize("damage", FOLDERS)
def test_a_folder_that_is_no_model_is_one_clear_sentence(bases_root: Path, tmp_path: Path, damage: str) -> None:
    folder = copied(bases_root, tmp_path)
    FOLDERS[damage](folder)
    with pytest.raises(InputError) as caught:
        load_base(settings(model=str(folder)), bases_root)
    text = str(caught.value)
    assert "gemma3'" in text and len(text) < 800 and "\n" not in text


CODE = """
import pathlib
pathlib.Path({marker!r}).write_text("ran")
from transformers import Gemma3TextConfig
class Evil(Gemma3TextConfig):
    model_type = "evil"
"""


@pytest.mark.parametrize("model_type", ["gemma3_text", "evil"])
def test_code_of_a_checkpoint_never_runs_even_if_a_person_would_say_yes(
    bases_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model_type: str
) -> None:
    folder, marker = copied(bases_root, tmp_path), tmp_path / "marker"
    (folder / "evil.py").write_text(CODE.format(marker=str(marker)))
    auto = {name: "evil.Evil" for name in ("AutoConfig", "AutoModel", "AutoModelForSequenceClassification")}
    changed_config(folder, model_type=model_type, auto_map=auto | {"AutoTokenizer": ["evil.Evil", "evil.Evil"]})
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
    tokenizer |= {"auto_map": {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    asked: list[str] = []
    monkeypatch.setattr("builtins.input", lambda text="": asked.append(text) or "y")
    if model_type == "evil":
        with pytest.raises(InputError, match="'tiny' works only with code of its own, which is never run here: use"):
            load_base(settings(model=str(folder)), bases_root)
    else:
        assert load_base(settings(model=str(folder)), bases_root).model.config.model_type == "gemma3_text"
    assert not marker.exists() and not asked


@pytest.mark.parametrize("name", ["model-Q4_K_M.gguf", "pytorch_model.bin", "model.pth"])
def test_other_formats_of_weights_are_refused_before_anything_is_loaded(
    bases_root: Path, tmp_path: Path, name: str
) -> None:
    folder = copied(bases_root, tmp_path)
    (folder / "model.safetensors").rename(folder / name)
    with pytest.raises(InputError, match=f"has its weights in {name}, and only safetensors are read: save"):
        check_model_settings(settings(model=str(folder)))


def test_weights_in_shards_are_those_of_one_file(bases_root: Path, tmp_path: Path) -> None:
    whole = tiny_checkpoint("tiny:gemma3", bases_root)
    kind = transformers.Gemma3ForCausalLM
    kind.from_pretrained(whole, dtype=torch.float32).save_pretrained(tmp_path, max_shard_size="300KB")
    for file in whole.glob("tokenizer*"):
        shutil.copy(file, tmp_path)
    shards = sorted(tmp_path.glob("model-*.safetensors"))
    assert len(shards) > 1 and not (tmp_path / "model.safetensors").exists()
    found, expected = (load_base(settings(model=str(at)), bases_root) for at in (tmp_path, whole))
    names = [name for name in expected.model.state_dict() if not name.startswith("score")]
    assert all(torch.equal(found.model.state_dict()[name], expected.model.state_dict()[name]) for name in names)
    check_model_settings(settings(model=str(tmp_path), target_modules=["q_proj"]))
    shards[0].unlink()
    with pytest.raises(InputError, match="cannot be loaded"):
        load_base(settings(model=str(tmp_path)), bases_root)


def test_a_tokenizer_needs_no_token_for_padding(bases_root: Path, tmp_path: Path) -> None:
    folder = copied(bases_root, tmp_path)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({k: v for k, v in config.items() if k != "pad_token"}))
    base = load_base(settings(model=str(folder)), bases_root)
    assert base.tokenizer.pad_token_id is None
    rows = base.tokens(["a", "a longer text", ""])
    with torch.inference_mode():
        alone = torch.cat([base.logits([row]) for row in rows])
        torch.testing.assert_close(base.logits(rows), alone, atol=1e-5, rtol=0)


def test_a_head_of_another_task_is_left_out(bases_root: Path, tmp_path: Path) -> None:
    """A checkpoint that was fine-tuned for three classes gives its trunk; its head would not fit, and is not ours."""
    folder = copied(bases_root, tmp_path)
    changed_weights(folder, lambda state: state | {"score.weight": torch.ones(3, 64)})
    assert load_base(settings(model=str(folder)), bases_root).model.score.weight.shape == (1, 64)


def test_too_little_memory_names_what_to_change(bases_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda device: 2**19)
    with pytest.raises(
        InputError, match=r"'tiny:gemma3' of backbone 'tiny' needs 0\.0 GiB .* set four_bit to true, name"
    ):
        load_base(settings(), bases_root)
    monkeypatch.setattr(memory, "free_bytes", lambda device: 2**10)
    with pytest.raises(InputError, match=r"GiB free: name a smaller model"):
        load_base(settings(four_bit=True), bases_root)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_not_replaced_in_silence(bases_root: Path) -> None:
    with pytest.raises(InputError, match=r"'tiny' asks for device cuda and there is none: set device to auto or cpu"):
        load_base(settings(device="cuda"), bases_root)
    assert load_base(settings(device="auto"), bases_root).device == "cpu"


@pytest.mark.parametrize(
    ("cuda", "mps", "picked", "missing"),
    [(True, True, "cuda", []), (False, True, "mps", ["cuda"]), (False, False, "cpu", ["cuda", "mps"])],
)
def test_auto_takes_the_gpu_that_is_there(
    monkeypatch: pytest.MonkeyPatch, cuda: bool, mps: bool, picked: str, missing: list[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert pick_device("auto", "backbone 'tiny'") == picked
    for device in ("cpu", "cuda", "mps"):
        if device in missing:
            with pytest.raises(InputError, match=f"asks for device {device} and there is none"):
                pick_device(device, "backbone 'tiny'")
        else:
            assert pick_device(device, "backbone 'tiny'") == device


def test_four_bit_is_not_for_encoders(bases_root: Path) -> None:
    with pytest.raises(
        InputError, match="four_bit is for Gemma 3, Qwen3, Qwen2, Llama and Mistral, not for xlm-roberta"
    ):
        load_base(settings(model="tiny:xlm_roberta", four_bit=True), bases_root)


def test_float16_is_no_setting_and_auto_depends_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gemma 3 overflows in float16, and a T4 has no bfloat16."""
    with pytest.raises(ValueError, match="float16"):
        LoraSettings(name="x", kind="lora", model="m", dtype="float16")
    for capability, expected in (((9, 0), torch.bfloat16), ((8, 0), torch.bfloat16), ((7, 5), torch.float32)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda capability=capability: capability)
        assert pick_dtype(settings(), "cuda") == expected
    assert pick_dtype(settings(), "cpu") == torch.float32 and pick_dtype(settings(), "mps") == torch.float32
    assert pick_dtype(settings(dtype="bfloat16"), "cpu") == torch.bfloat16


def test_attention_of_cudnn_is_off_on_a_gpu(bases_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its backward pass gives NaN on H100 and H200 with a mask when the length is 64 mod 128."""
    before = torch.backends.cuda.cudnn_sdp_enabled()
    monkeypatch.setattr(loading, "pick_device", lambda *_: "cuda")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    monkeypatch.setattr(model_files, "tiny_checkpoint", lambda *given: (_ for _ in ()).throw(InputError("far enough")))
    try:
        torch.backends.cuda.enable_cudnn_sdp(True)
        with pytest.raises(InputError, match="far enough"):
            load_base(settings(), bases_root)
        assert not torch.backends.cuda.cudnn_sdp_enabled()
    finally:
        torch.backends.cuda.enable_cudnn_sdp(before)


def test_what_a_base_is_depends_on_its_files_and_not_on_its_place(bases_root: Path, tmp_path: Path) -> None:
    folder = copied(bases_root, tmp_path)
    expected = load_base(settings(), bases_root).identity
    assert load_base(settings(model=str(folder)), bases_root).identity == expected
    (folder / "README.md").write_text("hello")
    assert load_base(settings(model=str(folder)), bases_root).identity == expected
    changed_weights(folder, lambda state: state | {"model.embed_tokens.weight": state["model.embed_tokens.weight"] + 1})
    assert load_base(settings(model=str(folder)), bases_root).identity != expected
    changed_config(other := copied(bases_root, tmp_path / "other"), rms_norm_eps=1e-5)
    assert load_base(settings(model=str(other)), bases_root).identity != expected
    found = {load_base(settings(model=f"tiny:{shape}"), bases_root).identity for shape in SHAPES}
    assert len(found) == 4


SCRIPT = """
import json, os, pathlib, sys
from polar_pipeline.backbones.lora.loading import load_base
from polar_pipeline.errors import InputError
from polar_pipeline_tests.backbones.lora.examples import settings
for model in ("polar/gated", "polar/missing", "polar/open"):
    try:
        base = load_base(settings(model=model), pathlib.Path("."))
        print(json.dumps(["loaded", base.identity, float(base.model.model.norm.weight.sum())]))
    except InputError as error:
        print(json.dumps(["refused", str(error)]))
(weights,) = pathlib.Path(os.environ["HF_HOME"]).rglob("snapshots/*/model.safetensors")
content = bytearray(weights.read_bytes())
content[-1000] ^= 1
weights.resolve().write_bytes(content)
try:
    load_base(settings(model="polar/open"), pathlib.Path("."))
    print(json.dumps(["loaded", ""]))
except InputError as error:
    print(json.dumps(["refused", str(error)]))
"""


@pytest.fixture(scope="module")
def answers(bases_root: Path, tmp_path_factory: pytest.TempPathFactory) -> list[list[str]]:
    """What loading three models from a hub comes to, in a process that knows no other hub."""
    with hub("polar/open", tiny_checkpoint("tiny:gemma3", bases_root)) as address:
        variables = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT],
            cwd=tmp_path_factory.mktemp("working"),
            env=variables | at(address, tmp_path_factory.mktemp("hub")),
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_gated_model_says_what_to_accept_where(answers: list[list[str]]) -> None:
    kind, text = answers[0]
    assert kind == "refused"
    assert text.startswith(
        "model 'polar/gated' is gated: accept its licence at https://huggingface.co/polar/gated and set HF_TOKEN"
    )


def test_a_model_that_no_hub_has_is_named(answers: list[list[str]]) -> None:
    kind, text = answers[1]
    assert kind == "refused"
    assert (
        "model 'polar/missing' (revision main) of backbone 'tiny' cannot be loaded" in text and "check its name" in text
    )


def test_a_downloaded_file_that_is_not_what_the_hub_published_is_refused(answers: list[list[str]]) -> None:
    kind, text = answers[3]
    assert kind == "refused"
    assert "model.safetensors of model 'polar/open' is damaged (its sha256 is not the published one): remove /" in text


def test_a_model_of_the_hub_is_known_by_its_commit(answers: list[list[str]]) -> None:
    assert answers[2][:2] == ["loaded", "c" * 40]


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
