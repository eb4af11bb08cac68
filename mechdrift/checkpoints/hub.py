"""Models of the Hugging Face hub: a revision is resolved to a commit once a run, and every file is of that commit."""

import re
from dataclasses import dataclass, field
from errno import ENOSPC
from pathlib import Path

from mechdrift.checkpoints import adapters
from mechdrift.checkpoints.parts import READ, TEMPLATES
from mechdrift.checkpoints.shards import INDEX, SINGLE, weight_names
from mechdrift.errors import InputError

SPEC = re.compile(r"(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@(?P<revision>[^@\s]+))?", re.ASCII)
COMMIT = re.compile(r"[0-9a-f]{40}")
DEFAULT_REVISION = "main"
# Configs, tokenizer, chat template and the index of the weights; nothing else below the root, no code and no pickle.
SMALL, NOT_FETCHED = list(READ), ["*/*"]


@dataclass(frozen=True)
class Snapshot:
    """One commit of a repository, on this disk."""

    folder: Path
    """Its folder in the hub's cache."""
    repo: str
    """`org/name`."""
    commit: str
    """Full SHA."""


@dataclass
class Hub:
    """The hub as one run sees it: a branch that moves meanwhile moves for the next run."""

    commits: dict[tuple[str, str], str] = field(default_factory=dict)
    """Commit of each (repository, revision) that was requested."""

    def fetch(self, spec: str) -> Snapshot:
        """Config, tokenizer and weights of `org/name@revision`, a model's or an adapter's, from the hub's cache if there.

        What is downloaded lies under another name until it is whole. Raises InputError for what is not there or not given out.
        """
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError

        named = SPEC.fullmatch(spec)
        assert named
        repo, revision = named["repo"], named["revision"] or DEFAULT_REVISION
        try:
            if (repo, revision) not in self.commits:
                self.commits[repo, revision] = _commit(repo, revision)
            commit = self.commits[repo, revision]
            folder = _download(repo, commit, SMALL)
            _download(repo, commit, [f"{TEMPLATES}/*.jinja"], but=[f"{TEMPLATES}/*/*"])
            is_adapter = (folder / adapters.CONFIG).is_file() and not (folder / "config.json").is_file()
            names = [adapters.WEIGHTS] if is_adapter else weight_names(spec, folder)
            _download(repo, commit, names)
        except (*HfHubHTTPError.__bases__, HFValidationError) as error:  # OSError, and the HTTP library's, whichever that is
            raise _explained(error, spec, repo, revision) from error
        if not any((folder / name).is_file() for name in names):
            raise InputError(
                f"{spec}: no safetensors in {repo} at {commit[:12]}",
                f"{adapters.WEIGHTS if is_adapter else ' or '.join((SINGLE, INDEX))}: pickles are not loaded",
                "name a revision that has them, or save the model again",
            )
        return Snapshot(folder, repo, commit)


def _commit(repo: str, revision: str) -> str:
    """The commit of a branch, a tag or a commit; without a connection allowed, as it was when last asked."""
    from huggingface_hub import HfApi, is_offline_mode, snapshot_download

    if COMMIT.fullmatch(revision):
        return revision
    if is_offline_mode():
        return Path(snapshot_download(repo, revision=revision, allow_patterns=["config.json"], local_files_only=True)).name
    commit = HfApi().model_info(repo, revision=revision).sha
    assert commit
    # By its name once, so that the cache knows the revision in a run without a connection.
    snapshot_download(repo, revision=revision, allow_patterns=["config.json"])
    return commit


def _download(repo: str, commit: str, patterns: list[str], but: list[str] = NOT_FETCHED) -> Path:
    """The folder of a commit with the files of these patterns in it; nothing is fetched that is there."""
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(repo, revision=commit, allow_patterns=patterns, ignore_patterns=but))


def _explained(error: Exception, spec: str, repo: str, revision: str) -> InputError:
    """What went wrong, and what to type next."""
    from huggingface_hub import constants, errors, get_token, is_offline_mode

    page = f"{constants.ENDPOINT}/{repo}"
    status = getattr(getattr(error, "response", None), "status_code", None)
    log_in = "hf auth login (or set HF_TOKEN)"
    if isinstance(error, errors.HFValidationError):
        return InputError(f"{spec}: no such folder, and no name that the hub allows", "org/name@revision", "check the name")
    if isinstance(error, errors.GatedRepoError):
        whom = "your token has no access to it" if get_token() else "there is no token here"
        return InputError(f"{spec}: gated, and {whom}", "access", f"accept the terms at {page}, then run: {log_in}")
    if isinstance(error, errors.RevisionNotFoundError):
        return InputError(
            f"{spec}: {repo} has no revision {revision}", "a branch, a tag or a commit", f"see {page}/tree/{DEFAULT_REVISION}"
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        found = f"{spec}: no such folder here, and no {repo} on the hub that "
        expected = "a folder, organism:NAME, or org/name@revision of the hub"
        if get_token():
            return InputError(found + "your token may read", expected, f"check the name, and the token's rights at {page}")
        return InputError(found + "is public", expected, f"check the name; for a private one run: {log_in}")
    if status == 401:
        return InputError(f"{spec}: the hub refuses the token", "a valid one", f"run: {log_in}")
    if is_offline_mode():
        return InputError(
            f"{spec}: HF_HUB_OFFLINE is set, and the cache does not hold all of {repo} at {revision}",
            "a whole snapshot",
            f"run once without HF_HUB_OFFLINE, or: hf download {repo} --revision {revision}",
        )
    if getattr(error, "errno", None) == ENOSPC:
        return InputError(f"{spec}: no space left in {constants.HF_HUB_CACHE}", "room for it", "make room, or set HF_HOME")
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return InputError(
        f"{spec}: {constants.ENDPOINT} did not give it ({reason})",
        "a folder of that name, or an answer",
        "try again: whole files are kept; HF_HUB_OFFLINE=1 takes what the cache holds",
    )
