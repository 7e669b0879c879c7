"""Why a pipeline could not be fetched from the hub. Every message names the next step."""

from __future__ import annotations

from mac_agent.errors import EngineError
from mac_agent.weights.hub_token import SETTINGS_PAGE, how_to_give_a_token
from mac_agent.weights.pipelines import ENGINE

HUB_PAGE = "https://huggingface.co"


class HubError(EngineError):
    """The pipeline could not be fetched; nothing on this machine was changed."""


class TokenMissing(HubError):
    """The pipeline is gated and no token was found."""

    def __init__(self, repo_id: str) -> None:
        super().__init__(
            f"{repo_id} is given only to those who accepted its conditions, and no access token was found. First log "
            f"in and accept them on {HUB_PAGE}/{repo_id}. {how_to_give_a_token()} Then: omi-agent fetch-model {ENGINE}"
        )
        self.repo_id = repo_id


class LicenceNotAccepted(HubError):
    """The token is valid, but its owner has not accepted the conditions of the pipeline."""

    def __init__(self, repo_id: str, source: str) -> None:
        super().__init__(
            f"the owner of the token from {source} has not accepted the conditions of {repo_id}. Log in, accept them "
            f"on {HUB_PAGE}/{repo_id}, and run this again. A fine-grained token also needs the right to read public "
            f"gated repositories: {SETTINGS_PAGE}"
        )
        self.repo_id = repo_id


class TokenRefused(HubError):
    """The hub does not know the token, or the token lacks a right."""

    def __init__(self, source: str) -> None:
        super().__init__(
            f"the hub refused the token from {source}: it was revoked, mistyped, or has no read access. "
            f"{how_to_give_a_token()}"
        )


class HubUnreachable(HubError):
    """The hub cannot be reached, or is down."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"the hub cannot be reached: {reason}. Check the network (and HTTPS_PROXY, HF_ENDPOINT), or fetch on "
            f"another machine, copy the directory here and run: omi-agent fetch-model {ENGINE} --from DIR"
        )


class NotOnHub(HubError):
    """There is no such repository, revision or file."""


class WrongFile(HubError):
    """A downloaded file does not have the digest that the hub lists for it."""

    def __init__(self, repo_id: str, name: str) -> None:
        super().__init__(
            f"{name} of {repo_id} is not the file the hub lists (its digest differs); nothing was kept. Something "
            "between here and the hub changed or cut it: look at the proxy, then fetch again."
        )


class NotConfirmed(HubError):
    """Nobody said yes to a commit that was not pinned before."""

    def __init__(self, repo_id: str, commit: str) -> None:
        super().__init__(
            f"{repo_id} at commit {commit} was not confirmed; nothing was kept. Loading a pipeline runs code from it. "
            f"Look at {HUB_PAGE}/{repo_id}/tree/{commit}, then say --revision {commit} or --yes"
        )
        self.repo_id, self.commit = repo_id, commit
