"""What a study consists of, read from YAML: its settings, its arms in groups, and the claims that it tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from finepref.core.errors import ConfigError, FineprefError
from finepref.core.options import Options
from finepref.formats.records import read_yaml
from finepref.plan import methods
from finepref.signals.kinds import SIGNALS
from finepref.train.config import load_config, validate_options
from finepref.train.method import make_method
from finepref.train.train_section import Count, Positive

TRUTH = "truth"
SHIPPED = Path(__file__).with_name("study.yaml")
BASE = "base"
TAKEN = (BASE, "finepref", "tuning")
"""Names that no arm may have."""
FIXED = (
    *("train.max_steps", "train.seed", "train.pairs_per_step", "train.micro_batch", "train.learning_rate"),
    *("train.lr_warmup_steps", "train.checkpoint_every", "signal.file", "data.paths", "cache.folder", "model.base"),
)
"""What the study sets for every run."""
Above = Annotated[float, Field(gt=0, allow_inf_nan=False)]
# objective -> the option that says how strongly it acts; None where there is none
STRENGTH: dict[str, str | None] = {"sft": None, "dspo": "lambda_residual"}


class Data(Options):
    """The votes that every run of a seed learns from."""

    votes: Positive = Field(4200, description="votes of a seed")
    prompts: Annotated[int, Field(ge=1, le=252)] = Field(252, description="training prompts, the first ones")
    reward_steps: Positive = Field(600, description="training steps of a reward that an arm learns from its own votes")


class Training(Options):
    """What every run has in common."""

    cost: Positive = Field(description="network forwards a run may spend; a forward with its backward counts as 3")
    pairs_per_step: Positive = 16
    micro_batch: Positive = 32
    warmup: Annotated[float, Field(ge=0, lt=1)] = Field(0.05, description="share of the steps")


class HeldOut(Options):
    """Held-out prompts of the lab: the first ones evaluate, the last ones validate."""

    prompts: Positive = 120
    validation_prompts: Positive = 40
    steps: Positive = 10
    guidance: Annotated[float, Field(ge=0)] = 2.0
    batch: Positive = 60

    @model_validator(mode="after")
    def _disjoint(self) -> HeldOut:
        if self.prompts + self.validation_prompts > 252:
            raise ValueError("there are 252 held-out prompts for evaluation and validation together")
        return self


class Tuning(Options):
    """Every method is given this grid, and the best mean true quality on validation prompts wins."""

    seed: Count = Field(100, description="of votes, training and images; no arm has it")
    learning_rate: list[Above] = Field(min_length=1)
    strength: list[Above] = Field(
        min_length=1, description="factors of the method's strength (beta, or lambda_residual for dspo)"
    )


class Arm(Options):
    """One setting, run with every seed.

    method: row of `finepref methods`, whose lab config is trained. signal, options: other kinds of `finepref signals`,
    and their options. set: overrides of the config. strength: factor of the tuned strength. noise: factor of the
    voters' noise. reward: `own` learns the reward from the arm's own votes, `wrong` deals the shipped one to other
    images. control: margins and weights that tell nothing of their pair, as `finepref signals --control` has them.
    Kind `truth` is the true gap, max(0, q_w - q_l), with the mean of the paper's gaps. tuned: `arm` gives the arm a
    grid of its own, `method` gives it the values of its method.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,60}$")]
    method: str
    label: str = ""
    signal: list[str] | None = None
    options: dict[str, float] = Field(default_factory=dict)
    set: dict[str, Any] = Field(default_factory=dict)
    strength: Annotated[float, Field(gt=0)] = 1.0
    noise: Annotated[float, Field(ge=0)] = 1.0
    reward: Literal["shipped", "own", "wrong"] = "shipped"
    control: Literal["permute", "constant"] | None = None
    tuned: Literal["method", "arm"] = "method"

    @property
    def tuned_as(self) -> str:
        """Whose grid decides the learning rate and the strength: the name of a method, or the arm's own."""
        return self.name if self.tuned == "arm" else self.method

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of signal, never empty."""
        kinds = methods.get(self.method).about.signal if self.signal is None else tuple(self.signal)
        return kinds or ("binary",)

    def signal_options(self) -> dict[str, float | str]:
        """Options of the signal: the method's own (the lab's rewards have their own extremes), then the arm's."""
        own = {key: value for key, value in methods.get(self.method).about.options.items() if key != "extremes"}
        return {**(own if self.signal is None else {}), **self.options}


class Group(Options):
    """Arms that are read together; `also` names arms of other groups that belong into its table."""

    name: str
    title: str
    text: str = ""
    against: str = "dpo"
    arms: list[Arm] = Field(default_factory=list)
    also: list[str] = Field(default_factory=list)


class Claim(Options):
    """What a paper says: `better` beats `than`; of several, the one that its own grid likes best."""

    text: str
    source: str
    better: str
    than: str | Annotated[list[str], Field(min_length=1)]

    @property
    def opponents(self) -> list[str]:
        """Arms, one of which is beaten or not."""
        return [self.than] if isinstance(self.than, str) else self.than


class Study(Options):
    """A whole study; arms come in the order of their importance.

    looks: numbers of seeds, ascending. Every arm is run with the first; the arms of a claim go on to the next one while
    the claim's interval is wider than it may be (`finepref.study.claims`).
    """

    seeds: Annotated[list[Count], Field(min_length=1)]
    looks: list[Annotated[int, Field(ge=2)]] = Field(
        default_factory=list, description="numbers of seeds to look at, at least two; none = all at once"
    )
    data: Data = Data()
    training: Training
    evaluation: HeldOut = HeldOut()
    tuning: Tuning
    groups: Annotated[list[Group], Field(min_length=1)]
    claims: list[Claim] = Field(default_factory=list)

    @model_validator(mode="after")
    def _names(self) -> Study:
        names = [arm.name for arm in self.arms()]
        known = {BASE, *names}
        if not names:
            raise ValueError("there is no arm")
        if len({name.lower() for name in (*TAKEN, *names)}) != len(names) + len(TAKEN):
            raise ValueError(f"arm names must differ, also in lower case and from {', '.join(TAKEN)}: rows are files")
        for claim in self.claims:
            if claim.better in claim.opponents or (BASE in claim.opponents and len(claim.opponents) > 1):
                raise ValueError(f"the claim that {claim.text!r} stands against itself, or the base among several arms")
        wanted = [name for claim in self.claims for name in (claim.better, *claim.opponents)]
        wanted += [name for group in self.groups for name in (*group.also, group.against)]
        if set(wanted) - known:
            raise ValueError(f"no arm is called {sorted(set(wanted) - known)[0]!r}")
        if self.tuning.seed in self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise ValueError("seeds must differ from each other and from the tuning seed")
        if self.looks and (sorted({*self.looks}) != self.looks or self.looks[-1] > len(self.seeds)):
            raise ValueError("looks must ascend, to at most the number of seeds")
        return self

    @model_validator(mode="after")
    def _grids(self) -> Study:
        whose = {arm.name: arm.tuned_as for arm in self.arms()}
        methods_tuned = {arm.method for arm in self.arms() if arm.tuned == "method"}
        for arm in self.arms():
            if arm.tuned == "arm" and arm.name in methods_tuned:
                raise ValueError(f"arm {arm.name!r} has a grid of its own, and so needs another name than a method's")
        for claim in self.claims:
            if len({whose.get(name) for name in claim.opponents}) != len(claim.opponents):
                raise ValueError(f"of the claim that {claim.text!r} every opponent needs a grid of its own")
        return self

    def arms(self) -> Iterator[Arm]:
        """Every arm once, in order."""
        for group in self.groups:
            yield from group.arms

    def tuned(self) -> dict[str, Arm]:
        """What is trained on the grid, by the name of the grid, in the order in which arms need it."""
        found: dict[str, Arm] = {}
        for arm in self.arms():
            found.setdefault(arm.tuned_as, arm if arm.tuned == "arm" else Arm(name=arm.method, method=arm.method))
        return found


def load_study(path: str | Path | None = None) -> Study:
    """Read a study; the shipped one by default.

    Raises:
        InputError: no such file, or no YAML.
        ConfigError: an unknown key, method or arm, or a wrong value.
    """
    file = SHIPPED if path is None else Path(path)
    data = read_yaml(file, remedy="leave -c out for the shipped study")
    study = validate_options(Study, data, where=str(file))
    assert isinstance(study, Study)
    for arm in study.arms():
        _check_arm(arm, str(file))
    return study


def _check_arm(arm: Arm, file: str) -> None:
    """Refuse an arm that cannot be trained, before anything is.

    Raises:
        ConfigError: its method, signal or overrides; names the arm.
    """
    where = f"{file}, arm {arm.name}"
    try:
        methods.get(arm.method)
        for kind in arm.kinds:
            if kind != TRUTH:
                SIGNALS[kind]
        option = strength_option(arm.method)
        for key in arm.set:
            if key in FIXED or key == f"objective.{option}":
                raise ConfigError(f"{key} is set by the study", remedy="change it there")
        words = [f"{key}={value}" for key, value in arm.set.items()]
        make_method(load_config(f"lab/{arm.method}", ["signal.file=signals.parquet", *words]))
    except FineprefError as error:
        raise ConfigError(str(error), where=where) from None


def strength_option(method: str) -> str | None:
    """The objective's option that says how strongly a method acts: `beta`, `lambda_residual`, or none."""
    return STRENGTH.get(methods.get(method).axes["objective"]["name"], "beta")


def grid(tuning: Tuning, method: str) -> list[tuple[float, float]]:
    """(learning rate, factor of the strength) of every tuning run; as many for every method.

    A method without a strength gets the learning rates and, for every further strength, their midpoints upward.
    """
    if strength_option(method) is not None:
        return [(rate, factor) for factor in tuning.strength for rate in tuning.learning_rate]
    ratio = tuning.learning_rate[1] / tuning.learning_rate[0] if len(tuning.learning_rate) > 1 else 2.0
    shifts = [ratio ** (i / len(tuning.strength)) for i in range(len(tuning.strength))]
    return [(rate * shift, 1.0) for shift in shifts for rate in tuning.learning_rate]
