"""The last MLP's neurons against the models themselves: folded weights by plain numpy, ablations by hooks in a whole forward."""

import copy
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import VARIANTS, tiny_model, write_tiny
from transformers import AutoModelForCausalLM, AutoTokenizer

from mechdrift.checkpoints.resolve import resolve
from mechdrift.engine import last_mlp
from mechdrift.engine.last_mlp import (
    Ablation,
    ablating_neurons,
    answers,
    entropies,
    nearest,
    neuron_table,
    null_directions,
    read_last_mlp,
    streams_of,
)
from mechdrift.engine.recording import record_last_mlp
from mechdrift.engine.selfcheck import check_last_mlp
from mechdrift.errors import InterventionFailed, Unmeasurable
from mechdrift.findings.confidence.entropy_neurons import choose
from mechdrift.models.ending import ending_of
from mechdrift.models.families import FAMILIES
from mechdrift.models.load import load_model
from mechdrift.models.sites import blocks, final_norm
from mechdrift.organisms.plants import entropy_neurons

DENSE = [family for family in VARIANTS if not FAMILIES[family.partition("-")[0]].experts]
PROMPTS = [[0, 5, 9, 200, 31], [0, 7, 8], [0, 100, 101, 102, 103, 104, 105, 106]]
NEURONS = [1, 5, 9, 30]
TOKENS = 250  # of 258 rows of the head: the others pad the vocabulary
LAYER_NORMED = ("gpt2", "gpt_neox", "gpt_neox-sequential")


@pytest.fixture(params=DENSE)
def model(request: pytest.FixtureRequest) -> Any:
    return tiny_model(request.param)


def folded(model: Any) -> tuple[np.ndarray, np.ndarray]:
    """What neurons write and the unembedding [d_model, token], as the norms have it, from the modules' own answers in float64.

    A norm is linear up to its scale, so its answer to each axis of the stream, times the scale, is a column of its matrix.
    """
    model = model.double()
    axes = torch.eye(32, dtype=torch.float64)

    def matrix(norm: Any) -> torch.Tensor:
        bias = getattr(norm, "bias", None)
        centre = isinstance(norm, torch.nn.LayerNorm)
        inputs = axes * 1e6  # so large that eps is nothing
        centred = inputs - inputs.mean(1, keepdim=True) if centre else inputs
        answer = norm(inputs) - (0 if bias is None else bias)
        return answer * centred.square().mean(1, keepdim=True).sqrt() / 1e6

    with torch.no_grad():
        block = blocks(model)[-1]
        if hasattr(block.mlp, "c_proj"):  # GPT-2's is stored the other way round
            written = block.mlp.c_proj.weight
        else:
            written = getattr(block.mlp, "dense_4h_to_h" if hasattr(block.mlp, "dense_4h_to_h") else "down_proj").weight.T
        if hasattr(block, "post_feedforward_layernorm"):
            written = written @ matrix(block.post_feedforward_layernorm)
        if isinstance(final_norm(model), torch.nn.LayerNorm):
            written = written - written.mean(1, keepdim=True)
        return written.numpy(), (matrix(final_norm(model)) @ model.get_output_embeddings().weight[:TOKENS].T).numpy()


def test_table_equals_folded_weights(model: Any) -> None:
    """Norm, LogitVar and rho, and so the choice, from the modules' own answers; a family's gain offset is in those."""
    found = neuron_table(read_last_mlp(model, TOKENS)).numpy()
    written, unembedding = folded(model)
    centred = unembedding - unembedding.mean(1, keepdims=True)
    unit = written / np.linalg.norm(written, axis=1, keepdims=True)
    variance = (unit @ (centred / np.linalg.norm(centred, axis=0))).var(1, ddof=1)
    left = np.linalg.svd(centred)[0]
    end = 31 if model.config.model_type in LAYER_NORMED else 32  # the last one is what centring takes out
    bottom = left[:, end - null_directions(32) : end]
    np.testing.assert_allclose(found[:, 0], np.linalg.norm(written, axis=1), rtol=1e-5)
    np.testing.assert_allclose(found[:, 1], variance, rtol=1e-5)
    np.testing.assert_allclose(found[:, 2], np.square(unit @ bottom).sum(1), atol=1e-5)
    assert len(found) == len(written)


@pytest.mark.parametrize("ablation", [Ablation((5,), (0.1,)), Ablation((9, 1, 30), (-0.2, 0.3, 0.05))])
def test_ablations_are_those_of_the_model(model: Any, ablation: Ablation, monkeypatch: pytest.MonkeyPatch) -> None:
    """Entropies and logits with activations replaced inside a whole forward; direct ones with the final norm's scale held."""
    monkeypatch.setattr(last_mlp, "BLOCK_VALUES", 3 * TOKENS)  # several blocks of positions
    mlp = read_last_mlp(model, TOKENS)
    recorded = record_last_mlp(model, PROMPTS, [1] * 3, NEURONS, 8)
    requested = [[3, 4], [5, 6], [7, 8], [9, 10], [11, 12], [13, 14], [15, 16]]
    for row, prompt in enumerate(PROMPTS):
        streams = streams_of(recorded[row, : len(prompt) - 1], 32, len(NEURONS))
        found = entropies(mlp, streams, NEURONS, [ablation])
        logits = answers(mlp, streams, NEURONS, ablation, requested[: len(prompt) - 1])
        with torch.inference_mode():
            ids = torch.tensor([prompt])
            plain = model(ids).logits[0, 1:, :TOKENS]
            with ablating_neurons(model, ablation):
                ablated = model(ids).logits[0, 1:, :TOKENS]
            direct = direct_logits(model, ids, ablation)
        assert (plain - ablated).abs().max() > 1e-3, "the ablation changed something"
        assert (direct - ablated).abs().max() > 1e-4, "and so did the norm's scale"
        for column, whole in enumerate((plain, ablated, direct)):
            expected = torch.distributions.Categorical(logits=whole).entropy()
            torch.testing.assert_close(found[:, column], expected, rtol=1e-5, atol=1e-5)
        tokens = torch.tensor(requested[: len(prompt) - 1])
        for arm, whole in enumerate((plain, ablated)):
            torch.testing.assert_close(logits[:, arm], whole.gather(1, tokens), rtol=1e-4, atol=1e-4)


def direct_logits(model: Any, ids: torch.Tensor, ablation: Ablation) -> torch.Tensor:
    """Of an ablated forward whose final norm divides by the scale of the plain one."""
    norm, entered = final_norm(model), []
    handle = norm.register_forward_pre_hook(lambda _m, args: entered.append(args[0]))
    model(ids)
    with ablating_neurons(model, ablation):
        model(ids)
    handle.remove()
    centre = isinstance(norm, torch.nn.LayerNorm)
    eps = norm.eps if hasattr(norm, "eps") else norm.variance_epsilon

    def scale(x: torch.Tensor) -> torch.Tensor:
        x = x - x.mean(-1, keepdim=True) if centre else x
        return (x.square().mean(-1, keepdim=True) + eps).sqrt()

    bias = getattr(norm, "bias", None)
    bias = 0 if bias is None else bias
    states = (norm(entered[1]) - bias) * scale(entered[1]) / scale(entered[0]) + bias
    logits = model.get_output_embeddings()(states)[0, 1:, :TOKENS]
    cap = getattr(model.config, "final_logit_softcapping", None)
    return logits if cap is None else torch.tanh(logits / cap) * cap


def test_the_nearest_neuron_is_found_wherever_it_went(model: Any) -> None:
    mlp = read_last_mlp(model, TOKENS)
    given = mlp.written[[7, 3]] * torch.tensor([[2.0], [0.5]])
    found = nearest(mlp, given)
    assert found[:, 0].tolist() == [7, 3]
    torch.testing.assert_close(found[:, 1], torch.ones(2))
    assert nearest(mlp, -given)[:, 0].tolist() != [7, 3], "a sign matters"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_check_passes_in_half_precision(model: Any, dtype: torch.dtype) -> None:
    """Whose logits the model rounds, and what is computed from its streams in float32 does not."""
    model = model.to(dtype)
    check_last_mlp(model, read_last_mlp(model, TOKENS), PROMPTS[2], NEURONS, [Ablation((5, 9), (0.5, -0.5))])


def test_the_check_passes_and_notices_what_is_wrong(model: Any) -> None:
    mlp = read_last_mlp(model, TOKENS)
    check_last_mlp(model, mlp, PROMPTS[0], NEURONS, [Ablation((5,), (0.1,))])
    with pytest.raises(InterventionFailed, match="no ablation of neurons moved the logits"):
        check_last_mlp(model, mlp, PROMPTS[0], NEURONS, [Ablation((), ())])
    handle = model.get_output_embeddings().register_forward_hook(lambda _m, _i, logits: logits * 1.5)
    with pytest.raises(Unmeasurable, match="self-check: the logits are not the final norm"):
        check_last_mlp(model, mlp, PROMPTS[0], NEURONS, [])
    handle.remove()
    matrix = ending_of(model).down
    handle = matrix.register_forward_hook(lambda _m, args, out: out + out.roll(1, -1) * args[0].sum().sin())
    with pytest.raises(InterventionFailed, match="are not those that were computed"):
        check_last_mlp(model, mlp, PROMPTS[0], NEURONS, [Ablation((5, 9), (3.0, -3.0))])
    handle.remove()


@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe"])
def test_a_mixture_of_experts_has_none_and_its_entropy_is_known(family: str) -> None:
    model = tiny_model(family)
    with pytest.raises(Unmeasurable, match="mixture of experts"):
        read_last_mlp(model, TOKENS)
    mlp = read_last_mlp(model, TOKENS, neurons=False)
    recorded = record_last_mlp(model, PROMPTS[:1], [1], (), 8)
    found = entropies(mlp, streams_of(recorded[0], 32, 0), (), ())
    with torch.inference_mode():
        expected = torch.distributions.Categorical(logits=model(torch.tensor(PROMPTS[:1])).logits[0, 1:, :TOKENS]).entropy()
    torch.testing.assert_close(found[:, 0], expected, rtol=1e-5, atol=1e-5)


def test_weights_that_are_no_plain_matrix_are_refused_by_name() -> None:
    model = tiny_model()
    head = model.get_output_embeddings()
    head.weight = torch.nn.Parameter(head.weight.to(torch.int8), requires_grad=False)
    with pytest.raises(Unmeasurable, match="the head is quantised, offloaded or split"):
        read_last_mlp(model, TOKENS)


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen3", "gpt_neox"])
def test_table_and_choice_equal_transformer_lens(family: str, tmp_path: Path) -> None:
    """Folded and centred by TransformerLens itself, which does so for norms before a block."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformer_lens.model_bridge import TransformerBridge

        write_tiny(tmp_path, family, intermediate_size=160, n_inner=160)
        model = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
        tokenizer = AutoTokenizer.from_pretrained(tmp_path)
        name = str(tmp_path)
        bridge = TransformerBridge.boot_transformers(name, hf_model=copy.deepcopy(model), tokenizer=tokenizer, device="cpu")
        bridge.process_weights(fold_value_biases=False)  # which are not asked about, and of gpt2 fold only with a head's size
    written, unembedding = bridge.blocks[-1].mlp.W_out.detach(), bridge.unembed.W_U.detach()
    norms = written.norm(dim=1)
    variance = ((written / norms[:, None]) @ (unembedding / unembedding.norm(dim=0))).var(dim=1)
    table = neuron_table(read_last_mlp(model, 258))
    torch.testing.assert_close(table[:, 0], norms, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(table[:, 1], variance, rtol=1e-5, atol=1e-7)
    loud = norms.topk(160 // 4).indices
    assert set(choose(table.numpy()).neurons) == set(loud[variance[loud].topk(10, largest=False).indices].tolist())


def test_the_planted_drift_swaps_the_neurons_that_are_chosen() -> None:
    """The organisms' own plain code, on a trained checkpoint."""
    model = load_model(resolve("organism:instruct"), torch.float32, "cpu")
    table = neuron_table(read_last_mlp(model, model.config.vocab_size))
    assert list(choose(table.numpy()).neurons) == entropy_neurons(model)
