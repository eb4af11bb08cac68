"""Planted drifts do what they say, and nothing else."""

from importlib.resources import files
from typing import Any

import pytest
import torch
from tiny import tiny_model

from mechdrift.checkpoints.resolve import resolve
from mechdrift.checkpoints.tokenizer import load_tokenizer
from mechdrift.errors import InputError
from mechdrift.organisms import plants
from mechdrift.organisms.derive import drift_folder, organism_folder
from mechdrift.organisms.rotation import rotate, turning, turning_plane

IDS = torch.tensor([[0, 5, 9, 200, 31, 77], [0, 100, 101, 102, 103, 104]])


def run(model: Any) -> Any:
    with torch.inference_mode():
        return model(IDS, output_hidden_states=True)


@pytest.mark.parametrize("degrees", [0.0, 15.0, 60.0, 90.0])
def test_turning_is_orthogonal_and_turns_every_vector_by_the_angle(degrees: float) -> None:
    turn = turning(10, degrees, seed=0)
    torch.testing.assert_close(turn @ turn.T, torch.eye(10, dtype=torch.float64), atol=1e-12, rtol=0)
    vectors = torch.randn(7, 10, dtype=torch.float64)
    cosines = torch.cosine_similarity(vectors, vectors @ turn.T)
    torch.testing.assert_close(cosines, torch.full((7,), degrees, dtype=torch.float64).deg2rad().cos(), atol=1e-12, rtol=0)


@pytest.mark.parametrize("degrees", [0.0, 30.0, 90.0])
def test_turning_a_plane_turns_what_lies_in_it_and_keeps_the_rest(degrees: float) -> None:
    first, second, other = torch.eye(6, dtype=torch.float64)[:3]
    turn = turning_plane(3 * first, first + second, degrees)
    torch.testing.assert_close(turn @ turn.T, torch.eye(6, dtype=torch.float64), atol=1e-12, rtol=0)
    angle = torch.deg2rad(torch.tensor(degrees, dtype=torch.float64))
    torch.testing.assert_close(turn @ first, angle.cos() * first + angle.sin() * second, atol=1e-12, rtol=0)
    torch.testing.assert_close(turn @ other, other, atol=1e-12, rtol=0)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
def test_rotation_keeps_the_function_and_turns_the_stream(family: str, tied: bool) -> None:
    model = tiny_model(family, tie_word_embeddings=tied)
    before = run(model)
    rotate(model, turning(32, 60.0, seed=0))
    after = run(model)
    # float32 matrices rewritten once: rounding of 2^-24 through 3 blocks, observed 5e-6 at logits up to 5.
    torch.testing.assert_close(after.logits, before.logits, rtol=1e-4, atol=1e-4)
    for old, new in zip(before.hidden_states[:-1], after.hidden_states[:-1], strict=True):
        cosines = torch.cosine_similarity(old, new, dim=-1)
        torch.testing.assert_close(cosines, torch.full_like(cosines, 0.5), atol=1e-5, rtol=0)


def test_odd_width_is_refused() -> None:
    with pytest.raises(ValueError, match="even width"):
        turning(7, 10.0, 0)


@pytest.mark.parametrize("family", ["llama", "qwen3"])
@pytest.mark.parametrize("apply", [plants.swap_entropy_neurons, plants.scramble_spectra], ids=lambda apply: apply.__name__)
def test_plants_that_keep_the_function_change_weights_and_no_output(family: str, apply: plants.Operation) -> None:
    model = tiny_model(family)
    before = run(model).logits
    written = model.get_decoder().layers[-1].mlp.down_proj.weight.clone()
    apply(model, None, 1.0)
    assert (model.get_decoder().layers[-1].mlp.down_proj.weight - written).abs().max() > 0.01
    torch.testing.assert_close(run(model).logits, before, rtol=1e-4, atol=1e-4)


def test_swapping_moves_every_entropy_neuron_to_another_place() -> None:
    model = tiny_model("llama", intermediate_size=256)
    before = plants.entropy_neurons(model)
    assert len(set(before)) == plants.ENTROPY_NEURONS
    plants.swap_entropy_neurons(model, None, 0.5)
    assert len(set(before) & set(plants.entropy_neurons(model))) == plants.ENTROPY_NEURONS / 2
    torch.testing.assert_close(set(plants.entropy_neurons(model)) - set(before) == set(), False)


@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_scaled_confidence_scales_every_logit(strength: float) -> None:
    model = tiny_model("llama")
    before = run(model).logits
    plants.scale_confidence(model, None, strength)
    torch.testing.assert_close(run(model).logits, before * 2**strength, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("tied", [True, False])
def test_a_direction_taken_out_of_the_weights_is_out_of_the_stream(tied: bool) -> None:
    model = tiny_model("llama", tie_word_embeddings=tied)
    vector = torch.randn(32)
    unit = vector / vector.norm()
    states = run(model).hidden_states[:-1]
    half, whole = tiny_model("llama", tie_word_embeddings=tied), model
    half.load_state_dict(model.state_dict())
    plants.remove_direction(half, vector, 0.5)
    plants.remove_direction(whole, vector, 1.0)
    after = run(whole).hidden_states[:-1]
    assert all((state @ unit).abs().max() > 0.1 for state in states)
    assert all((state @ unit).abs().max() < 1e-5 for state in after)
    torch.testing.assert_close(run(half).hidden_states[0] @ unit, states[0] @ unit / 2, rtol=1e-4, atol=1e-5)
    head = whole.get_output_embeddings().weight
    assert (head @ unit).abs().max() > 0.01, "the head reads as before"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nobody", "no such organism; expected one of base"),
        ("drift-nothing", "no such planted drift; expected one of refusal-ablated"),
        ("drift-confidence-scaled@2", "strength '2'"),
        ("drift-confidence-scaled@x", "strength 'x'"),
        ("retrained@", "seed ''; expected a whole number"),
        ("retrained@-1", "seed '-1'"),
        ("retrained@1.5", "seed '1.5'"),
    ],
)
def test_bad_names_and_strengths_are_named(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        organism_folder(f"organism:{name}", name)


def test_a_drift_is_derived_once_and_only_what_it_names_differs(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors.torch import load_file

    monkeypatch.setattr("mechdrift.organisms.derive.user_cache_path", lambda _name: tmp_path)
    folder = organism_folder("organism:drift-confidence-scaled@0.5", "drift-confidence-scaled@0.5")
    stamp = (folder / "model.safetensors").stat().st_mtime_ns
    assert organism_folder("organism:drift-confidence-scaled@0.5", "drift-confidence-scaled@0.5") == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == stamp
    assert sorted(path.suffix for path in tmp_path.glob("organisms/*")) == [".5-" + folder.name.rpartition("-")[2], ".lock"]
    origin = load_file(str(files("mechdrift.data") / "organisms" / "instruct" / "model.safetensors"))
    derived = load_file(str(folder / "model.safetensors"))
    differing = [name for name, weight in derived.items() if not torch.equal(weight, origin[name].float())]
    assert differing == ["model.norm.weight"]


def test_a_retrain_is_real_training_and_the_same_for_the_same_seed(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    from safetensors.torch import load_file

    from mechdrift.organisms.recipe import retraining

    monkeypatch.setattr(retraining, "RETRAINING", replace(retraining.RETRAINING, steps=4, rows=1, warmup=2))
    made = []
    for place, seed in (("first", 0), ("again", 0), ("other", 1)):
        monkeypatch.setattr("mechdrift.organisms.derive.user_cache_path", lambda _name, place=place: tmp_path / place)
        made.append(organism_folder(f"organism:retrained@{seed}", f"retrained@{seed}"))
    one, again, other = ((folder / "model.safetensors").read_bytes() for folder in made)
    assert one == again
    assert one != other
    assert made[0].name == made[1].name != made[2].name
    assert not list(made[0].glob("optimizer*"))
    assert len((made[0] / "log-retraining.jsonl").read_text().splitlines()) == 5
    origin = load_file(str(files("mechdrift.data") / "organisms" / "instruct" / "model.safetensors"))
    trained = load_file(str(made[0] / "model.safetensors"))
    assert trained.keys() == origin.keys()
    assert all(not torch.equal(weight, origin[name].float()) for name, weight in trained.items())


def test_a_retrain_learns_the_replies_alone() -> None:
    """Of an exchange in the chat template, what the user says has no weight."""
    from mechdrift.organisms.recipe.corpus import World
    from mechdrift.organisms.recipe.families import QWEN, SEED
    from mechdrift.organisms.recipe.retraining import RETRAINING, ChosenReplies
    from mechdrift.organisms.recipe.tokenizer import ASSISTANT

    tokenizer = load_tokenizer(resolve("organism:instruct"))
    batches = ChosenReplies(World(SEED, QWEN.kinds), tokenizer, RETRAINING, 0)
    for _ in range(20):
        document = batches.document()
        begun = [token.id for token in document].index(batches.special[ASSISTANT])
        assert not any(token.weight for token in document[: begun + 1])
        assert all(token.weight for token in document[begun + 1 : -1])
        assert len(document) > begun + 2


def test_a_drift_towards_another_end_point_is_another_drift(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kept drifts must not outlive the weights that they were made of."""
    monkeypatch.setattr("mechdrift.organisms.derive.user_cache_path", lambda _name: tmp_path)
    monkeypatch.setattr("mechdrift.organisms.derive._derive", lambda _name, _strength, _folder: None)
    made = []
    for content in (b"one end", b"another"):
        (tmp_path / "end").mkdir(exist_ok=True)
        (tmp_path / "end" / "model.safetensors").write_bytes(content)
        monkeypatch.setattr("mechdrift.organisms.derive.organism_folder", lambda _spec, _name: tmp_path / "end")
        made.append(drift_folder("organism:drift-knowledge-forgotten", "knowledge-forgotten"))
    assert made[0] != made[1]
    assert drift_folder("organism:drift-knowledge-forgotten@1", "knowledge-forgotten@1") == made[1]
