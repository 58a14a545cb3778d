"""What a single-file checkpoint says of its prediction type and noise schedule. Nothing of it is guessed from weights.

The tensors of a network that predicts noise and of one that predicts velocity have equal names and shapes. What is
believed: `model.prediction_type`; marks in the file (an empty tensor `v_pred`, and `ztsnr` for a schedule down to zero;
`modelspec.prediction_type` in its header); the original config beside it (`NAME.yaml`, `parameterization`); where none
of these says anything, the scheduler of the folder that `model.config` names. Without that an SD1.x or SDXL file is
taken at the word of its published repository, noise, which is said; SD2 is published with both, so it is asked about.

Deviations: diffusers knows none of the marks and asks of none; of SD2 it believes the config it is given.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from finepref.core.errors import ConfigError, InputError
from finepref.core.files import reading
from finepref.diffusion.path import from_scheduler_config
from finepref.formats.records import read_yaml
from finepref.models.header import Header

TYPES = ("epsilon", "v_prediction")
OPTION = "model.prediction_type"
_WORDS = {"epsilon": "epsilon", "eps": "epsilon", "v": "v_prediction", "v_prediction": "v_prediction"}


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
        made["rescale_betas_zero_snr"] = True
    _check_schedule(header, made)
    return made, who


def marked(header: Header) -> str | None:
    """The prediction type that a file's marks say; None where there are none."""
    return next((word for word in _marks(header).values() if word is not None), None)


def _marks(header: Header) -> dict[str, str | None]:
    spec = header.metadata.get("modelspec.prediction_type")
    return {
        "its tensor v_pred": "v_prediction" if "v_pred" in header.shapes else None,
        "its header": None if spec is None else _word(spec, header.path),
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
        remedy = f"set {OPTION} to epsilon or v_prediction, and correct that word"
        raise InputError(f"the prediction type {word!r} is not known", where=where, remedy=remedy)
    return _WORDS[str(word)]


def _check_schedule(header: Header, config: Mapping[str, Any]) -> None:
    """Refuse a file whose own noise schedule is not that of the scheduler's config; half precision is allowed for."""
    if "alphas_cumprod" not in header.shapes:
        return
    from safetensors import safe_open

    with reading(header.path, "a whole safetensors file"), safe_open(str(header.path), "pt") as file:
        held = file.get_tensor("alphas_cumprod").to(torch.float64)
    known = from_scheduler_config(config).alpha_bar
    if known is None or held.shape != known.shape or not torch.allclose(held, known, rtol=0, atol=1e-3):
        what = "its noise schedule (alphas_cumprod) is not that of the scheduler's config"
        remedy = "name as model.config a diffusers folder whose scheduler has the checkpoint's betas"
        raise InputError(what, where=header.path, remedy=remedy)
