"""What `finepref scorers verify` compares with is what was published."""

from __future__ import annotations

from typing import Any

from finepref.evaluate.scorers import verify
from finepref.evaluate.scorers.blip import REWARD_MEAN, REWARD_STD


def check(content: dict[str, Any], meta: dict[str, Any]) -> None:
    readme = content["imagereward_readme"]
    assert readme["prompt"] == verify.README_PROMPT
    published = {path.rsplit("/", 1)[1]: [row["sha256"], row["reward"]] for path, row in readme["images"].items()}
    assert published == verify.README_IMAGES
    rewards = [reward for _, reward in verify.README_IMAGES.values()]
    assert [1 + sum(other > value for other in rewards) for value in rewards] == readme["ranking"]
    assert content["ImageReward_mean_std"] == [REWARD_MEAN, REWARD_STD]
    demo = content["hpsv2_issue_30"]
    assert demo["prompt"] == verify.HPS_PROMPT
    assert demo["sha256"] == verify.HPS_IMAGE.sha256
    assert demo["score"] == verify.HPS_SCORE
    board = content["hpsv2_leaderboard"]
    assert board["columns"][:4] == verify.HPS_STYLES
    assert board["v2.1"]["SDXL Base 0.9"] == verify.HPS_BENCHMARK["tensor_noaa"]
    reproduced = board["issue_43_reproduction_of_published_images_v2.1"]["SDXL Base 0.9"]
    assert reproduced == verify.HPS_BENCHMARK["tensor_aa"]
