"""The ways in which people write preferences down: one table, from which columns (votes) and rows (pairs) are read.

Roles of a row that is a comparison:
    left, right             names of the two models
    winner                  the outcome; a dialect without it lists the winner on the left
    left_image, right_image the two pictures: bytes, a {bytes, path} record, or a file
    left_uid, right_uid     the data set's own names of the pictures
    other_label             a second label, which must be one minus `winner`
    has_label               false where nobody voted
    tie                     true where the outcome is a tie
    left_votes, right_votes how many votes each side got
    left_share, right_share the share of the votes that each side got
Roles of a row that is one item of a ranking (K-wise; all pairs of a group are compared):
    group, rank             which ranking, and the place in it: low is best, equal is a tie
    model, image            the item
Of both: prompt, voter, id (name of a vote), pair_id (stable id of a pair, for training), weight (how many votes a row
stands for), both_bad, time, question (what was asked), game (ranking that a pair came from).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from finepref.core.rows import RowTable
from finepref.formats import annotation_tools, exports
from finepref.formats.exports import NoVote
from finepref.formats.outcomes import LEFT, MEANINGS, NO_VOTE, RIGHT, TIE, WORDS, Vocabulary, canonical
from finepref.formats.tables import Row

Names = tuple[str, ...]

MODEL_LEFT: Names = (
    *("left", "model_0", "model_a", "model1", "model_1", "chosen_model", "model_chosen"),
    *("left_model", "project_a", "item_a", "system_a", "candidate_a"),
)
MODEL_RIGHT: Names = (
    *("right", "model_2", "model_1", "model_b", "model2", "rejected_model", "model_rejected"),
    *("right_model", "project_b", "item_b", "system_b", "candidate_b"),
)
WINNER: Names = ("winner", "outcome", "vote_type")
HASHED_VOTERS: Names = ("voter", "user_id", "worker", "annotator")  # part of ids, which are stored: never changed
VOTER: Names = (*HASHED_VOTERS, "annotator_id", "worker_id", "WorkerId", "judge", "judgeId", "judgeID", "judge_id")
COMMON: dict[str, Names] = {
    "prompt": ("prompt", "caption", "text"), "voter": VOTER, "id": ("vote_id", "ranking_id"), "weight": ("weight",),
    "time": ("time", "timestamp", "tstamp", "voted_at", "created_at"), "question": ("question", "criterion"),
}  # fmt: skip
PAIR: dict[str, Names] = {**COMMON, "left": MODEL_LEFT, "right": MODEL_RIGHT}
IMAGES: dict[str, Names] = {
    "left_image": ("left_image", "path1", "image_a", "image1", "image_1", "chosen_file_name", "chosen_image"),
    "right_image": ("right_image", "path2", "image_b", "image2", "image_2", "rejected_file_name", "rejected_image"),
    "left_uid": ("image_0_uid",),
    "right_uid": ("image_1_uid",),
}
ITEM: dict[str, Names] = {"rank": ("rank",), "model": ("model",), "image": ("image", "image_path")}
PICTURES = ("left_image", "right_image", "image")
_OUTCOME = re.compile(  # columns that look as if they said who won
    r"(is_|was_)?(win|won|winner|loser|outcome|result|verdict|choice|preference|preferred|prefer|vote|label|draw|tie|tied)"
    r"|label_\d|judge?ment|decision|selected|selection|better|best|human_preference|has_won"
    r"|(winner|votes|vote|rank|wins|weighted_results)_.*|.*(_rank|\drank|_votes|_wins)|rank(ing)?|votes"
)


def _some(name: str, present: Collection[str]) -> bool:
    """Whether a column is there that ends as `*name` says."""
    return name.startswith("*") and any(column.endswith(name[1:]) for column in present)


@dataclass(frozen=True, slots=True)
class Dialect:
    """One way of writing preferences down.

    name: as in `--format`. roles: role -> the columns that may play it; the first one that is there does.
    signature: columns that tell this dialect from others, one of each group must be there (`*x`: one that ends in x);
    unless: none of these may.
    words: its outcome words beside the common ones, to LEFT, TIE, RIGHT, BOTH_BAD or NO_VOTE. shares: the outcome may
    be a number, the left side's share: 1, 0.5 (a tie), 0 or between. null_is_no_vote: a row without an outcome says
    that nobody voted; else it lost one. hashed_voters: the voter columns that are part of a hashed pair_id.
    flatten: turns a row of the file into rows of one comparison or one item each; then `roles` names the columns of
    those, and `reads` the columns of the file that it takes, as a regular expression.
    """

    name: str
    roles: Mapping[str, Names]
    signature: tuple[Names, ...]
    unless: Names = ()
    words: Mapping[str, int] = field(default_factory=dict)
    shares: bool = False
    null_is_no_vote: bool = False
    hashed_voters: Names = HASHED_VOTERS
    flatten: Callable[[Row], Iterator[Row | NoVote]] | None = None
    reads: str = ""

    @property
    def kwise(self) -> bool:
        """Whether a row is one item of a ranking."""
        return "rank" in self.roles

    def vocabulary(self, said: Mapping[str, str], columns: Mapping[str, str]) -> Vocabulary:
        """What its outcomes are read with.

        said: word -> left, right, tie, both_bad or none, as the person says. columns: role -> column; the name of the
        column of a side means that side (`project_a`), where it is no other word.
        """
        sides = {"left": LEFT, "left_image": LEFT, "right": RIGHT, "right_image": RIGHT}
        own = {canonical(columns[role]): code for role, code in sides.items() if role in columns}
        own |= {canonical(word): code for word, code in self.words.items()}
        own = {word: code for word, code in own.items() if word not in WORDS or word in self.words}
        names_first = not self.signature  # columns in memory, which the person's own program names
        means = {canonical(word): MEANINGS[each] for word, each in said.items()}
        return Vocabulary(own, self.shares, means, names_first)

    @property
    def fields(self) -> Names:
        """Every role and column name that the dialect knows."""
        groups = (*self.roles.values(), *self.signature)
        return tuple(dict.fromkeys([*self.roles, *(name for group in groups for name in group)]))

    def columns(self, role: str, named: Mapping[str, str]) -> list[str]:
        """The columns that may play a role, best first; `named` (role or column name -> column) goes first."""
        return [named[role]] if role in named else [named.get(name, name) for name in self.roles.get(role, ())]

    def lacks(self, present: Collection[str], named: Mapping[str, str]) -> list[Names]:
        """The groups of the signature of which a table has no column."""
        said = {name for role, names in self.roles.items() if role in named for name in names}
        return [
            group
            for group in self.signature
            if not any(n in said or named.get(n, n) in present or _some(n, present) for n in group)
        ]

    def cast(self, named: Mapping[str, str], *, first: Names, present: Collection[str]) -> dict[str, str]:
        """Role -> the best column that is there for it, each in one role only: the roles in `first` choose first.

        What a person names for a role plays it, whatever else it is.
        """
        found: dict[str, str] = {}
        for role in (*(r for r in first if r in self.roles), *(r for r in self.roles if r not in first)):
            said = {named[name] for name in (role, *self.roles[role]) if name in named}
            there = (c for c in self.columns(role, named) if c in present)
            fitting = (c for c in there if c in said or c not in found.values())
            if (column := next(fitting, None)) is not None:
                found[role] = column
        return found

    def unexplained(self, present: Collection[str], named: Mapping[str, str]) -> list[str]:
        """The columns that look like an outcome and that the dialect does not read."""
        known = {*self.fields, *named.values()}
        looking = [c for c in present if c not in known and _OUTCOME.fullmatch(c.strip().casefold())]
        return [c for c in looking if not (self.reads and re.fullmatch(self.reads, c))]


_IMPLIED = (*WINNER, "label_0")  # columns that say more than the order of two columns
_OF_CHOSEN = ("voter", "user_id")
_SHARES: dict[str, Any] = {"words": {"true": LEFT, "false": RIGHT}, "shares": True, "null_is_no_vote": True}
_TIE: dict[str, Names] = {"tie": ("draw", "is_tie", "is_draw", "tie")}
_COUNTS: dict[str, Names] = {
    "left_votes": ("left_votes", "votes_left", "votes_a", "votes_model_a", "votes_image1", "votes_1"),
    "right_votes": ("right_votes", "votes_right", "votes_b", "votes_model_b", "votes_image2", "votes_2"),
}
_PART: dict[str, Names] = {"left_share": ("left_share",), "right_share": ("right_share",)}
_OPTIONS: dict[str, Any] = {  # the words with which annotation tools name the two sides
    "words": {
        **dict.fromkeys(("image_1", "image1", "image_a", "response-1", "response_1", "response1"), LEFT),
        **dict.fromkeys(("image_2", "image2", "image_b", "response-2", "response_2", "response2"), RIGHT),
        "toxic_content": NO_VOTE,
    }
}
_SIDE_LEFT, _SIDE_RIGHT = (*MODEL_LEFT, *IMAGES["left_image"]), (*MODEL_RIGHT, *IMAGES["right_image"])

_ROWS: tuple[Dialect, ...] = (
    Dialect("kwise", {**COMMON, **ITEM, "group": ("group",)}, (("group",), ("rank",), ("model",))),
    Dialect(  # the house format, which `finepref data convert` and `pair` write
        "pairs",
        {
            **PAIR, "winner": ("label",), "left_image": ("image_0",), "right_image": ("image_1",),
            "pair_id": ("pair_id",), "id": ("pair_id", "vote_id"), "both_bad": ("both_bad",), "game": ("game",),
        },
        (("image_0",), ("image_1",), ("label",)), hashed_voters=("voter",), **_SHARES,
    ),
    Dialect(
        "pickapic",
        {
            **PAIR, **IMAGES, "prompt": ("caption", "prompt"), "pair_id": ("ranking_id",),
            "winner": ("label_0",), "other_label": ("label_1",), "has_label": ("has_label",),
            "left_image": ("jpg_0", *IMAGES["left_image"]), "right_image": ("jpg_1", *IMAGES["right_image"]),
        },
        (("label_0",), ("jpg_0", "jpg_1", "image_0_uid", "best_image_uid", *MODEL_LEFT)),
        unless=WINNER, hashed_voters=("user_id",), **_SHARES,
    ),
    Dialect(
        "imagefolder", {**PAIR, **_TIE, "left_image": ("chosen_file_name",), "right_image": ("rejected_file_name",)},
        (("chosen_file_name",), ("rejected_file_name",)), unless=_IMPLIED, hashed_voters=_OF_CHOSEN,
    ),
    Dialect(  # where no column names a model, `chosen` and `rejected` do, if the votes are rated
        "chosen_rejected",
        {
            **PAIR, **_TIE, "left": (*MODEL_LEFT, "chosen"), "right": (*MODEL_RIGHT, "rejected"),
            "left_image": ("chosen", "chosen_image"), "right_image": ("rejected", "rejected_image"),
        },
        (
            ("chosen", "chosen_model", "model_chosen", "chosen_image"),
            ("rejected", "rejected_model", "model_rejected", "rejected_image"),
        ),
        unless=(*_IMPLIED, "chosen_file_name"), hashed_voters=_OF_CHOSEN,
    ),
    Dialect(
        "hpdv3", {**PAIR, **_TIE, "left_image": ("path1",), "right_image": ("path2",)}, (("path1",), ("path2",)),
        unless=_IMPLIED, hashed_voters=_OF_CHOSEN,
    ),
    Dialect(
        "hpdv2", {"prompt": ("prompt",), "group": ("group",), "rank": ("rank",), "image": ("image",)},
        (("prompt",), ("file_path", "image_path"), ("human_preference", "raw_annotations")), flatten=exports.hpdv2,
        reads="rank|human_preference",
    ),
    Dialect(
        "imagereward", {**COMMON, **ITEM, "group": ("prompt_id",)},
        (("prompt_id",), ("rank",), ("image", "image_path", "model")),
        unless=("left", "right", "winner", "model_0", "group"), hashed_voters=(), reads="overall_rating",
    ),
    Dialect(
        "wide_ranking", {**COMMON, **ITEM, "group": ("group",)},
        (
            ("system1Id", "system1", "model1", "model_1", "image1", "image_1"),
            ("system1rank", "model1_rank", "model_1_rank", "rank1", "rank_1", "image1_rank", "image_1_rank"),
        ),
        flatten=exports.wide, reads=exports.WIDE,
    ),
    Dialect(
        "one_hot", {**PAIR, **IMAGES, "winner": ("winner",)},
        (MODEL_LEFT, MODEL_RIGHT, ("winner_model_a", "winner_a", "winner_left")),
        unless=WINNER, flatten=exports.one_hot, reads=exports.ONE_HOT,
    ),
    Dialect(
        "winner_loser", {**PAIR, **IMAGES, **_TIE, "left": ("winner",), "right": ("loser",)}, (("winner",), ("loser",)),
        unless=(*MODEL_LEFT, *MODEL_RIGHT),
    ),
    Dialect(  # how many voted for each side
        "counts", {**PAIR, **IMAGES, **_COUNTS}, (_SIDE_LEFT, _SIDE_RIGHT, *_COUNTS.values()),
        unless=(*_IMPLIED, "label"),
    ),
    Dialect(
        "rapidata", {**PAIR, **IMAGES, **_PART}, (_SIDE_LEFT, _SIDE_RIGHT, (f"{exports.SHARE_1}", *(
            f"{exports.SHARE_1}_{question}" for question in ("preference", "coherence", "alignment")
        ))), flatten=exports.rapidata_shares, reads="weighted_results_.*",
    ),
    Dialect(
        "alpaca_eval", {**PAIR, "winner": ("winner",)},
        (("instruction",), ("generator_1",), ("generator_2",), ("preference",), ("output_1",)), shares=True,
        flatten=exports.alpaca_eval, reads="preference",
    ),
    Dialect(
        "pandalm", {**PAIR, "winner": ("winner",)}, (("cmp_key",), ("annotator1",), ("response1",)),
        words={"1": LEFT, "2": RIGHT, "0": TIE}, flatten=exports.pandalm,
    ),
    Dialect(
        "imagereward_lists", {"prompt": ("prompt",), "group": ("group",), "rank": ("rank",), "image": ("image",)},
        (("generations",), ("ranking",)), flatten=exports.imagereward_lists, reads="ranking",
    ),
    Dialect(
        "label_studio", {**PAIR, **IMAGES, "winner": ("winner",)}, (("data",), ("annotations", "completions")),
        flatten=annotation_tools.label_studio, **_OPTIONS,
    ),
    Dialect(
        "label_studio_min", {**PAIR, **IMAGES, "winner": ("winner",)},
        (("annotation_id",), ("annotator",)), unless=("winner",),
        flatten=annotation_tools.label_studio_min, reads="choice|verdict|preference|.*", **_OPTIONS,
    ),
    Dialect(
        "argilla", {**PAIR, **IMAGES, "winner": ("winner",)}, (("fields",), ("responses",)),
        flatten=annotation_tools.argilla, **_OPTIONS,
    ),
    Dialect(
        "argilla_flat", {**PAIR, **IMAGES, "winner": ("winner",)}, (("*.responses",), ("*.responses.users",)),
        flatten=annotation_tools.argilla_flat, **_OPTIONS,
    ),
    Dialect(
        "argilla_1", {**PAIR, **IMAGES, "winner": ("winner",)}, (("*-suggestion",), ("external_id",)),
        flatten=annotation_tools.argilla_1, reads="preference", **_OPTIONS,
    ),
    Dialect(  # the share of the votes that each side got
        "shares", {**PAIR, **IMAGES, **_PART}, (_SIDE_LEFT, _SIDE_RIGHT, _PART["left_share"]),
        unless=(*_IMPLIED, "label"),
    ),
    # our own votes and those of the annotation page
    Dialect(
        "votes", {**PAIR, **IMAGES, "winner": WINNER, "winner_name": ("winner_name", "winner_model")},
        (_SIDE_LEFT, _SIDE_RIGHT, WINNER), unless=("annotation_id", "loser"),
    ),
)  # fmt: skip
IN_COLUMNS = Dialect("votes", {**PAIR, **IMAGES, "winner": ("outcome",)}, (), shares=True)  # `Votes.from_columns`
DIALECTS = RowTable("dialect", Dialect, _ROWS, what="format", where="data.format")
