"""Say in one line why a request to the Hugging Face Hub failed."""

from __future__ import annotations

from capsnet._support.errors import shown


def hub_reason(error: Exception) -> str:
    """Return why the hub did not answer as wanted, and what to do."""
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, RepositoryNotFoundError):
        return f"the hub has no such model, or it is private ({status}); check the name, or log in: hf auth login"
    if status in (401, 403):
        return f"the hub refuses the token ({status}); log in again: hf auth login"
    if isinstance(error, HfHubHTTPError):
        reason = shown(str(error).strip().partition("\n")[0])[:200]
        return f"the hub answers {status}: {reason}; try again later"
    if isinstance(error, LocalEntryNotFoundError | OSError) or type(error).__module__.startswith(
        ("httpx", "httpcore")
    ):
        return f"no connection to the hub, or it was lost ({type(error).__name__}); check the network and try again"
    return f"{type(error).__name__}: {shown(str(error).strip().partition(chr(10))[0])[:200]}"
