"""Prompts to token ids, the two ways the published evaluators do it, and BERT's for ImageReward.

CLIP's own tokenizer (OpenAI, open_clip, HPSv2) repairs the text first and knows no special tokens in it; transformers'
does neither. HPSv2 and CLIP scores use the first path (`cleaned=True`), PickScore the second. The first path is the
original's own steps on the original's own `regex`: transformers splits words by another library's tables of letters and
spaces, and composes characters first, which gave other ids for 17,508 of the 1,114,112 characters.

Deviations: open_clip takes a literal `<end_of_text>` in a prompt for the end token; here it is text.
"""

from __future__ import annotations

import gzip
import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ftfy
import regex
from transformers import BertTokenizer, CLIPTokenizer

from finepref.core.errors import InputError, cut
from finepref.core.files import read_object, reading
from finepref.core.provenance import sha256_bytes, sha256_file

CONTEXT = 77
REMEDY = "download it again"
BERT_LENGTH = 35
BPE_NAME = "bpe_simple_vocab_16e6.txt.gz"
CLIP_NAMES = ("vocab.json", "merges.txt")
BERT_NAME = "vocab.txt"
BPE_MERGES = 49152 - 256 - 2
START, END = "<|startoftext|>", "<|endoftext|>"
WORD = regex.compile(r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+", regex.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ClipText:
    """A CLIP tokenizer and the hash of its merges. cleaned: repair the text as CLIP's own code does."""

    tokenizer: CLIPTokenizer
    sha256: str
    cleaned: bool

    def ids(self, prompts: Sequence[str]) -> list[list[int]]:
        """Ids of each prompt, start and end token included, at most 77; the last id is always the end token."""
        if self.cleaned:
            start, end = self.tokenizer.bos_token_id, self.tokenizer.eos_token_id
            return [[start, *self._pieces(prompt)[: CONTEXT - 2], end] for prompt in prompts]
        encoded = self.tokenizer(list(prompts), truncation=True, max_length=CONTEXT)
        return [list(map(int, ids)) for ids in encoded["input_ids"]]

    def _pieces(self, prompt: str) -> list[int]:
        model = self.tokenizer.backend_tokenizer.model
        words = ("".join(LETTERS[byte] for byte in word.encode()) for word in WORD.findall(clean(prompt)))
        return [piece.id for word in words for piece in model.tokenize(word)]


def clean(text: str) -> str:
    """`text` as CLIP's own tokenizer sees it: ftfy, html entities twice, spaces collapsed, lower case.

    References:
        OpenAI CLIP and HPSv2 tokenizer `basic_clean`, `whitespace_clean`, with the spaces of `regex`.
    """
    text = html.unescape(html.unescape(ftfy.fix_text(text))).strip()
    return regex.sub(r"\s+", " ", text).strip().lower()


def _byte_letters() -> dict[int, str]:
    """Byte -> the printable letter that CLIP's vocabulary writes for it, in the order of that vocabulary."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    rest = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + n) for n, byte in enumerate(rest)}


LETTERS = _byte_letters()


def _from_bpe(path: Path) -> tuple[dict[str, int], list[tuple[str, str]]]:
    with reading(path, "CLIP's vocabulary", remedy=REMEDY):
        lines = gzip.decompress(path.read_bytes()).decode("utf-8").split("\n")
    merges = [_pair(line, path) for line in lines[1 : BPE_MERGES + 1]]
    letters = LETTERS.values()
    words = [*letters, *(letter + "</w>" for letter in letters), *("".join(pair) for pair in merges), START, END]
    return {word: index for index, word in enumerate(words)}, merges


def _pair(line: str, path: Path) -> tuple[str, str]:
    parts = line.split()
    if len(parts) != 2:
        raise InputError(f"not a merge of two pieces: {cut(repr(line))}", where=path, remedy="download it again")
    return parts[0], parts[1]


def _from_json(folder: Path) -> tuple[dict[str, int], list[tuple[str, str]]]:
    vocab_path, merges_path = (folder / name for name in CLIP_NAMES)
    with reading(vocab_path, "a vocabulary", remedy=REMEDY):
        vocab = {str(word): int(index) for word, index in read_object(vocab_path).items()}
    with reading(merges_path, "a list of merges", remedy=REMEDY):
        lines = merges_path.read_text("utf-8").split("\n")
    return vocab, [_pair(line, merges_path) for line in lines if line.strip() and not line.startswith("#version")]


def clip_text(path: Path, *, cleaned: bool) -> ClipText:
    """CLIP's tokenizer from a folder with vocab.json and merges.txt, or from CLIP's own `bpe_simple_vocab_16e6.txt.gz`.

    Raises:
        InputError: neither is there, or it is damaged.
    """
    bpe = path if path.is_file() else path / BPE_NAME
    if bpe.is_file():
        vocab, merges = _from_bpe(bpe)
    elif has_files(path, [CLIP_NAMES]):
        vocab, merges = _from_json(path)
    else:
        remedy = f"it needs vocab.json and merges.txt, or {BPE_NAME}"
        raise InputError("no CLIP tokenizer here", where=path, remedy=remedy)
    digest = sha256_bytes("\n".join(" ".join(pair) for pair in merges).encode())
    pieces: Any = merges
    with reading(path, "a CLIP tokenizer", remedy=REMEDY):
        tokenizer: Any = CLIPTokenizer(vocab=vocab, merges=pieces, model_max_length=CONTEXT)
    return ClipText(tokenizer=tokenizer, sha256=digest, cleaned=cleaned)


def has_files(folder: Path, sets: Sequence[Sequence[str]]) -> bool:
    """Whether the folder has all files of one of these sets."""
    return any(all((folder / name).is_file() for name in names) for names in sets)


@dataclass(frozen=True, slots=True)
class BertText:
    """BERT's uncased WordPiece tokenizer and the hash of its vocabulary."""

    tokenizer: BertTokenizer
    sha256: str

    def ids(self, prompts: Sequence[str]) -> list[list[int]]:
        """Ids of each prompt, [CLS] first and [SEP] last, at most 35 (ImageReward's limit)."""
        encoded = self.tokenizer(list(prompts), truncation=True, max_length=BERT_LENGTH)
        return [list(map(int, ids)) for ids in encoded["input_ids"]]


def bert_text(path: Path) -> BertText:
    """BERT's uncased tokenizer from `vocab.txt` or the folder that holds it.

    Raises:
        InputError: there is none.
    """
    file = path / BERT_NAME if path.is_dir() else path
    if not file.is_file():
        raise InputError("no BERT vocabulary here", where=path, remedy="it needs vocab.txt of bert-base-uncased")
    with reading(file, "BERT's vocabulary", remedy=REMEDY):
        vocab = {word: index for index, word in enumerate(file.read_text("utf-8").removesuffix("\n").split("\n"))}
        tokenizer: Any = BertTokenizer(vocab=vocab, do_lower_case=True, model_max_length=BERT_LENGTH)
    return BertText(tokenizer=tokenizer, sha256=sha256_file(file))
