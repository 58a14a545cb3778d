"""The kinds of folders that commands write: the names of our files in them, and how an older version is known."""

from __future__ import annotations

import json
from pathlib import Path

from finepref.core.files import read_json
from finepref.core.locks import HELD
from finepref.core.outfolders import MARKER, FolderKind, own_files
from finepref.core.ownership import has_footer
from finepref.formats.alignmentrecord import ALIGNED
from finepref.formats.answers import VOTES
from finepref.formats.cache import CACHE as CACHE_RECORD
from finepref.formats.cache import read_cache
from finepref.formats.collection import PICTURES, is_study
from finepref.formats.collection import STUDY as STUDY_RECORD
from finepref.formats.comparison import COMPARISON
from finepref.formats.controlmaps import MAPS
from finepref.formats.frozenfolder import read_frozen
from finepref.formats.gaps import GAPS, is_gaps
from finepref.formats.heldout import START
from finepref.formats.ksortresult import KSORT as KSORT_RECORD
from finepref.formats.ksortresult import TRANSCRIPTS
from finepref.formats.manifest import LINES, PARTS, RECORD, read_record
from finepref.formats.metrics import HELDOUT, METRICS, TIMING, read_timing
from finepref.formats.pickapic import SCHEMA
from finepref.formats.quarantine import QUARANTINE
from finepref.formats.questions import QUESTIONS, read_questions
from finepref.formats.ratings import LEADERBOARD, RATINGS, read_ratings
from finepref.formats.rewards import is_rewards
from finepref.formats.rounds import ROUNDS
from finepref.formats.run import RUN as RUN_RECORD
from finepref.formats.run import is_finished, read_run
from finepref.formats.scores import PARTS as SCORE_PARTS
from finepref.formats.scores import SCORES
from finepref.formats.validation import VALIDATION

WEIGHTS = ("config.json", "diffusion_pytorch_model*")
PART = tuple(f"{part}/{file}" for part in ("unet", "transformer") for file in WEIGHTS)
LORA = "pytorch_lora_weights.safetensors"
LEFT = ("config.yaml", RUN_RECORD, LORA, *PART)
"""What a run leaves, and each of its checkpoints."""
STATE = ("trainable.safetensors", "optimizer.safetensors", "average.safetensors", "reference.safetensors", "state.json")
"""What a checkpoint holds beside it, to go on from."""
CHECKPOINT = (*STATE, *LEFT, MARKER)
SAMPLES = ("[0-9]*-[0-9]*.png", "samples.json")
LAB_MODEL = "lab.json"
PIPELINE = ("model_index.json", "*/*.json", "*/*.safetensors", "*/*.txt", "*/*.model")


def _is_arena(folder: Path) -> bool:
    return bool(read_ratings(folder)) and is_gaps(folder / GAPS)


def _is_run(folder: Path) -> bool:
    """A finished run, or one that has made a step; a config.yaml alone may be anybody's."""
    if is_finished(folder):
        return bool(read_run(folder))
    begun = bool(read_timing(folder)) or bool(own_files(folder / "checkpoints", ["step-*/state.json"]))
    return begun and (folder / "config.yaml").is_file()


def _is_evaluation(folder: Path) -> bool:
    return "versions" in read_record(folder).provenance


def _is_pairs(folder: Path) -> bool:
    return (folder / "pairs.parquet").is_file() and is_rewards(folder / "rewards.parquet")


def _is_model(folder: Path) -> bool:
    return {"variant", "fingerprint", "files"} <= {*read_json(folder / LAB_MODEL)}


def _is_scorer(folder: Path) -> bool:
    return "versions" in read_json(folder / "finepref_scorer.json")


def _is_demo(folder: Path) -> bool:
    return "provenance" in read_json(folder / "summary.json") or has_footer(*SCHEMA.names)(folder / "votes.parquet")


def _is_study(folder: Path) -> bool:
    """Rows, each with its identity, and nothing else but their tuning."""
    files = [path for path in folder.rglob("*") if path.is_file() and not HELD.fullmatch(path.name)]
    return bool(files) and all(path.suffix == ".json" and "identity" in read_json(path) for path in files)


def _is_work(folder: Path) -> bool:
    return any((place / "ground.json").is_file() for place in folder.glob("seed-*"))


def _is_ksort(folder: Path) -> bool:
    result, asked = folder / KSORT_RECORD, [*(folder / TRANSCRIPTS).glob("?" * 32 + ".json")]
    return "rounds" in read_json(result) if result.is_file() else "replies" in json.loads(asked[0].read_bytes())


ARENA = FolderKind("arena", "an arena", (RATINGS, LEADERBOARD, GAPS, VALIDATION, QUARANTINE, "arena.html"), _is_arena)
BOARDS = FolderKind(
    "arenas", "arenas of several questions",
    (QUESTIONS, "arena.html", *(f"[0-9]*/{name}" for name in (*ARENA.own, MARKER))),
    lambda folder: bool(read_questions(folder)),
)  # fmt: skip
RUN = FolderKind(
    "run", "a run",
    (
        *LEFT, METRICS, TIMING, HELDOUT, START,
        *(f"checkpoints/step-*/{file}" for file in CHECKPOINT), *(f"samples/step-*/{file}" for file in SAMPLES),
        "*events.out.tfevents.*",
    ),
    _is_run,
)  # fmt: skip
SAVED = FolderKind("checkpoint", "a checkpoint", CHECKPOINT)
CACHE = FolderKind(
    "cache", "a cache",
    (
        CACHE_RECORD, "images.parquet", "prompts.parquet", "pairs.parquet", QUARANTINE, "done-*-*.json", "read/*.jsonl",
        "read/*.parquet", "images/r*-*.parquet", "images/r*-*.safetensors", "prompts/r*-*.parquet",
        "prompts/r*-*.safetensors",
    ),
    lambda folder: bool(read_cache(folder)),
)  # fmt: skip
READ = FolderKind("read parts", "what was read of a data set", ("read/*.jsonl", "read/*.parquet"))
REFERENCE, TRAJECTORIES = (
    FolderKind(
        name, f"a {name} cache", (record, "draws-*.parquet", "draws-*.safetensors"),
        lambda folder, record=record: bool(read_frozen(folder / record)),  # type: ignore[misc]
    )
    for name, record in (("reference", "reference.json"), ("trajectory", "trajectories.json"))
)  # fmt: skip
CONTROL_MAPS = FolderKind("control maps", "control maps", ("[0-9]*.png", MAPS))
MAPS_PARTS = FolderKind("parts of control maps", "parts of control maps", ("read/*.jsonl", "read/*.json", "read/*.png"))
EVALUATION = FolderKind(
    "evaluation",
    "an evaluation",
    (LINES, RECORD, f"{PARTS}/*.jsonl", SCORES, f"{SCORE_PARTS}/*.jsonl", COMPARISON),
    _is_evaluation,
)
CONVERTED = FolderKind("converted", "a converted preference set", ("[0-9]*.parquet",))
PAIRS = FolderKind("pairs", "pairs made from scores", ("pairs.parquet", "rewards.parquet"), _is_pairs)
EXPORT = FolderKind("export", "an exported run")
PUBLISHED = FolderKind("published", "a published run")
MODEL = FolderKind("lab model", "a model of the lab", (*PIPELINE, LAB_MODEL), _is_model)
SCORER = FolderKind(
    "scorer", "a converted scorer", ("finepref_scorer.json", "model.safetensors", "config.json"), _is_scorer
)
ALIGNMENT = FolderKind("alignment", "an alignment", ("align.yaml", "prompts.json", ALIGNED))
DEMO = FolderKind("demo", "a demo", ("summary.json",), _is_demo)
COLLECTION = FolderKind(
    "collection", "a study of votes",
    (STUDY_RECORD, VOTES, f"{VOTES}-wal", f"{VOTES}-shm", f"{PICTURES}/*.png"), is_study,
    ("another finepref serves this study, or writes it", "end that one first, with Ctrl-C where it runs"),
)  # fmt: skip
LOOP = FolderKind("rounds", "rounds of a closed loop", (ROUNDS, "round-*/align.yaml"))
STUDY = FolderKind("study", "the rows of a study", ("*.json",), _is_study)
WORK = FolderKind("study work", "the work of a study", (), _is_work)
KSORT = FolderKind("ksort", "a K-Sort evaluation", (KSORT_RECORD, f"{TRANSCRIPTS}/*.json"), _is_ksort)
