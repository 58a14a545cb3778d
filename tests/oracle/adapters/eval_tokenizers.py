"""Ids of 17 awkward texts by OpenAI's, open_clip's and HPSv2's tokenizers, by transformers' CLIP one and by BERT's."""

from __future__ import annotations

from typing import Any

import pytest

from finepref.core.provenance import sha256_file
from finepref.evaluate.scorers.tokenizer import bert_text, clip_text
from published_files import bert_vocabulary, clip_bpe


def check(content: dict[str, Any], meta: dict[str, Any]) -> None:
    bpe, bert = clip_bpe(), bert_vocabulary()
    if bpe is None:
        pytest.skip("CLIP's merges are not here (package openai-clip)")
    assert content["rows"]
    assert sha256_file(bpe) == content["clip_bpe_file_sha256"]
    texts = [row["text"] for row in content["rows"]]
    cleaned, raw = clip_text(bpe, cleaned=True).ids(texts), clip_text(bpe, cleaned=False).ids(texts)
    for row, ours, theirs in zip(content["rows"], cleaned, raw, strict=True):
        assert ours == row["open_clip_hpsv2_ids"], row["text"]
        assert theirs == row["hf_clip_raw_ids"], row["text"]
        assert (ours == theirs) == row["same_clip"], row["text"]
    if bert is not None:
        for row, ids in zip(content["rows"], bert_text(bert).ids(texts), strict=True):
            assert ids == row["bert35_ids"], row["text"]
