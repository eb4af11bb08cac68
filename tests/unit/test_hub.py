"""Hub specs, with the hub's own client against a server on this machine: commits, access, cut connections, no connection."""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants
from stand_in import Repository, StandIn, constants_of, environment, stand_in
from tiny import write_adapter

from mechdrift.checkpoints.resolve import Resolver, resolve
from mechdrift.errors import InputError

WEIGHTS = "model.safetensors"
CACHE = "hub"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """The stand-in, and a client that knows no other hub, no cache and no token."""
    with stand_in() as server:
        for name, value in constants_of(environment(server, tmp_path)).items():
            monkeypatch.setattr(constants, name, value)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.chdir(tmp_path)
        yield server


@pytest.fixture
def old(tiny_checkpoint: Callable[..., Path], tmp_path: Path) -> Path:
    """A checkpoint with what we do not want beside it: pickles, code, and another framework's weights in a folder."""
    folder = Path(shutil.copytree(tiny_checkpoint(), tmp_path / "old"))
    (folder / "pytorch_model.bin").write_bytes(b"a pickle")
    (folder / "modeling_own.py").write_text("raise SystemExit('ran')")
    (folder / "onnx").mkdir()
    (folder / "onnx" / "config.json").write_text("{}")
    return folder


@pytest.fixture
def new(tiny_checkpoint: Callable[..., Path], tmp_path: Path) -> Path:
    """The same model later: other weights, another config, another tokenizer setting."""
    folder = Path(shutil.copytree(tiny_checkpoint(seed=1, rms_norm_eps=1e-5), tmp_path / "new"))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"model_max_length": 77}))
    return folder


@pytest.fixture
def repository(hub: StandIn, old: Path, new: Path) -> Repository:
    """org/model: v1 is the old one, main the new one."""
    repository = hub.repository("org/model")
    repository.push(old, "v1")
    repository.push(new, "main")
    return repository


def refused(spec: str) -> str:
    with pytest.raises(InputError) as caught:
        resolve(spec)
    text = str(caught.value)
    assert "\n" not in text
    assert text.count(";") >= 2, "found; expected; what to do"
    return text


def test_a_branch_a_tag_and_a_commit(repository: Repository, old: Path, new: Path) -> None:
    for spec, folder, name in [
        ("org/model", new, "main"),
        ("org/model@main", new, "main"),
        ("org/model@v1", old, "v1"),
        (f"org/model@{repository.refs['v1']}", old, "v1"),
    ]:
        found = resolve(spec)
        assert found.digests == resolve(str(folder)).digests, spec
        assert (found.source, found.commit) == ("hub", repository.refs[name])
        assert found.pinned == f"org/model@{repository.refs[name]}"
        assert resolve(found.pinned).digests == found.digests


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # of PEFT
def test_an_adapter_on_a_base_both_of_the_hub(hub: StandIn, repository: Repository, old: Path, tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "adapter")
    lora = hub.repository("org/lora")
    commit = lora.push(folder, "main")
    found = resolve("org/model@v1+org/lora")
    assert found.digests == resolve(f"{old}+{folder}").digests
    assert (found.source, found.commit) == ("adapter", None)
    assert found.pinned == f"org/model@{repository.refs['v1']}+org/lora@{commit}"
    assert resolve(found.pinned).digests == found.digests
    (folder / "adapter_model.safetensors").unlink()
    lora.push(folder, "main")
    assert "no safetensors in org/lora" in refused("org/model@v1+org/lora")


def test_pickles_code_and_subfolders_are_never_fetched(hub: StandIn, repository: Repository) -> None:
    resolve("org/model@v1")
    fetched = hub.downloads()
    assert WEIGHTS in fetched
    assert not [name for name in fetched if name.endswith((".bin", ".py"))]
    assert not [path for _, path, _ in hub.wanted if "onnx" in path]


def test_a_second_run_fetches_no_file_again(hub: StandIn, repository: Repository) -> None:
    first = resolve("org/model")
    fetched = len(hub.downloads())
    assert resolve("org/model") == first
    assert len(hub.downloads()) == fetched


def test_a_branch_that_moves_during_a_run_stays_for_it_and_moves_for_the_next(repository: Repository, old: Path) -> None:
    run = Resolver()
    base, before = run.resolve("org/model"), repository.refs["main"]
    after = repository.push(old, "main")
    post = run.resolve("org/model@main")
    assert base.commit == post.commit == before != after
    assert base.digests == post.digests
    later = resolve("org/model")
    assert later.commit == after
    assert all(later.digests[part] != base.digests[part] for part in ("weights", "config", "tokenizer"))


def test_a_branch_that_moves_while_it_is_fetched_is_not_mixed(hub: StandIn, repository: Repository, old: Path, new: Path) -> None:
    """It moves after every request: all parts must still be of one commit, that of the first answer."""
    repository.refs["main"] = first = repository.refs["v1"]
    other = repository.push(new)

    def move(_path: str) -> None:
        repository.refs["main"] = other if repository.refs["main"] == first else first

    hub.after = move
    found = resolve("org/model")
    assert found.commit == first
    assert found.digests == resolve(str(old)).digests


def test_a_sharded_model_comes_whole(hub: StandIn, tiny_checkpoint: Callable[..., Path]) -> None:
    folder = tiny_checkpoint(max_shard_size="30KB")
    hub.repository("org/sharded").push(folder, "main")
    assert resolve("org/sharded").digests == resolve(str(folder)).digests


def test_a_cut_download_is_taken_up_again(
    hub: StandIn, repository: Repository, new: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 10_000)  # the client goes on after the last whole chunk
    hub.cuts[WEIGHTS] = [25_000]
    assert resolve("org/model").digests == resolve(str(new)).digests
    assert ("GET", f"/org/model/resolve/{repository.refs['main']}/{WEIGHTS}", "bytes=20000-") in hub.wanted


def test_a_download_that_never_ends_well_leaves_nothing_to_use(
    hub: StandIn, repository: Repository, new: Path, tmp_path: Path
) -> None:
    hub.cuts[WEIGHTS] = [20_000] + [0] * 20
    assert "did not give it" in refused("org/model")
    assert not list((tmp_path / CACHE).glob(f"*/snapshots/*/{WEIGHTS}"))
    hub.cuts.clear()
    assert resolve("org/model").digests == resolve(str(new)).digests


def test_bytes_that_are_not_the_hubs_are_refused(hub: StandIn, repository: Repository) -> None:
    whole = repository.commits[repository.refs["main"]][WEIGHTS]
    hub.spoilt[WEIGHTS] = whole[:-1] + bytes([whole[-1] ^ 1])
    text = refused("org/model")
    assert f"in the hub's cache has the digest {hashlib.sha256(hub.spoilt[WEIGHTS]).hexdigest()[:12]}" in text
    assert f"expected {hashlib.sha256(whole).hexdigest()[:12]}... as on the hub; remove " in text
    hub.spoilt = {"config.json": b" " * len(repository.commits[repository.refs["v1"]]["config.json"])}
    assert "config.json is not JSON" in refused("org/model@v1")


def test_a_small_file_that_is_not_the_hubs_is_refused(hub: StandIn, repository: Repository) -> None:
    whole = repository.commits[repository.refs["main"]]["config.json"]
    hub.spoilt["config.json"] = whole.replace(b'"transformers_version": "5', b'"transformers_version": "4')
    assert hub.spoilt["config.json"] != whole
    assert "config.json in the hub's cache has the digest" in refused("org/model")


def test_a_gated_model(hub: StandIn, repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    repository.gated, repository.readers, hub.tokens = True, {"hf_reader"}, {"hf_reader", "hf_other"}
    terms = f"accept the terms at {hub.endpoint}/org/model, then run: hf auth login (or set HF_TOKEN)"
    text = refused("org/model")
    assert "gated, and there is no token here" in text
    assert terms in text
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    text = refused("org/model")
    assert "gated, and your token has no access to it" in text
    assert terms in text
    monkeypatch.setenv("HF_TOKEN", "hf_reader")
    assert resolve("org/model").commit == repository.refs["main"]


def test_a_private_model_and_one_that_is_not_there(hub: StandIn, repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    repository.private, repository.readers, hub.tokens = True, {"hf_reader"}, {"hf_reader", "hf_other"}
    for spec in ("org/model", "org/none"):
        text = refused(spec)
        assert f"no such folder here, and no {spec} on the hub that is public" in text
        assert "for a private one run: hf auth login (or set HF_TOKEN)" in text
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    for spec in ("org/model", "org/none"):
        assert f"no {spec} on the hub that your token may read" in refused(spec)
    monkeypatch.setenv("HF_TOKEN", "hf_reader")
    assert resolve("org/model").commit == repository.refs["main"]
    monkeypatch.setenv("HF_TOKEN", "hf_expired")
    assert "the hub refuses the token; expected a valid one; run: hf auth login" in refused("org/model@v1")


@pytest.mark.parametrize("revision", ["v9", "feature/x", "0" * 40])
def test_a_revision_that_is_not_there(hub: StandIn, repository: Repository, revision: str) -> None:
    text = refused(f"org/model@{revision}")
    assert f"org/model has no revision {revision}; expected a branch, a tag or a commit; see {hub.endpoint}/org/model" in text


def test_a_name_that_the_hub_does_not_allow(hub: StandIn) -> None:
    assert "no name that the hub allows" in refused("org/a--b")
    assert not hub.wanted


def test_a_model_without_safetensors(hub: StandIn, old: Path) -> None:
    (old / WEIGHTS).unlink()
    hub.repository("org/pickled").push(old, "main")
    text = refused("org/pickled")
    assert "no safetensors in org/pickled at" in text
    assert "pickles are not loaded" in text
    assert not [name for name in hub.downloads() if name.endswith(".bin")]


def test_a_folder_of_that_name_is_taken_first(hub: StandIn, repository: Repository, old: Path, tmp_path: Path) -> None:
    shutil.copytree(old, tmp_path / "org" / "model")
    found = resolve("org/model")
    assert (found.source, found.commit, found.pinned) == ("folder", None, "org/model")
    assert not hub.wanted
    assert resolve("org/model@main").source == "hub", "the folder has no revisions"


def test_without_a_connection_the_cache_serves(hub: StandIn, repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    online = resolve("org/model"), resolve("org/model@v1")
    hub.wanted.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert (resolve("org/model"), resolve("org/model@v1")) == online
    assert resolve(online[0].pinned).digests == online[0].digests
    assert not hub.wanted


def test_without_a_connection_and_without_a_whole_snapshot(
    hub: StandIn, repository: Repository, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    commit = repository.refs["main"]
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for revision in ("main", commit):
        text = refused(f"org/model@{revision}")
        assert f"HF_HUB_OFFLINE is set, and the cache does not hold all of org/model at {revision}" in text
        assert f"hf download org/model --revision {revision}" in text
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    resolve("org/model")
    (weights,) = (tmp_path / CACHE).glob(f"*/snapshots/{commit}/{WEIGHTS}")
    weights.unlink()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "does not hold all of org/model at main" in refused("org/model")


def test_a_hub_that_does_not_answer_is_an_error_even_with_a_cache(
    hub: StandIn, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What main was last week is not what was requested; a commit is the same whenever it was fetched."""
    cached = resolve("org/model")
    with stand_in() as gone:
        pass
    monkeypatch.setattr(constants, "ENDPOINT", gone.endpoint)
    text = refused("org/model")
    assert f"{gone.endpoint} did not give it" in text
    assert "HF_HUB_OFFLINE=1 takes what the cache holds" in text
    assert resolve(cached.pinned).digests == cached.digests
