"""Repositories of the Hugging Face hub that transformers has written: fetched into the hub's own cache and read as a folder."""

from __future__ import annotations

from pathlib import Path

from gcaudit.checkpoints import config_hints
from gcaudit.data import prepare_hub
from gcaudit.encoders.architectures import unfetched
from gcaudit.errors import ArchitectureError

_BESIDE = ("config.json", "preprocessor_config.json", "*.index.json")


def transformers_folder(spec: str) -> str | None:
    """Fetch a repository of transformers, or find it in the hub's cache; its weights in safetensors, or in `.bin` where there are none.

    Args:
        spec: `hf-hub:ORG/REPO[@REV]`.

    Returns:
        The folder; None for a repository of timm, whose `config.json` names its architecture, and for one without `config.json`.

    Raises:
        CheckpointError: the configuration is damaged.
        ArchitectureError: the weights cannot be had.
    """
    from huggingface_hub import hf_hub_download, snapshot_download
    from huggingface_hub.errors import EntryNotFoundError

    name, _, revision = spec.removeprefix("hf-hub:").partition("@")
    prepare_hub()
    try:
        config = Path(hf_hub_download(name, "config.json", revision=revision or None))
    except EntryNotFoundError:  # no config.json: timm says what it makes of that
        return None
    except Exception as error:  # the hub's client and the network raise many kinds
        raise unfetched(spec, error) from error
    hints = config_hints(config.parent)
    if hints.arch is not None and hints.config is None:
        return None
    try:
        for kind in ("*.safetensors", "*.bin"):
            folder = Path(
                snapshot_download(name, revision=revision or None, allow_patterns=[*_BESIDE, kind], ignore_patterns=["*/*"])
            )
            if any(folder.glob(kind)):
                return str(folder)
    except Exception as error:  # the hub's client and the network raise many kinds
        raise unfetched(spec, error) from error
    raise ArchitectureError(
        f"{spec}: expected weights beside config.json, found none there or, with no network, in the hub's cache; fetch them, or name a file"
    )
