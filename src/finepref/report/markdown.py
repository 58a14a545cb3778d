"""The report as text: the same numbers in Markdown tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from finepref.arena.folder import leaderboard_rows
from finepref.report import background, results
from finepref.report.inputs import Inputs
from finepref.report.paper_tables import markdown_tables
from finepref.report.pieces import percent, significant

SPECIAL = str.maketrans({c: f"\\{c}" for c in "\\`*_{}[]<>#|~$"} | {"\n": " ", "\r": " "})


def plain(value: object) -> str:
    """Any value so that Markdown shows it as it is."""
    return str(value).translate(SPECIAL)


def md_table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; every cell is escaped."""
    lines = [f"| {' | '.join(head)} |", f"|{'|'.join(' --- ' for _ in head)}|"]
    lines += [f"| {' | '.join(plain(cell) for cell in row)} |" for row in rows]
    return "\n".join(lines)


def markdown(inputs: Inputs, metrics: Sequence[str], made: Mapping[str, object], *, title: str | None = None) -> str:
    """The whole text."""
    heads = [results.headline(e, m) for e, m in zip(inputs.evaluations, metrics, strict=True)]
    blocks = [f"# {plain(title or (heads[0] if heads else 'Report'))}"]
    for evaluation, metric in zip(inputs.evaluations, metrics, strict=True):
        blocks += [plain(sentence) for sentence in results.summary_sentences(evaluation, metric)]
        comparison = evaluation.comparison
        trained = {name: about["used_in_training"] for name, about in comparison["metrics"].items()}
        blocks.append("## Win rates")
        blocks.append(
            md_table(
                ("Metric", "Prompts", "Model", "Against", "n", "Win rate", "Interval", "Permutation p after Holm"),
                [
                    (
                        row["metric"] + (" (trained on)" if row["model"] in trained[row["metric"]] else ""),
                        row["prompt_set"], row["model"], row["against"], row["n"], percent(row["win_rate"]),
                        f"{percent(row['win_low'])} to {percent(row['win_high'])}",
                        results.p_value(row["permutation_holm"]),
                    )
                    for row in comparison["pairs"]
                ],
            )
        )  # fmt: skip
        blocks.append("## Scores")
        blocks.append(
            md_table(
                ("Metric", "Prompts", "Model", "n", "Mean", "Interval", "Median"),
                [
                    (
                        row["metric"], row["prompt_set"], row["model"], row["n"], significant(row["mean"]),
                        f"{significant(row['mean_low'])} to {significant(row['mean_high'])}",
                        significant(row["median"]),
                    )
                    for row in comparison["models"]
                ],
            )
        )  # fmt: skip
        for words, head, rows in markdown_tables(evaluation):
            blocks += [f"### {plain(words)}", md_table(head, rows)]
    if inputs.runs:
        blocks.append("## Runs")
        blocks.append(
            md_table(
                ("Run", "Method", "Signal", "Steps", "Device time", "Seed"),
                [
                    (
                        run.name, run.about.get("method", "–"), background.signal_words(run.about.get("signals")),
                        run.about.get("steps", "–"), background.duration(run.about.get("device_seconds")),
                        run.about.get("seed", "–"),
                    )
                    for run in inputs.runs
                ],
            )
        )  # fmt: skip
    for arena in inputs.arenas:
        blocks.append("## Arena")
        blocks.append(
            md_table(
                ("Rank", "Model", "mu", "95 % interval", "Wins", "Losses", "Ties"),
                [
                    (
                        row["rank"], row["model"], f"{row['mu']:.2f}", f"{row['low']:.2f} to {row['high']:.2f}",
                        row["wins"], row["losses"], row["ties"],
                    )
                    for row in leaderboard_rows(arena.ratings)
                ],
            )
        )  # fmt: skip
        blocks += [f"- {plain(warning)}" for warning in arena.ratings.warnings]
    blocks.append(f"Made {made.get('created', '')}.")
    return "\n\n".join(blocks) + "\n"
