"""Which tensor is which matrix: against what transformers' own modules compute, and against PEFT's own merge."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from tiny import VARIANTS, tiny_model, tiny_tokenizer, write_adapter
from tiny_families import tiny_causal

from mechdrift.checkpoints.resolve import resolve
from mechdrift.engine.weights.matrices import LAYOUTS, Matrices
from mechdrift.errors import Unmeasurable
from mechdrift.findings.structure.changes import KINDS
from mechdrift.models.load import load_model
from mechdrift.models.sites import blocks

# Of PEFT, about a name in transformers that it still uses.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
EXPERTS = ("mixtral", "qwen3_moe")
SEPARATE = [variant for variant in VARIANTS if variant.partition("-")[0] not in ("gpt2", "gpt_neox", "phi3", *EXPERTS)]
LAYER, LAST = 1, 2


def module_of(block: torch.nn.Module, kind: str) -> Any:
    return block.get_submodule(f"{'self_attn' if kind in 'qkvo' else 'mlp'}.{kind}_proj")


@pytest.mark.parametrize("family", SEPARATE)
def test_separate_matrices_are_the_modules_weights(tiny_checkpoint: Callable[..., Path], family: str) -> None:
    matrices, model = Matrices(resolve(str(tiny_checkpoint(family)))), tiny_model(family)
    assert set(matrices.kinds) == set(KINDS)
    for layer, block in enumerate(blocks(model)):
        for kind in matrices.kinds:
            assert torch.equal(matrices.read(layer, kind).weight, module_of(block, kind).weight)


class Seen(dict[str, torch.Tensor]):
    """What attention was given, and what went through modules."""

    def attention(self, _module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: Any, **__: Any) -> Any:
        """Stands for an attention implementation."""
        self.update(q=query, k=key, v=value)
        return torch.ones_like(query).transpose(1, 2), None

    def before(self, name: str) -> Callable[..., None]:
        """A hook that keeps what a module is given."""

        def hook(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self[name] = args[0] if args else kwargs["hidden_states"]

        return hook

    def after(self, name: str) -> Callable[..., None]:
        """A hook that keeps what a module gives."""

        def hook(_module: Any, _args: Any, output: torch.Tensor) -> None:
            self[name] = output

        return hook


# The modules of a block whose input is that of attention or of the MLP; the activation, and whether its input is the gate or up;
# and those that give o and down.
FUSED = {
    "gpt2": ("attn", "mlp", "mlp.act", "up", "attn.c_proj", "mlp.c_proj"),
    "gpt_neox": ("attention", "mlp", "mlp.act", "up", "attention.dense", "mlp.dense_4h_to_h"),
    "phi3": ("self_attn", "mlp", "mlp.activation_fn", "gate", "self_attn.o_proj", "mlp.down_proj"),
}


@pytest.mark.parametrize("family", FUSED)
def test_fused_matrices_are_what_the_forward_computes(tiny_checkpoint: Callable[..., Path], family: str) -> None:
    """At the first token, which rotary embeddings do not turn; biases are put to 0."""
    from transformers import AttentionInterface

    model, seen = tiny_model(family), Seen()
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter.data.zero_()
    AttentionInterface.register("seen", seen.attention)
    model.set_attn_implementation("seen")
    block, (attention, mlp, activation, first, *last) = blocks(model)[LAST], FUSED[family]
    block.get_submodule(attention).register_forward_pre_hook(seen.before("attention"), with_kwargs=True)
    block.get_submodule(mlp).register_forward_pre_hook(seen.before("mlp"), with_kwargs=True)
    block.get_submodule(activation).register_forward_pre_hook(seen.before(first), with_kwargs=True)
    for kind, path in zip(("o", "down"), last, strict=True):
        block.get_submodule(path).register_forward_pre_hook(seen.before(f"into {kind}"), with_kwargs=True)
        block.get_submodule(path).register_forward_hook(seen.after(kind))
    with torch.inference_mode():
        model(torch.tensor([[7, 8, 9]]))
    matrices = Matrices(resolve(str(tiny_checkpoint(family))))
    into = {"q": "attention", "k": "attention", "v": "attention", "o": "into o", first: "mlp", "down": "into down"}
    assert len(into) == 6
    for kind, source in into.items():
        computed = seen[kind][:, :, 0].flatten() if kind in "qkv" else seen[kind][0, 0]
        expected = matrices.read(LAST, kind).weight @ seen[source][0, 0]
        torch.testing.assert_close(computed, expected, rtol=1e-4, atol=1e-4)
    if family == "phi3":
        gated = torch.nn.functional.silu(seen["gate"]) * (seen["mlp"] @ matrices.read(LAST, "up").weight.mT)
        torch.testing.assert_close(seen["into down"], gated, rtol=1e-4, atol=1e-4)
    else:
        with pytest.raises(Unmeasurable, match=f"family '{family}' has no gate matrix"):
            matrices.read(LAST, "gate")


@pytest.mark.parametrize("family", EXPERTS)
def test_of_experts_attention_alone_is_told(tiny_checkpoint: Callable[..., Path], family: str) -> None:
    matrices, model = Matrices(resolve(str(tiny_checkpoint(family)))), tiny_model(family)
    for kind in "qkvo":
        assert torch.equal(matrices.read(LAYER, kind).weight, module_of(blocks(model)[LAYER], kind).weight)
    for kind in ("gate", "up", "down"):
        with pytest.raises(Unmeasurable, match=f"block 1 is a mixture of experts: of one {kind} matrix there is no definition"):
            matrices.read(LAYER, kind)


def test_a_dense_block_among_experts_has_its_matrices(tiny_checkpoint: Callable[..., Path]) -> None:
    settings: dict[str, Any] = {"mlp_only_layers": [1]}
    matrices = Matrices(resolve(str(tiny_checkpoint("qwen3_moe", **settings))))
    expected = module_of(blocks(tiny_model("qwen3_moe", **settings))[1], "up").weight
    assert torch.equal(matrices.read(1, "up").weight, expected)


def test_every_family_has_a_layout() -> None:
    assert {variant.partition("-")[0] for variant in VARIANTS} == LAYOUTS.keys()


@pytest.mark.parametrize(
    ("config", "settings"),
    [
        ("LoraConfig", {}),
        ("LoraConfig", {"use_dora": True}),
        ("LoraConfig", {"use_rslora": True, "rank_pattern": {"v_proj": 4}}),
        ("LoHaConfig", {}),
        ("LoKrConfig", {}),
        ("IA3Config", {"feedforward_modules": ["down_proj"]}),
        ("OFTConfig", {"oft_block_size": 4, "r": 0}),
        ("LoraConfig", {"modules_to_save": ["o_proj"]}),
    ],
)
def test_an_adapter_is_merged_one_matrix_at_a_time_as_peft_merges_all(
    tiny_checkpoint: Callable[..., Path], tmp_path: Path, config: str, settings: dict[str, Any]
) -> None:
    target = ["q_proj", "v_proj", "down_proj"]
    adapted = peft.get_peft_model(tiny_model(), getattr(peft, config)(target_modules=target, task_type="CAUSAL_LM", **settings))
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    adapted.save_pretrained(tmp_path)
    checkpoint = resolve(f"{tiny_checkpoint()}+{tmp_path}")
    matrices, whole, plain = Matrices(checkpoint), load_model(checkpoint, torch.float32, "cpu"), tiny_model()
    for layer, block in enumerate(blocks(whole)):
        for kind in matrices.kinds:
            found = matrices.read(layer, kind).weight
            torch.testing.assert_close(found, module_of(block, kind).weight, rtol=0, atol=1e-6)
            changed = kind in ("q", "v", "down") or (kind == "o" and "modules_to_save" in settings)
            assert torch.equal(found, module_of(blocks(plain)[layer], kind).weight) != changed
    assert torch.equal(matrices.read(0, "q").weight, matrices.read(0, "q").weight)  # reading leaves nothing behind


def test_an_adapter_that_takes_a_part_of_the_base_is_refused(tiny_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    adapted = peft.get_peft_model(tiny_model(), peft.LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM"))
    adapted.peft_config["default"].init_lora_weights = "pissa"
    adapted.save_pretrained(tmp_path)
    with pytest.raises(Unmeasurable, match="begun by 'pissa'"):
        Matrices(resolve(f"{tiny_checkpoint()}+{tmp_path}"))


def test_a_change_that_overflows_is_named(tiny_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    adapter = write_adapter(tmp_path / "adapter")
    weights = {name: torch.full_like(weight, 1e30) for name, weight in load_file(adapter / "adapter_model.safetensors").items()}
    save_file(weights, adapter / "adapter_model.safetensors")
    with pytest.raises(Unmeasurable, match=r"model\.safetensors, model\.layers\.0\.mlp\.up_proj\.weight: NaN or infinite"):
        Matrices(resolve(f"{tiny_checkpoint()}+{adapter}")).read(0, "up")


@pytest.mark.parametrize("family", ["smollm3", "granite", "olmo3", "cohere"])
def test_a_family_that_nobody_listed_has_the_matrices_of_usual_names(family: str, tiny_checkpoint: Callable[..., Path]) -> None:
    matrices = Matrices(resolve(str(tiny_checkpoint(family))))
    block = blocks(tiny_model(family))[1]
    assert set(matrices.kinds) == {"q", "k", "v", "o", "gate", "up", "down"}
    for kind in matrices.kinds:
        module = block.self_attn if kind in "qkvo" else block.mlp
        assert torch.equal(matrices.read(1, kind).weight, getattr(module, f"{kind}_proj").weight)


OTHER_NAMES = {
    "opt": {"o": "self_attn.out_proj", "up": "fc1", "down": "fc2"} | {kind: f"self_attn.{kind}_proj" for kind in "qkv"},
    "phi": {"o": "self_attn.dense", "up": "mlp.fc1", "down": "mlp.fc2"} | {kind: f"self_attn.{kind}_proj" for kind in "qkv"},
    "bloom": {"o": "self_attention.dense", "up": "mlp.dense_h_to_4h", "down": "mlp.dense_4h_to_h"},
    "gptj": {"o": "attn.out_proj", "up": "mlp.fc_in", "down": "mlp.fc_out"} | {kind: f"attn.{kind}_proj" for kind in "qkv"},
}
"""By transformers' own code; BLOOM's queries, keys and values lie in one matrix, of which nobody says how."""


@pytest.mark.parametrize("family", OTHER_NAMES)
def test_other_usual_names_are_known_too(family: str, tmp_path: Path) -> None:
    model = tiny_causal(family)
    model.save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    matrices = Matrices(resolve(str(tmp_path)))
    assert set(matrices.kinds) == OTHER_NAMES[family].keys()
    block = blocks(model)[1]
    for kind, name in OTHER_NAMES[family].items():
        assert torch.equal(matrices.read(1, kind).weight, block.get_parameter(f"{name}.weight"))


def test_a_matrix_that_holds_more_than_its_name_says_is_refused(tiny_checkpoint: Callable[..., Path]) -> None:
    """Qwen 3.5 keeps a gate beside its queries; three of four blocks have no queries at all."""
    linear = {"linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 16, "linear_value_head_dim": 16}
    sizes: dict[str, Any] = linear | {"head_dim": 8, "num_hidden_layers": 4}
    matrices = Matrices(resolve(str(tiny_checkpoint("qwen3_5_text", **sizes))))
    with pytest.raises(Unmeasurable, match=r"q_proj.weight: 64 x 32, not the 32 x 32 of a q matrix alone"):
        matrices.read(3, "q")
    with pytest.raises(Unmeasurable, match=r"block 0 has no self_attn.q_proj.weight in its files"):
        matrices.read(0, "q")
    up = blocks(tiny_model("qwen3_5_text", **sizes))[0].mlp.up_proj.weight
    assert torch.equal(matrices.read(0, "up").weight, up)


def test_a_family_of_other_names_is_refused(tiny_checkpoint: Callable[..., Path]) -> None:
    with pytest.raises(Unmeasurable, match="family 'mamba': no matrix of its blocks has a name that is known"):
        Matrices(resolve(str(tiny_checkpoint("mamba"))))
