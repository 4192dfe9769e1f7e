"""Repositories of the Hugging Face hub that transformers has written: fetched into the hub's own cache and read as a folder."""

from __future__ import annotations

import json
from pathlib import Path

from gcaudit.data import prepare_hub
from gcaudit.encoders.architectures import unfetched

_BESIDE = ("config.json", "preprocessor_config.json", "*.index.json")


def transformers_folder(spec: str) -> str | None:
    """Fetch a repository of transformers, or find it in the hub's cache; its weights in safetensors, or in `.bin` where there are none.

    Args:
        spec: `hf-hub:ORG/REPO[@REV]`.

    Returns:
        The folder; None for a repository of timm, whose `config.json` names its architecture, and for one without `config.json`.

    Raises:
        ArchitectureError: the configuration is there and the weights cannot be had.
    """
    from huggingface_hub import hf_hub_download, snapshot_download
    from huggingface_hub.errors import EntryNotFoundError

    name, _, revision = spec.removeprefix("hf-hub:").partition("@")
    prepare_hub()
    try:
        config = Path(hf_hub_download(name, "config.json", revision=revision or None))
        if "architecture" in json.loads(config.read_bytes()):
            return None
        folder = Path(snapshot_download(name, revision=revision or None, allow_patterns=[*_BESIDE, "*.safetensors"]))
        if not any(folder.glob("*.safetensors")):
            folder = Path(snapshot_download(name, revision=revision or None, allow_patterns=[*_BESIDE, "*.bin"]))
    except EntryNotFoundError:  # no config.json: timm says what it makes of that
        return None
    except Exception as error:  # the hub's client and the network raise many kinds
        raise unfetched(spec, error) from error
    return str(folder)
