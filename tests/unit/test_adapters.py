"""`BASE+ADAPTER`: against the formula of LoRA and against PEFT's own forward; what does not fit is named."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file
from tiny import ALPHA, RANK, tiny_model, tiny_tokenizer, write_adapter
from tiny_families import tiny_causal
from transformers import AutoModelForCausalLM

from mechdrift.checkpoints.adapters import split_adapter
from mechdrift.checkpoints.resolve import resolve
from mechdrift.checkpoints.tokenizer import load_tokenizer
from mechdrift.errors import InputError
from mechdrift.models.load import load_model

# Of PEFT, about a name in transformers that it still uses.
pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers` to:UserWarning"),
]
IDS = torch.tensor([[0, 5, 9, 200, 31]])
UP = "model.layers.1.mlp.up_proj.weight"


@pytest.fixture
def base(tiny_checkpoint: Callable[..., Path]) -> Path:
    return tiny_checkpoint()


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    return write_adapter(tmp_path / "adapter")


def test_merged_weights_are_those_of_the_formula(base: Path, adapter: Path) -> None:
    merged = load_model(resolve(f"{base}+{adapter}"), torch.float32, "cpu").state_dict()
    plain, given = tiny_model().state_dict(), load_file(adapter / "adapter_model.safetensors")
    assert merged.keys() == plain.keys()
    for name, weight in plain.items():
        stem = f"base_model.model.{name.removesuffix('.weight')}"
        expected = weight
        if f"{stem}.lora_A.weight" in given:
            expected = weight + ALPHA / RANK * given[f"{stem}.lora_B.weight"] @ given[f"{stem}.lora_A.weight"]
        torch.testing.assert_close(merged[name], expected)
    assert not torch.equal(merged[UP], plain[UP])


def test_merged_says_what_the_attached_one_says(base: Path, adapter: Path) -> None:
    attached = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), adapter)
    with torch.inference_mode():
        expected = attached.eval()(IDS).logits
        found = load_model(resolve(f"{base}+{adapter}"), torch.float32, "cpu")(IDS).logits
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_in_bfloat16_change_and_sum_are_rounded_and_nothing_else(base: Path, adapter: Path) -> None:
    """Half a step of bfloat16 for the sum, and as much for the change: 2^-8 of either at most."""
    merged = load_model(resolve(f"{base}+{adapter}"), torch.bfloat16, "cpu").state_dict()[UP]
    given = load_file(adapter / "adapter_model.safetensors")
    stem = f"base_model.model.{UP.removesuffix('.weight')}"
    change = ALPHA / RANK * given[f"{stem}.lora_B.weight"] @ given[f"{stem}.lora_A.weight"]
    exact = tiny_model().state_dict()[UP].bfloat16().float() + change
    step = 2.0 ** (exact.abs().log2().floor() - 7)
    assert ((merged.float() - exact).abs() <= 0.501 * step + 2.0**-8 * change.abs()).all()


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`:UserWarning")
def test_an_embedding_that_is_the_head_too_keeps_its_adapter_attached(
    tmp_path: Path, tiny_checkpoint: Callable[..., Path]
) -> None:
    """Merged into the shared matrix it would change the head, which it does not in training."""
    tied = tiny_checkpoint(tie_word_embeddings=True)
    folder = write_adapter(tmp_path / "tied", tiny_model(tie_word_embeddings=True), target_modules=["embed_tokens"])
    expected = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tied, dtype=torch.float32), folder)
    found = load_model(resolve(f"{tied}+{folder}"), torch.float32, "cpu")
    with torch.inference_mode():
        torch.testing.assert_close(found(IDS).logits, expected.eval()(IDS).logits)
    assert found.config.model_type == "llama"


@pytest.mark.parametrize("whole", ["auto", True, False], ids=["as PEFT saves", "with both", "with none"])
@pytest.mark.parametrize("ends", [["embed_tokens"], ["lm_head"], ["embed_tokens", "lm_head"]], ids="-".join)
def test_embedding_and_head_say_what_peft_says(base: Path, tmp_path: Path, ends: list[str], whole: Any) -> None:
    """PEFT saves them whole, under the change, unless it is told not to."""
    torch.manual_seed(5)
    adapted = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32),
        LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=["q_proj", *ends], task_type="CAUSAL_LM"),
    )
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.normal_(0, 0.1)
    adapted.save_pretrained(tmp_path / "adapter", save_embedding_layers=whole)
    with torch.inference_mode():
        expected = adapted.eval()(IDS).logits
        found = load_model(resolve(f"{base}+{tmp_path / 'adapter'}"), torch.float32, "cpu")(IDS).logits
        plain = load_model(resolve(str(base)), torch.float32, "cpu")(IDS).logits
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(found, plain, rtol=1e-2, atol=1e-2)


def test_an_adapter_of_a_resized_vocabulary_names_the_rows(base: Path, tmp_path: Path) -> None:
    """Two tokens were added before training: as a chat template's are."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    rows = model.get_input_embeddings().weight.shape[0]
    model.resize_token_embeddings(rows + 2)
    settings = LoraConfig(r=RANK, target_modules=["q_proj", "embed_tokens"], task_type="CAUSAL_LM")
    get_peft_model(model, settings).save_pretrained(tmp_path / "adapter")
    words = rf"embed_tokens.weight has {rows + 2} rows in the adapter, {rows} in the base; expected a base of the same vocab"
    with pytest.raises(InputError, match=words):
        resolve(f"{base}+{tmp_path / 'adapter'}")


def test_identity_is_the_bases_and_the_adapters_bytes(base: Path, adapter: Path, tmp_path: Path) -> None:
    plain, adapted = resolve(str(base)), resolve(f"{base}+{adapter}")
    assert plain.digests.items() < adapted.digests.items()
    copy = shutil.copytree(adapter, tmp_path / "copy")
    assert resolve(f"{base}+{copy}").short == adapted.short
    tensors = load_file(copy / "adapter_model.safetensors")
    next(iter(tensors.values()))[0, 0] += 1
    save_file(tensors, copy / "adapter_model.safetensors", {"format": "pt"})
    assert resolve(f"{base}+{copy}").short != adapted.short


def test_the_adapters_own_tokenizer_is_used(base: Path, adapter: Path, tiny_tokenizer: Any) -> None:
    before = resolve(f"{base}+{adapter}")
    assert load_tokenizer(before).chat_template is None
    tiny_tokenizer.save_pretrained(adapter)
    (adapter / "chat_template.jinja").write_text("{{ messages }}")
    after = resolve(f"{base}+{adapter}")
    assert load_tokenizer(after).chat_template == "{{ messages }}"
    assert after.digests["template"] != before.digests["template"]


def test_the_base_that_an_adapter_names_is_never_loaded(base: Path, adapter: Path, tmp_path: Path) -> None:
    """It names another checkpoint that is there; what is compared is the one typed."""
    other = tmp_path / "other"
    tiny_model(seed=9).save_pretrained(other)
    edit(adapter, base_model_name_or_path=str(other))
    merged = load_model(resolve(f"{base}+{adapter}"), torch.float32, "cpu").state_dict()
    name = "model.layers.1.mlp.down_proj.weight"
    assert torch.equal(merged[name], tiny_model().state_dict()[name])


def edit(folder: Path, **settings: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


def to_pickle(folder: Path) -> None:
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")


def prompt_tuning(folder: Path) -> None:
    config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    get_peft_model(tiny_model(), config).save_pretrained(folder, save_embedding_layers=False)


def cut(folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])


def poison(folder: Path) -> None:
    tensors = load_file(folder / "adapter_model.safetensors")
    next(iter(tensors.values()))[0, 0] = float("nan")
    save_file(tensors, folder / "adapter_model.safetensors", {"format": "pt"})


BREAKING: list[tuple[Callable[[Path], Any], str]] = [
    (lambda f: (f / "adapter_model.safetensors").unlink(), "no adapter_model.safetensors in it"),
    (to_pickle, "adapter_model.bin: weights as pickle only"),
    (lambda f: (f / "adapter_config.json").unlink(), "no adapter_config.json in"),
    (lambda f: (f / "adapter_config.json").write_text("{"), "adapter_config.json is not JSON"),
    (lambda f: (f / "adapter_config.json").write_text("{}"), "adapter_config.json names no peft_type"),
    (prompt_tuning, "an adapter of type PROMPT_TUNING; expected one that changes weights"),
    (lambda f: edit(f, task_type="SEQ_CLS"), "an adapter for the task SEQ_CLS; expected CAUSAL_LM"),
    (cut, "adapter_model.safetensors is"),
    (poison, "are NaN or infinite"),
]


@pytest.mark.parametrize(("breaking", "message"), BREAKING)
def test_a_broken_adapter_is_named(base: Path, adapter: Path, breaking: Callable[[Path], Any], message: str) -> None:
    breaking(adapter)
    with pytest.raises(InputError) as caught:
        resolve(f"{base}+{adapter}")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


OTHERS: dict[str, Callable[[Path], Any]] = {
    "wider": lambda folder: write_adapter(folder, tiny_model(hidden_size=48)),
    "deeper": lambda folder: write_adapter(folder, tiny_model(num_hidden_layers=4)),
    "of other names": lambda folder: write_adapter(folder, tiny_model("gpt2"), target_modules=["c_attn"], fan_in_fan_out=True),
}


@pytest.mark.parametrize("other", OTHERS)
def test_an_adapter_of_another_base_is_named(base: Path, tmp_path: Path, other: str) -> None:
    OTHERS[other](tmp_path / "other")
    edit(tmp_path / "other", base_model_name_or_path="org/another")
    checkpoint = resolve(f"{base}+{tmp_path / 'other'}")
    with pytest.raises(
        InputError, match=r"the adapter, made on 'org/another', does not fit .*; expected an adapter of this base"
    ):
        load_model(checkpoint, torch.float32, "cpu")


def test_an_adapter_whose_tensors_are_partly_lost_is_named(base: Path, adapter: Path) -> None:
    tensors = load_file(adapter / "adapter_model.safetensors")
    del tensors[sorted(tensors)[0]]
    save_file(tensors, adapter / "adapter_model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match="0 of its tensors have no place there, 1 are lacking"):
        load_model(resolve(f"{base}+{adapter}"), torch.float32, "cpu")


def test_an_adapter_alone_says_what_to_type(adapter: Path) -> None:
    with pytest.raises(InputError, match=rf"is an adapter, made on .*; type BASE\+{adapter}"):
        resolve(str(adapter))


def test_an_adapter_beside_weights_is_not_loaded_in_silence(base: Path, adapter: Path) -> None:
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copy(adapter / name, base / name)
    with pytest.raises(InputError, match="holds both a model and an adapter; expected one of the two"):
        resolve(str(base))


def test_without_peft_the_error_names_the_extra(base: Path, adapter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mechdrift.checkpoints.adapters.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'mechdrift\[adapters\]'"):
        resolve(f"{base}+{adapter}")


def test_a_plus_in_a_path_is_a_plus(tmp_path: Path) -> None:
    for name in ("c++", "a+b", "left+", "adapter"):
        (tmp_path / name).mkdir()
    assert split_adapter(str(tmp_path / "c++")) is None
    assert split_adapter(f"{tmp_path}/c+++{tmp_path}/a+b") == (f"{tmp_path}/c++", f"{tmp_path}/a+b")
    assert split_adapter("org/name@main+org/adapter") == ("org/name@main", "org/adapter")
    assert split_adapter("org/name") is None


IDS = torch.tensor([[0, 5, 9, 200, 31, 7]])


def logits_of(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=IDS).logits


def text_and_wrapped(folder: Path) -> tuple[Any, Path, Path]:
    """A text model, its folder, and that of a model that sees whose decoder is the same."""
    text, wrapped = tiny_causal("gemma3_text"), tiny_causal("gemma3")
    missing, unexpected = wrapped.get_decoder().load_state_dict(text.get_decoder().state_dict())
    assert not missing
    assert not unexpected
    for name, model in (("text", text), ("wrapped", wrapped)):
        model.save_pretrained(folder / name)
        tiny_tokenizer().save_pretrained(folder / name)
    return text, folder / "text", folder / "wrapped"


@pytest.mark.parametrize("made_on", ["text", "wrapped"])
def test_an_adapter_goes_onto_the_same_decoder_under_other_names(made_on: str, tmp_path: Path) -> None:
    """Made on a text model it goes onto that model inside one that sees, and the other way round; as PEFT has it on its own."""
    text, *folders = text_and_wrapped(tmp_path)
    base = folders[1 if made_on == "text" else 0]
    targets = ["q_proj", "up_proj"] if made_on == "text" else r".*language_model.*(q_proj|up_proj)"
    own = AutoModelForCausalLM.from_pretrained(tmp_path / made_on)
    adapter = write_adapter(tmp_path / "adapter", own, target_modules=targets)
    expected = logits_of(PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tmp_path / made_on), adapter).eval())
    found = logits_of(load_model(resolve(f"{base}+{adapter}"), torch.float32, "cpu"))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert (found - logits_of(text.eval())).abs().max() > 1e-3, "it changes something"


@pytest.mark.filterwarnings("ignore::peft.utils.warning.PeftWarning")
def test_a_bias_that_has_no_place_stays_attached(tmp_path: Path, tiny_checkpoint: Callable[..., Path]) -> None:
    base, adapter = tiny_checkpoint(), write_adapter(tmp_path / "adapter", lora_bias=True)
    model = load_model(resolve(f"{base}+{adapter}"), torch.float32, "cpu")
    expected = logits_of(PeftModel.from_pretrained(tiny_model(), adapter).eval())
    torch.testing.assert_close(logits_of(model), expected, rtol=0, atol=1e-5)
    assert any("lora_B" in name for name, _ in model.named_modules())
