"""Guards on tokenizers: current libraries can load one that maps every prompt to the same ids, without a word."""

from __future__ import annotations

from typing import Any

from finepref.core.errors import InputError


def check_tokenizer(tokenizer: Any, vocabulary: int, *, where: object, positions: int | None = None) -> None:
    """Refuse a tokenizer that does not fit its text encoder.

    Its length must be within 5 % of the encoder's vocabulary (padding of the embedding table is usual, more is not),
    and two different words must get different ids.

    Args:
        vocabulary: size of the text encoder's embedding table.
        positions: most tokens that the text encoder takes, where the pipeline fills every prompt up to the tokenizer's
            own length (a tokenizer that does not know it claims 1e30).

    Raises:
        InputError: it does not fit; the usual cause is a folder of an old format that was read without a vocabulary.
    """
    remedy = "take tokenizer.json (or vocab.json and merges.txt) from the original model"
    size = len(tokenizer)
    if not 0.95 * vocabulary <= size <= vocabulary:
        what = f"the tokenizer knows {size} tokens, its text encoder {vocabulary}"
        raise InputError(what, where=where, remedy=remedy)
    length = tokenizer.model_max_length
    if positions is not None and length > positions:
        what = f"the tokenizer makes prompts of {length:.4g} tokens, its text encoder takes {positions}"
        remedy = f'write "model_max_length": {positions} into its tokenizer_config.json'
        raise InputError(what, where=where, remedy=remedy)
    words = _two_words(tokenizer)
    if len(words) < 2:
        raise InputError("the tokenizer has no two words", where=where, remedy=remedy)
    first, second = (list(tokenizer(word)["input_ids"]) for word in words)
    if first == second:
        raise InputError(f"the tokenizer gives {words[0]!r} and {words[1]!r} equal ids", where=where, remedy=remedy)


def _two_words(tokenizer: Any) -> list[str]:
    special = set(tokenizer.all_special_ids)
    tokens = sorted(i for i in tokenizer.get_vocab().values() if i not in special)
    decoded = (tokenizer.decode([token]).strip() for token in tokens)
    words = (word.lower() for word in decoded if word.isascii() and word.isalpha())
    first = next(words, None)
    second = next((word for word in words if word != first), None)
    return [word for word in (first, second) if word is not None]
