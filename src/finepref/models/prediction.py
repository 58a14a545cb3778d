"""What a single-file checkpoint says of its prediction type and noise schedule. Nothing of it is guessed from weights.

The tensors of a network that predicts noise and of one that predicts velocity have equal names and shapes. What is
believed: `model.prediction_type`; marks in the file (an empty tensor `v_pred`, and `ztsnr` for a schedule down to zero;
`modelspec.prediction_type` in its header); the original config beside it (`NAME.yaml`, `parameterization`); where none
of these says anything, the scheduler of the folder that `model.config` names. Without that an SD1.x or SDXL file is
taken at the word of its published repository, noise, which is said; SD2 is published with both, so it is asked about.

Deviations: diffusers knows none of the marks and asks of none; of SD2 it believes the config it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from finepref.core.errors import ConfigError, InputError
from finepref.core.files import reading
from finepref.diffusion.path import from_scheduler_config
from finepref.formats.records import read_yaml
from finepref.models.header import Header

TYPES = ("epsilon", "v_prediction")
OPTION = "model.prediction_type"
SPEC = "modelspec.prediction_type"
_WORDS = {
    **{"epsilon": "epsilon", "eps": "epsilon"},
    **dict.fromkeys(("v", "v_prediction", "velocity"), "v_prediction"),
}


def scheduler_of(
    header: Header, config: Mapping[str, Any], *, given: str | None, named: bool, asked: bool
) -> tuple[dict[str, Any], str]:
    """(the scheduler's config for a file, who says its prediction type).

    Args:
        config: of the pipeline's scheduler. given: `model.prediction_type`. named: whether the user named the pipeline.
        asked: whether checkpoints of this architecture are published with either type.

    Raises:
        ConfigError: an option without effect. InputError: nothing says it, two say different things, or the file has
            another noise schedule.
    """
    if "FlowMatch" in str(config.get("_class_name", "")):
        if given is not None:
            raise ConfigError("a flow model has one prediction type", where=OPTION, remedy="drop it")
        return dict(config), "flow matching"
    said = {who: word for who, word in ((OPTION, given), *_marks(header).items()) if word is not None}
    if len({*said.values()}) > 1:
        what = ", ".join(f"{who} says {word}" for who, word in said.items())
        raise InputError(what, where=header.path, remedy="correct what is wrong")
    if not said and asked and not named:
        what = "the file does not say whether it predicts noise or velocity"
        remedy = f"set {OPTION} to epsilon or v_prediction, or put the checkpoint's .yaml beside it"
        raise InputError(what, where=header.path, remedy=remedy)
    who, word = next(iter(said.items()), ("the scheduler's config", config.get("prediction_type", "epsilon")))
    made = {**config, "prediction_type": word}
    if "ztsnr" in header.shapes:
        if word != "v_prediction":
            what = f"its tensor ztsnr says that its noise goes up to pure noise, and it predicts noise, as {who} says"
            raise InputError(what, where=header.path, remedy=f"correct what is wrong, or set {OPTION} to v_prediction")
        made["rescale_betas_zero_snr"] = True
    _check_stored(header, made)
    return made, who


def marked(header: Header) -> str | None:
    """The prediction type that a file's marks say; None where there are none."""
    return next((word for word in _marks(header).values() if word is not None), None)


def said_in(header: Header) -> str | None:
    """The prediction type that the `modelspec` of a weights file says; None where it says none.

    Raises:
        InputError: a word that is not known.
    """
    word = header.metadata.get(SPEC)
    return None if word is None else _word(word, header.path)


def _marks(header: Header) -> dict[str, str | None]:
    return {
        "its tensor v_pred": "v_prediction" if "v_pred" in header.shapes else None,
        "its header": said_in(header),
        **_beside(header.path.with_suffix(".yaml")),
    }


def _beside(file: Path) -> dict[str, str | None]:
    """What the original config of the authors' code says, where it lies beside the checkpoint."""
    if not file.is_file():
        return {}
    section: Any = read_yaml(file, remedy="move it away")
    for key in ("model", "params"):
        section = section.get(key) if isinstance(section, Mapping) else None
    if not isinstance(section, Mapping):
        return {}
    return {file.name: _word(section.get("parameterization", "eps"), file)}


def _word(word: object, where: Path) -> str:
    if str(word) not in _WORDS:
        remedy = "correct that word to epsilon or v_prediction, or take it out"
        raise InputError(f"the prediction type {word!r} is not known", where=where, remedy=remedy)
    return _WORDS[str(word)]


_STORED: Mapping[str, Callable[[Tensor], Tensor]] = {
    "alphas_cumprod": lambda held: held,
    "betas": lambda held: (1 - held).cumprod(0),
    "sqrt_alphas_cumprod": lambda held: held**2,
    "sqrt_one_minus_alphas_cumprod": lambda held: 1 - held**2,
    "log_one_minus_alphas_cumprod": lambda held: 1 - held.exp(),
    "sqrt_recip_alphas_cumprod": lambda held: held**-2,
    "sqrt_recipm1_alphas_cumprod": lambda held: 1 / (1 + held**2),
    "denoiser.sigmas": lambda held: 1 / (1 + held.sort().values ** 2),
}
"""Tensors of a file that say its noise schedule -> alpha_bar of them."""


def _check_stored(header: Header, config: Mapping[str, Any]) -> None:
    """Refuse a file whose own noise schedule is not that of the scheduler's config; its precision is allowed for."""
    from safetensors import safe_open

    names = [name for name in _STORED if name in header.shapes]
    known = from_scheduler_config(config).alpha_bar if names else None
    with reading(header.path, "a whole safetensors file"), safe_open(str(header.path), "pt") as file:
        stored = {name: _STORED[name](file.get_tensor(name).to(torch.float64)) for name in names}
    for name, held in stored.items():
        within = 1e-2 if header.types[name] == "BF16" else 1e-3
        if known is None or held.shape != known.shape or not torch.allclose(held, known, rtol=0, atol=within):
            what = f"its noise schedule ({name}) is not that of the scheduler's config"
            remedy = "name as model.config a diffusers folder whose scheduler has the checkpoint's betas"
            raise InputError(what, where=header.path, remedy=remedy)


def check_schedule(config: Mapping[str, Any], file: Path) -> None:
    """Refuse a scheduler's config whose numbers make no noise schedule.

    Raises:
        InputError: names the key.
    """
    steps, betas = config.get("num_train_timesteps", 1000), config.get("trained_betas")
    remedy = "take the scheduler's config from the original model"
    if type(steps) is not int or steps < 1:
        raise InputError(f"num_train_timesteps is {steps!r}, not a number of levels", where=file, remedy=remedy)
    if betas is not None and not (isinstance(betas, list) and len(betas) == steps):
        what = f"trained_betas is not a list of {steps} numbers, as num_train_timesteps says"
        raise InputError(what, where=file, remedy=remedy)
    held = {"beta_start": config.get("beta_start"), "beta_end": config.get("beta_end")}
    for name, value in [*held.items(), *(("trained_betas", each) for each in betas or ())]:
        if value is not None and not (type(value) in (int, float) and 0 <= value <= 1):
            raise InputError(f"{name} holds {value!r}, not a number from 0 to 1", where=file, remedy=remedy)
