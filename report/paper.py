"""The paper's numbers (arXiv 2503.16055, Table 1 and the SAM2 table), and the settings of the runs they belong to."""

from dataclasses import dataclass, field

from utils.config.options import SAM2_ARCH, SAM_ARCH

DATASETS = ("ARCADE", "DIAS", "ROSE", "XRay-Angio", "DRIVE")
SAM2_DATASETS = ("ARCADE", "ROSE")
IMG_SIZE = 512


@dataclass(frozen=True)
class PaperScore:
    """Dice and HD95 (pixels) as printed; None where the paper has no HD95."""

    dice: str
    hd95: str | None


@dataclass(frozen=True)
class PaperRow:
    """One row of the paper.

    Attributes:
        name: of its config in configs/table1.
        arch, sam_type, method, r_lora, prompt: as in results.json of its runs; None matches every value, and prompt
            "box" matches every kind of box.
        percent, trainable: as printed.
        scores: by dataset, and `average` over them.
    """

    name: str
    label: str
    rank: str
    percent: str
    trainable: str
    arch: str
    sam_type: str | None
    method: str
    r_lora: int | None = None
    prompt: str = "text"
    scores: dict[str, PaperScore] = field(default_factory=dict)
    average: PaperScore | None = None


def _scores(text: str, datasets: tuple[str, ...] = DATASETS) -> dict[str, PaperScore]:
    """Reads "dice/hd95 dice/hd95 ..." in the order of `datasets`; "-" is a number that is not printed."""
    pairs = zip(datasets, text.split(), strict=True)
    return {dataset: score for dataset, pair in pairs if (score := _score(pair))}


def _score(pair: str) -> PaperScore | None:
    dice, _, hd95 = pair.partition("/")
    return None if dice == "-" else PaperScore(f"0{dice}", None if hd95 == "-" else hd95)


def _baseline(name: str, label: str, trainable: str, scores: str, average: str) -> PaperRow:
    return PaperRow(name, label, "-", "100", trainable, name, None, "full", None, "", _scores(scores), _score(average))


def _sam(name: str, label: str, rank: str, size: tuple[str, str], method: str, scores: str, average: str) -> PaperRow:
    r_lora = int(rank) if rank != "-" else None
    prompt = "box" if name == "medsam" else "text"
    return PaperRow(
        name, label, rank, *size, SAM_ARCH, "base", method, r_lora, prompt, _scores(scores), _score(average)
    )  # fmt: skip


def _sam2(name: str, label: str, rank: str, trainable: str, method: str, scores: str) -> PaperRow:
    r_lora = int(rank) if rank != "-" else None
    both = _scores(scores, SAM2_DATASETS)
    return PaperRow(name, label, rank, "", trainable, SAM2_ARCH, "base_plus", method, r_lora, "text", both)


TABLE1 = (
    _baseline("unet", "U-Net", "6.5M", ".36/157.14 .13/262.66 .63/8.07 .71/30.40 .18/84.43", ".40/108.54"),
    _baseline("unetr", "UNETR", "91M", ".48/162.44 .31/183.97 .63/8.96 .74/20.62 .46/33.58", ".52/81.91"),
    _baseline("regunet", "RegUNet", "7.8M", ".11/247.79 .35/172.09 .22/58.08 .42/79.51 .43/72.97", ".31/126.08"),
    _baseline("segnet", "SegNet", "29M", ".14/231.11 .13/295.06 .38/9.09 .09/110.94 .14/79.03", ".18/145.05"),
    _baseline("deeplabv3plus", "DeepLabV3+", "45M", ".55/103.22 .55/77.66 .52/12.90 .74/14.03 .46/27.79", ".56/47.12"),
    _baseline("segformer", "Segformer", "43M", ".53/113.98 .57/73.64 .56/11.21 .75/16.55 .48/36.98", ".58/50.47"),
    _sam("sam_text", "SAM, text prompt", "-", ("0", ""), "none", ".00/- .00/- .00/- .04/- .00/-", ".01/-"),
    _sam("medsam", "MedSAM", "-", ("0", ""), "none", ".18/115.18 - .32/131.89 - -", ".23/129.83"),
    _sam("ssam", "S-SAM", "-", ("0.40", "1M"), "svd",
         ".76/52.44 .67/42.36 .65/12.41 .75/27.56 .70/15.81", ".71/30.12"),
    _sam("lora_4", "LoRA 4", "4", ("0.64", "1.5M"), "lora",
         ".78/39.58 .61/27.81 .59/16.26 .73/26.78 .62/21.04", ".66/26.29"),
    _sam("lora_256", "LoRA 256", "256", ("14.08", "33.9M"), "lora",
         ".81/36.89 .63/34.36 .62/14.62 .76/24.84 .68/19.00", ".70/25.94"),
    _sam("salt_4", "SALT 4", "4", ("0.46", "1.1M"), "salt",
         ".78/51.74 .69/39.58 .66/12.19 .75/29.55 .72/16.04", ".72/29.82"),
    _sam("salt_256", "SALT 256", "256", ("3.9", "9.4M"), "salt",
         ".81/42.50 .71/27.35 .67/12.64 .77/23.67 .75/13.20", ".74/23.87"),
)  # fmt: skip
SAM2_TABLE = (
    _sam2("sam2_svd", "SAM2 SVD", "-", "0.2M", "svd", ".784/57.13 .663/13.54"),
    _sam2("sam2_lora_4", "SAM2 LoRA 4", "4", "0.9M", "lora", ".815/49.38 .676/11.73"),
    _sam2("sam2_lora_256", "SAM2 LoRA 256", "256", "44.6M", "lora", ".824/46.08 .679/12.32"),
    _sam2("sam2_salt_4", "SAM2 SALT 4", "4", "0.5M", "salt", ".804/53.54 .672/12.43"),
    _sam2("sam2_salt_256", "SAM2 SALT 256", "256", "19.7M", "salt", ".822/47.66 .677/11.63"),
)
PAPER_ROWS = TABLE1 + SAM2_TABLE


def column_name(dataset: str) -> str:
    """The column of a dataset: the paper's name for its five ("xray_angio": "XRay-Angio"), else the dataset's name."""
    known = {_letters(name): name for name in DATASETS}
    return known.get(_letters(dataset), dataset)


def _letters(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())
