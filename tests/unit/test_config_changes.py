"""Changes planted in configs of transformers: all are named, and those that decide how far attention sees are counted."""

from pathlib import Path
from typing import Any

import pytest
from tiny import write_tiny

from mechdrift.checkpoints.config_changes import PARTS, Change, config_changes, reach_changes
from mechdrift.checkpoints.resolve import Checkpoint, resolve

PLAIN = {"rope_type": "default", "rope_theta": 10000.0}
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 128}
SLIDING = {"use_sliding_window": True, "sliding_window": 32, "max_window_layers": 0}


def pair(folder: Path, family: str, before: dict[str, Any], after: dict[str, Any]) -> tuple[Checkpoint, Checkpoint]:
    made = []
    for name, overrides in (("base", before), ("post", after)):
        (folder / name).mkdir()
        made.append(resolve(str(write_tiny(folder / name, family, 0, **overrides))))
    return made[0], made[1]


def counted(base: Checkpoint, post: Checkpoint) -> dict[str, int]:
    return {part: len(found) for part in PARTS if (found := reach_changes(base, post, part))}


@pytest.mark.parametrize(
    ("family", "before", "after", "expected"),
    [
        # A window on two of three blocks; the numbers of blocks are those of the files.
        ("qwen2", {}, SLIDING | {"max_window_layers": 1}, {"window": 2}),
        ("qwen3", SLIDING, SLIDING | {"sliding_window": 16}, {"window": 3}),
        ("mistral", {"sliding_window": None}, {"sliding_window": 32}, {"window": 1}),
        ("gemma2", {"sliding_window": 4}, {"sliding_window": 8}, {"window": 2}),
        ("llama", {}, {"rope_parameters": PLAIN | {"rope_theta": 500000.0}}, {"rope": 1}),
        ("llama", {"rope_parameters": YARN}, {"rope_parameters": YARN | {"factor": 8.0}}, {"rope": 1}),
        # By the context's length the other types of rope scale; plain rope does not.
        ("llama", {"rope_parameters": YARN}, {"rope_parameters": YARN, "max_position_embeddings": 1024}, {"rope": 1}),
        ("llama", {}, {"max_position_embeddings": 1024}, {}),
        (
            "gpt_neox",
            {},
            {"rope_parameters": PLAIN | {"partial_rotary_factor": 0.5}},
            {"rope": 1},
        ),
        ("gemma2", {}, {"attn_logit_softcapping": 20.0}, {"soft_cap": 1}),
        ("gemma2", {}, {"final_logit_softcapping": None, "query_pre_attn_scalar": 64}, {"soft_cap": 2}),
        # A window that is switched off, and what is no matter of attention.
        ("qwen2", {}, {"max_window_layers": 1}, {}),
        ("llama", {}, {"use_cache": False, "eos_token_id": 3, "rms_norm_eps": 1e-5}, {}),
    ],
)
def test_what_decides_how_far_attention_sees(
    tmp_path: Path, family: str, before: dict[str, Any], after: dict[str, Any], expected: dict[str, int]
) -> None:
    assert counted(*pair(tmp_path, family, before, after)) == expected


def test_every_key_that_differs_is_named_and_no_other(tmp_path: Path) -> None:
    base, post = pair(tmp_path, "llama", {}, {"eos_token_id": 3, "rms_norm_eps": 1e-5, "use_cache": False})
    # transformers writes the end token of the config into a generation config of its own.
    ends = Change("eos_token_id", 1, 3)
    generation = Change("generation.eos_token_id", 1, 3)
    assert config_changes(base, post) == (ends, generation, Change("rms_norm_eps", 1e-6, 1e-5))
    assert config_changes(base, base) == ()


def test_a_default_that_is_written_out_is_no_difference(tmp_path: Path) -> None:
    import json

    base, post = pair(tmp_path, "llama", {}, {})
    path = post.folder / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"pretraining_tp": 1, "attention_bias": False, "_name_or_path": "elsewhere"}))
    assert config_changes(base, resolve(str(post.folder))) == ()


def test_tokens_that_end_a_reply_are_named(tmp_path: Path) -> None:
    base, post = pair(tmp_path, "llama", {}, {})
    (post.folder / "generation_config.json").write_text('{"eos_token_id": [1, 5], "temperature": 0.1}')
    (change,) = config_changes(base, resolve(str(post.folder)))
    assert (change.key, change.post) == ("generation.eos_token_id", [1, 5])


def test_a_change_in_words() -> None:
    assert str(Change("sliding_window", None, 32)) == "sliding_window: base null, post 32"
    assert str(Change("layer_types", ["full"] * 6, ["full", "sliding", "full", "sliding"])) == (
        "layer_types: base 6 x full, post full, ... (4)"
    )
