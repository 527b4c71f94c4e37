"""The official weights: their addresses and published hashes."""

from dataclasses import dataclass
from pathlib import Path

from utils.files import digests, in_project

_SAM = "https://dl.fbaipublicfiles.com/segment_anything"
_SAM2 = "https://dl.fbaipublicfiles.com/segment_anything_2"
_CLIP_SHA256 = "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af"


@dataclass(frozen=True)
class Download:
    """One published file.

    Attributes:
        sha256: the whole digest, or "".
        prefix: the beginning of the digest, or "". The publisher names no algorithm: SHA-256 or MD5 may match.
    """

    url: str
    sha256: str = ""
    prefix: str = ""

    @property
    def file_name(self) -> str:
        """The name of the file on disk."""
        return self.url.split("?")[0].rsplit("/", 1)[-1]


DOWNLOADS: dict[str, Download] = {
    "sam_vit_b": Download(f"{_SAM}/sam_vit_b_01ec64.pth", prefix="01ec64"),
    "sam_vit_l": Download(f"{_SAM}/sam_vit_l_0b3195.pth", prefix="0b3195"),
    "sam_vit_h": Download(f"{_SAM}/sam_vit_h_4b8939.pth", prefix="4b8939"),
    "medsam_vit_b": Download("https://zenodo.org/records/10689643/files/medsam_vit_b.pth"),
    **{
        f"{version}_{size}": Download(f"{_SAM2}/{date}/{version}_hiera_{size}.pt")
        for version, date in (("sam2", "072824"), ("sam2.1", "092824"))
        for size in ("tiny", "small", "base_plus", "large")
    },
    "clip_vit_b32": Download(
        f"https://openaipublic.azureedge.net/clip/models/{_CLIP_SHA256}/ViT-B-32.pt", sha256=_CLIP_SHA256
    ),
}


def weights_folder() -> Path:
    """The project's folder of weights."""
    return in_project("weights")


def download_hint(file_name: str) -> str:
    """The command that downloads a missing weights file of this name, for error messages."""
    for name, download in DOWNLOADS.items():
        if download.file_name == file_name:
            return f"python main.py download {name} fetches it to {weights_folder() / file_name}"
    return "python main.py download --list names the official ones"


def digest_error(path: Path, download: Download) -> str | None:
    """Why `path` is not the published file, or None."""
    found = digests(path, "sha256", "md5")
    if download.sha256 and found["sha256"] != download.sha256:
        return f"its sha256 is {found['sha256']}, not {download.sha256}"
    if download.prefix and not any(digest.startswith(download.prefix) for digest in found.values()):
        return f"neither its sha256 ({found['sha256']}) nor its md5 ({found['md5']}) begins with {download.prefix}"
    return None
