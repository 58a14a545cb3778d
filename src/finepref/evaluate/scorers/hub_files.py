"""Where published weights and vocabularies come from: hub files at a pinned revision, and one file by URL and hash."""

from __future__ import annotations

import urllib.request
from dataclasses import dataclass
from pathlib import Path

from finepref.core.device import cache_home
from finepref.core.errors import InputError, first_line
from finepref.core.files import atomic_file
from finepref.core.provenance import sha256_file

TIMEOUT = 60.0


@dataclass(frozen=True, slots=True)
class HubFile:
    """One file of a hub repository at a fixed revision. names: the first that exists is used."""

    repo: str
    revision: str
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class UrlFile:
    """One file behind a URL, known by its hash."""

    url: str
    sha256: str
    name: str


def hub_file(where: tuple[str, str], *names: str) -> HubFile:
    """A file of a repository and revision; without names the weights in transformers' layout."""
    return HubFile(*where, names or ("model.safetensors", "pytorch_model.bin"))


PublishedFile = HubFile | UrlFile

CLIP_H = ("laion/CLIP-ViT-H-14-laion2B-s32B-b79K", "1c2b8495b28150b8a4922ee1c8edee224c284c0c")
CLIP_L = ("openai/clip-vit-large-patch14", "32bd64288804d66eefd0ccbe215aa642df71cc41")
CLIP_B32 = ("openai/clip-vit-base-patch32", "3d74acf9a28c67741b2f4f2ea7635f0aaf6f0268")
CLIP_B16 = ("openai/clip-vit-base-patch16", "57c216476eefef5ab752ec549e440a49ae4ae5f3")
PICKSCORE = ("yuvalkirstain/PickScore_v1", "a4e4367c6dfa7288a00c550414478f865b875800")
HPS = ("xswu/HPSv2", "697403c78157020a1ae59d23f111aa58ced35b0a")
IMAGEREWARD = ("zai-org/ImageReward", "5736be03b2652728fb87788c9797b0570450ab72")
BERT = ("google-bert/bert-base-uncased", "86b5e0934494bd15c9632b12f734a8a67f723594")
AESTHETIC_HEAD = UrlFile(
    url="https://raw.githubusercontent.com/christophschuhmann/improved-aesthetic-predictor/"
    "6934dd81792f086e613a121dbce43082cb8be85e/sac%2Blogos%2Bava1-l14-linearMSE.pth",
    sha256="21dd590f3ccdc646f0d53120778b296013b096a035a2718c9cb0d511bff0f1e0",
    name="sac+logos+ava1-l14-linearMSE.pth",
)


def fetch(source: PublishedFile, *, scorer: str) -> Path:
    """The local path of a published file, downloaded once.

    Args:
        source: where it is.
        scorer: the scorer's name, for the remedy of the error.

    Raises:
        InputError: it is not cached and cannot be downloaded, or has another hash than the published one.
    """
    return _hub(source, scorer) if isinstance(source, HubFile) else _url(source, scorer)


def _hub(source: HubFile, scorer: str) -> Path:
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError

    reasons = []
    for name in source.names:
        try:
            return Path(huggingface_hub.hf_hub_download(source.repo, name, revision=source.revision))
        except (EntryNotFoundError, OSError) as error:  # hub and connection errors are OSErrors
            reasons.append(first_line(error))
    raise InputError(
        f"{' or '.join(source.names)} cannot be had from the hub ({reasons[0]})",
        where=f"{source.repo}@{source.revision[:7]}",
        remedy=f"check the network, or give local files: '{scorer}@PATH'",
    )


def _url(source: UrlFile, scorer: str) -> Path:
    path = cache_home() / source.name
    if not path.is_file():
        try:
            with urllib.request.urlopen(source.url, timeout=TIMEOUT) as response, atomic_file(path) as temporary:
                temporary.write_bytes(response.read())
        except OSError as error:  # URLError and TimeoutError are
            remedy = f"check the network, or give a local file: '{scorer}@PATH'"
            raise InputError(f"cannot be downloaded ({error})", where=source.url, remedy=remedy) from None
    found = sha256_file(path)
    if found != source.sha256:
        what = f"has SHA-256 {found[:12]} and should have {source.sha256[:12]}"
        raise InputError(what, where=path, remedy="delete it")
    return path
