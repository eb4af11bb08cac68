"""Quantised checkpoints as they are published: what is loaded, what is read of their matrices, and what is refused by name.

What the numbers should be is worked out by each format's own formula (tests/helpers/quantised_layouts.py).
"""

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from quantised_layouts import (
    LAYOUTS,
    WEIGHTS,
    Meant,
    compressed,
    describe,
    float8_blocks,
    group,
    int4_groups,
    int4_zeros,
    int8_packed,
    int8_rows,
    mxfp4_experts,
    rewrite,
)
from safetensors.torch import load_file, save_file
from tiny import tiny_model, tiny_tokenizer, write_adapter

from mechdrift.checkpoints.resolve import resolve
from mechdrift.engine.weights.matrices import LLAMA, Matrices
from mechdrift.errors import InputError, Unmeasurable
from mechdrift.models.load import load_model
from mechdrift.report.text import described

DEQUANTISED = [name for name in LAYOUTS if name not in ("awq", "gptq")]
# Products of two numbers, one of them a scale in bfloat16, rounded to bfloat16; NVFP4 has a second scale under the first.
BFLOAT16 = 2.0**-7
SIZES: dict[str, Any] = {"hidden_size": 128, "intermediate_size": 256}
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # of PEFT and optimum


def needs(*modules: str) -> pytest.MarkDecorator:
    """Skip, and say so, where a library that reads a method is not installed."""
    missing = [name for name in modules if find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"{', '.join(missing)} not installed")


compressed_tensors = needs("compressed_tensors")


@pytest.fixture
def written(tiny_checkpoint: Callable[..., Path]) -> Callable[..., tuple[Path, Meant]]:
    """A tiny checkpoint in a published layout, and what its matrices stand for."""

    def write(layout: str, **sizes: int) -> tuple[Path, Meant]:
        pack, settings = LAYOUTS[layout]
        folder = tiny_checkpoint(**SIZES | sizes)
        meant = rewrite(folder, pack)
        return describe(folder, settings), meant

    return write


def assert_plain(folder: object, meant: Meant, rtol: float = BFLOAT16, atol: float = 0.0) -> None:
    """The model that is loaded has plain matrices of these values, and runs. atol: in units of a matrix's largest."""
    model = load_model(resolve(str(folder)), torch.float32, "cpu")
    weights = model.state_dict()
    assert {weight.dtype for weight in weights.values()} == {torch.float32}
    for name, expected in meant.items():
        torch.testing.assert_close(weights[name].double(), expected, rtol=rtol, atol=atol * float(expected.abs().max()))
    with torch.inference_mode():
        assert model(torch.tensor([[0, 1, 2]])).logits.isfinite().all()


def assert_read(folder: object, meant: Meant, rtol: float = 1e-6, kinds: tuple[str, ...] = tuple(LLAMA)) -> None:
    """The matrices that are read of the files have these values, to float32."""
    matrices = Matrices(resolve(str(folder)))
    for layer in range(3):
        for kind in kinds:
            expected = next(value for name, value in meant.items() if f"layers.{layer}.{LLAMA[kind].module}.weight" in name)
            torch.testing.assert_close(matrices.read(layer, kind).weight.double(), expected, rtol=rtol, atol=1e-7)


@pytest.mark.parametrize(
    "layout", [pytest.param(name, marks=[compressed_tensors] if "compressed" in name else []) for name in DEQUANTISED]
)
def test_a_published_layout_is_loaded_and_read_as_what_it_stands_for(layout: str, written: Callable[..., Any]) -> None:
    folder, meant = written(layout)
    method = LAYOUTS[layout][1]["quant_method"]
    assert f"llama, {method}, dequantised, 3 blocks" in described(resolve(str(folder)))
    assert_plain(folder, meant)
    assert_read(folder, meant, BFLOAT16 if "NVFP4" in layout else 1e-6)  # which compressed-tensors multiplies in bfloat16


@compressed_tensors
@pytest.mark.parametrize("pack", [int8_rows, int8_packed])
def test_each_matrix_is_read_in_its_own_way(tiny_checkpoint: Callable[..., Path], pack: Any) -> None:
    """Transformers alone would take all for the first way: without an error, where both are packed in the same format."""
    folder = tiny_checkpoint(**SIZES)
    meant = rewrite(folder, int4_groups, "up_proj.weight") | rewrite(folder, pack, "down_proj.weight")
    form = "int-quantized" if pack is int8_rows else "pack-quantized"
    up, down = group("pack-quantized", "re:.*up_proj"), group(form, "re:.*down_proj", num_bits=8, strategy="channel")
    describe(folder, compressed(up, down))
    assert_plain(folder, meant)
    assert_read(folder, meant, kinds=("up", "down"))


@pytest.fixture
def experts(tiny_checkpoint: Callable[..., Path]) -> Callable[[str], tuple[Path, Meant]]:
    """A mixture of experts in a published layout."""

    def write(layout: str) -> tuple[Path, Meant]:
        pack, settings = LAYOUTS[layout]
        folder = tiny_checkpoint("qwen3_moe", hidden_size=128, moe_intermediate_size=256, head_dim=32)
        meant = rewrite(folder, pack)
        return describe(folder, settings), meant

    return write


@pytest.mark.parametrize(
    "layout",
    [
        "fp8 blocks",
        pytest.param("compressed W4A16", marks=compressed_tensors),
        pytest.param("compressed FP8", marks=compressed_tensors),
    ],
)
def test_experts_are_dequantised_each(layout: str, experts: Callable[[str], Any]) -> None:
    """Each is stored apart, and all are one tensor in the model."""
    folder, meant = experts(layout)
    for layer in range(3):
        start = f"model.layers.{layer}.mlp.experts"
        parts = {
            kind: torch.stack([meant.pop(f"{start}.{number}.{kind}_proj.weight") for number in range(4)])
            for kind in ("gate", "up", "down")
        }
        meant |= {f"{start}.gate_up_proj": torch.cat([parts["gate"], parts["up"]], 1), f"{start}.down_proj": parts["down"]}
    assert_plain(folder, meant)
    matrices = Matrices(resolve(str(folder)))
    found, expected = matrices.read(0, "q").weight, meant["model.layers.0.self_attn.q_proj.weight"]
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=1e-8)
    with pytest.raises(Unmeasurable, match="a mixture of experts"):
        matrices.read(0, "up")


@compressed_tensors
@pytest.mark.parametrize("layout", ["compressed W4A16 with zeros", "compressed W8A8", "compressed NVFP4"])
def test_experts_that_transformers_would_misread_are_refused(layout: str, experts: Callable[[str], Any]) -> None:
    """NVFP4 without its second scale is thousands of times too large, and loads without an error."""
    folder, _ = experts(layout)
    with pytest.raises(
        InputError, match=r"rounded its experts in a way that transformers does not read \(first model.layers.0.mlp"
    ):
        resolve(str(folder))


def test_experts_in_four_bits_of_floating_point(tiny_checkpoint: Callable[..., Path]) -> None:
    """As gpt-oss is published: the experts packed, all else plain, and so read of the files too."""
    sizes = {"hidden_size": 64, "intermediate_size": 64, "num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 16}
    folder = tiny_checkpoint("gpt_oss", **sizes, sliding_window=4, rope_parameters={"rope_type": "default", "rope_theta": 1e4})
    meant = mxfp4_experts(folder)
    plain = load_file(folder / WEIGHTS)
    spared = ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]
    describe(folder, {"quant_method": "mxfp4", "modules_to_not_convert": spared})
    assert "gpt_oss, mxfp4, dequantised" in described(resolve(str(folder)))
    assert len(meant) == 6
    assert_plain(folder, meant, rtol=0)  # a few bits times a power of two is exact
    matrices = Matrices(resolve(str(folder)))
    torch.testing.assert_close(matrices.read(1, "o").weight, plain["model.layers.1.self_attn.o_proj.weight"])
    for kind in ("gate", "up", "down"):
        with pytest.raises(Unmeasurable, match=r"has no|mixture of experts"):
            matrices.read(1, kind)


# The sixteen numbers of NF4, as the QLoRA paper lists them (its appendix E), and of bitsandbytes' FP4: e2m1 over 12, with 1/192.
NF4 = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334),
    *(-0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
    *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)
FP4 = tuple(sign * size / 12 for sign in (1, -1) for size in (0, 0.0625, 8, 12, 4, 6, 2, 3))


def four_bits(tensors: dict[str, torch.Tensor], name: str, code: tuple[float, ...], shape: torch.Size) -> torch.Tensor:
    """Two to a byte, the first in the upper half; 64 share a scale, which may be rounded too: 256 of those share one."""
    (state,) = (json.loads(bytes(part.tolist())) for key, part in tensors.items() if key.startswith(f"{name}.quant_state"))
    scale = tensors[f"{name}.absmax"]
    if scale.dtype == torch.uint8:
        outer = tensors[f"{name}.nested_absmax"].double().repeat_interleave(256)[: len(scale)]
        wide = tensors[f"{name}.nested_quant_map"].double()[scale.long()] * outer + state["nested_offset"]
    else:
        wide = scale.double()
    packed = tensors[name].flatten().long()
    values = torch.tensor(code, dtype=torch.float64)[torch.stack([packed >> 4, packed & 15], 1).flatten()]
    return (values * wide.repeat_interleave(64)).reshape(shape)


@needs("bitsandbytes")
@pytest.mark.parametrize(
    "how",
    [
        {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
        {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True},
        {"load_in_4bit": True, "bnb_4bit_quant_type": "fp4"},
        {"load_in_8bit": True},
    ],
    ids=["nf4", "nf4 twice", "fp4", "int8"],
)
def test_bitsandbytes_as_transformers_saves_it(tiny_checkpoint: Callable[..., Path], tmp_path: Path, how: dict[str, Any]) -> None:
    """Also with an adapter on it, as QLoRA trains one: merged, since its base is a plain matrix."""
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    folder = tiny_checkpoint(**SIZES)
    shapes = {name: tensor.shape for name, tensor in load_file(folder / WEIGHTS).items() if name.endswith("_proj.weight")}
    rounded = BitsAndBytesConfig(**how)
    AutoModelForCausalLM.from_pretrained(
        folder, quantization_config=rounded, device_map={"": "cpu"}, dtype=torch.bfloat16
    ).save_pretrained(folder)
    stored = load_file(folder / WEIGHTS)
    if "load_in_8bit" in how:
        meant = {name: stored[name].double() * stored[name[:-6] + "SCB"].double()[:, None] / 127 for name in shapes}
    else:
        code = NF4 if how["bnb_4bit_quant_type"] == "nf4" else FP4
        meant = {name: four_bits(stored, name, code, shape) for name, shape in shapes.items()}
    assert "llama, bitsandbytes, dequantised" in described(resolve(str(folder)))
    assert_plain(folder, meant)
    assert_read(folder, meant, 1e-5)
    adapter = write_adapter(tmp_path / "adapter", tiny_model(**SIZES))
    assert_plain(f"{folder}+{adapter}", adapted(meant, adapter), atol=BFLOAT16)  # sums, in which values may cancel


def adapted(meant: Meant, adapter: Path) -> Meant:
    """W + alpha / rank B A, where there is one."""
    parts = load_file(adapter / "adapter_model.safetensors")
    result = dict(meant)
    for name, weight in meant.items():
        start = f"base_model.model.{name.removesuffix('.weight')}"
        if f"{start}.lora_A.weight" in parts:
            result[name] = weight + 4 * parts[f"{start}.lora_B.weight"].double() @ parts[f"{start}.lora_A.weight"].double()
    assert result.keys() == meant.keys()
    return result


@pytest.mark.parametrize("layout", ["fp8 blocks", pytest.param("compressed W4A16", marks=compressed_tensors)])
def test_an_adapter_is_merged_into_what_its_base_stands_for(layout: str, written: Callable[..., Any], tmp_path: Path) -> None:
    folder, meant = written(layout)
    adapter = write_adapter(tmp_path / "adapter", tiny_model(**SIZES))
    assert_read(f"{folder}+{adapter}", adapted(meant, adapter))
    model = load_model(resolve(f"{folder}+{adapter}"), torch.float32, "cpu")
    assert {type(module).__name__ for module in model.modules() if hasattr(module, "weight")} >= {"Linear"}
    assert not [name for name, _ in model.named_parameters() if "lora" in name]


@needs("torchao")
@pytest.mark.filterwarnings("ignore")  # its import warns of kernels that this torch has not
def test_torchao_is_dequantised_and_its_files_are_not_read(tiny_checkpoint: Callable[..., Path]) -> None:
    from torchao.quantization import Int8WeightOnlyConfig
    from transformers import AutoModelForCausalLM, TorchAoConfig

    folder = tiny_checkpoint(**SIZES)
    AutoModelForCausalLM.from_pretrained(
        folder, quantization_config=TorchAoConfig(Int8WeightOnlyConfig()), device_map={"": "cpu"}, dtype=torch.bfloat16
    ).save_pretrained(folder)
    stored = load_file(folder / WEIGHTS)
    ends = {name: name.removesuffix("_weight_qdata") for name in stored if name.endswith("_weight_qdata")}
    meant = {f"{start}weight": stored[name].double() * stored[f"{start}_weight_scale"].double() for name, start in ends.items()}
    assert len(meant) == 21
    assert_plain(folder, meant)
    with pytest.raises(Unmeasurable, match="quantised by torchao: its matrices are not read"):
        Matrices(resolve(str(folder)))


@needs("gptqmodel", "optimum")
@pytest.mark.filterwarnings("ignore")  # gptqmodel warns of much
@pytest.mark.parametrize("layout", ["awq", "gptq"])
def test_what_transformers_keeps_packed_runs_packed(layout: str, written: Callable[..., Any], tmp_path: Path) -> None:
    """By gptqmodel's kernels, in 16 bits: the same logits, to their rounding, as plain matrices of what it stands for."""
    folder, meant = written(layout)
    checkpoint = resolve(str(folder))
    assert f"llama, {layout}, 3 blocks" in described(checkpoint)
    packed = load_model(checkpoint, torch.float32, "cpu")
    plain = tiny_model(**SIZES)
    plain.load_state_dict({name: value.float() for name, value in meant.items()}, strict=False)
    with torch.inference_mode():
        ids = torch.tensor([[0, 5, 9, 33]])
        found, expected = packed(ids).logits.float(), plain(ids).logits
    assert (found - expected).abs().max() < 0.02 * expected.abs().max()
    with pytest.raises(Unmeasurable, match=f"quantised by {layout}: its matrices are not read from packed files"):
        Matrices(checkpoint)


@pytest.mark.parametrize("inside", ["", "text_config"])
@pytest.mark.parametrize("layout", ["fp8 blocks", pytest.param("compressed W4A16", marks=compressed_tensors)])
def test_a_model_that_reads_more_than_text(layout: str, inside: str, tmp_path: Path) -> None:
    """Its quantization_config may be the whole model's, or that of the text model inside."""
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration

    text = {"vocab_size": 258, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32}
    seen = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28}
    ids = {"boi_token_index": 250, "eoi_token_index": 251, "image_token_index": 252, "mm_tokens_per_image": 4}
    config = Gemma3Config(text_config=text | SIZES | {"sliding_window": 4}, vision_config=seen | {"patch_size": 14}, **ids)
    torch.manual_seed(0)
    Gemma3ForConditionalGeneration(config).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    pack, settings = LAYOUTS[layout]
    meant = rewrite(tmp_path, pack, within="language_model")
    assert len(meant) == 21
    spared = ["lm_head", "re:.*vision_tower.*", "re:.*multi_modal_projector.*"]
    kept = {"ignore": spared} if "compressed" in layout else {"modules_to_not_convert": ["vision_tower", "multi_modal_projector"]}
    describe(tmp_path, settings | kept, inside)
    checkpoint = resolve(str(tmp_path))
    assert checkpoint.quantised == f"{settings['quant_method']}, dequantised"
    weights = load_model(checkpoint, torch.float32, "cpu").state_dict()
    for name, expected in meant.items():
        (found,) = (
            weight for key, weight in weights.items() if "vision" not in key and key.endswith(name.partition("layers.")[2])
        )
        torch.testing.assert_close(found.double(), expected, rtol=BFLOAT16, atol=1e-9)
    assert_read(tmp_path, meant)


def put(name: str, tensor: torch.Tensor) -> Callable[[Path], None]:
    """One more tensor in the file."""

    def change(folder: Path) -> None:
        save_file(load_file(folder / WEIGHTS) | {name: tensor}, folder / WEIGHTS, {"format": "pt"})

    return change


TURNED = {"config_groups": {"R4": {"type": "hadamard", "apply": [{"targets": ["re:.*down_proj"], "location": "input"}]}}}
UP = "model.layers.0.mlp.up_proj"
REFUSED = [
    (
        int4_groups,
        compressed(group("pack-quantized")),
        put(f"{UP}.weight_g_idx", torch.arange(128)),
        rf"grouped in another order \({UP}.weight_g_idx\), which compressed-tensors reads no more; .*compare the unquantised",
    ),
    (
        int4_groups,
        compressed(group("pack-quantized"), transform_config=TURNED),
        None,
        r"turns its activations while it runs \(transform_config: input\); .*compare the unquantised original",
    ),
    (
        int4_zeros,
        compressed(group("pack-quantized", symmetric=False), group("pack-quantized", "re:.*up_proj", num_bits=8)),
        None,
        "rounded in several ways by compressed-tensors, with zero points; expected one way",
    ),
]


@compressed_tensors
@pytest.mark.parametrize(("pack", "settings", "change", "message"), REFUSED, ids=["order", "turned", "zeros"])
def test_what_transformers_would_leave_out_is_refused_before_weights_are_read(
    tiny_checkpoint: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    pack: Any,
    settings: dict[str, Any],
    change: Callable[[Path], None] | None,
    message: str,
) -> None:
    folder = tiny_checkpoint(**SIZES)
    rewrite(folder, pack)
    if change is not None:
        change(folder)
    describe(folder, settings)
    monkeypatch.setattr("mechdrift.checkpoints.resolve.read_weights", lambda *_: pytest.fail("weights were read"))
    with pytest.raises(InputError, match=message):
        resolve(str(folder))


@pytest.mark.parametrize("named", [True, False])
def test_blocks_of_float8_that_are_cut_off_are_refused(
    tiny_checkpoint: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, named: bool
) -> None:
    """192 rows in blocks of 128: transformers would put two scales on 96 rows each, and say nothing."""
    folder = tiny_checkpoint(hidden_size=128, intermediate_size=192)
    rewrite(folder, float8_blocks)
    describe(folder, {"quant_method": "fp8"} | ({"weight_block_size": [128, 128]} if named else {}))
    monkeypatch.setattr("mechdrift.checkpoints.resolve.read_weights", lambda *_: pytest.fail("weights were read"))
    with pytest.raises(
        InputError, match=r"down_proj\.weight is 128 x 192, no whole blocks of 128 x 128; expected blocks that fit"
    ):
        resolve(str(folder))


@pytest.mark.parametrize("layout", ["fp8 blocks", pytest.param("compressed W8A8", marks=compressed_tensors)])
def test_a_weight_without_its_scale_is_refused(layout: str, written: Callable[..., Any]) -> None:
    """Transformers would take its eight bits for the weight, in a model that has all its tensors."""
    folder, _ = written(layout)
    tensors = {name: tensor for name, tensor in load_file(folder / WEIGHTS).items() if not name.startswith(f"{UP}.weight_scale")}
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})
    with pytest.raises(InputError, match=rf"{UP}.weight is (F8_E4M3|I8) and has no scale; expected one beside it; copy the"):
        resolve(str(folder))


@compressed_tensors
def test_how_inputs_were_rounded_is_nothing_of_a_matrix(written: Callable[..., Any]) -> None:
    """Static scales of inputs, and of the cache of keys and values: named in the file, and left out."""
    folder, meant = written("compressed FP8")
    for name in (f"{UP}.input_scale", "model.layers.0.self_attn.k_scale", "model.layers.0.self_attn.v_scale"):
        put(name, torch.ones(1))(folder)
    assert_plain(folder, meant)
    assert_read(folder, meant)
    put(f"{UP}.weight_zero_point", torch.ones(1))(folder)
    with pytest.raises(Unmeasurable, match=r"up_proj: compressed-tensors does not read weight, weight_scale, weight_zero_point"):
        assert_read(folder, meant)
