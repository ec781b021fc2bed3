"""SVG plots of the raw rounds: plots.py FOLDER. Runs in the environment `transformers`, which has matplotlib."""

import json
import pathlib
import statistics
import sys

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams["svg.hashsalt"] = "pagemill"  # the same file from the same figures
import matplotlib.pyplot as plt

COLOURS = {"pagemill": "#c0392b", "vllm": "#2980b9", "openvino": "#27ae60", "llama.cpp": "#8e44ad", "transformers": "#7f8c8d"}


def medians(lines: list[dict], value) -> dict[str, float]:
    by_engine: dict[str, list[float]] = {}
    for line in lines:
        by_engine.setdefault(line["engine"], []).append(value(line["result"]))
    return {name: statistics.median(values) for name, values in by_engine.items()}


def colour(engine: str) -> str:
    return COLOURS[engine.split(",")[0]]


def bars(figures: dict[str, float], title: str, path: pathlib.Path) -> None:
    figure, axes = plt.subplots(figsize=(7, 0.6 + 0.32 * len(figures)))
    names = sorted(figures, key=figures.get)
    drawn = axes.barh(names, [figures[name] for name in names], color=[colour(name) for name in names])
    axes.bar_label(drawn, fmt="{:,.0f}", padding=3)
    axes.set_title(title)
    axes.margins(x=0.12)
    axes.spines[["top", "right"]].set_visible(False)
    save(figure, path)


def curves(lines: list[dict], loads: str, value: str, titles: tuple[str, str], path: pathlib.Path, log: bool = False) -> None:
    """One a server: `value` over the loads of this kind."""
    figure, axes = plt.subplots(figsize=(7, 4))
    points: dict[str, dict[float, list[float]]] = {}
    for line in lines:
        for load in line["result"]["loads"]:
            if load["kind"] == loads:
                points.setdefault(line["engine"], {}).setdefault(load["load"], []).append(load[value])
    for name, by_load in points.items():
        xs = sorted(by_load)
        axes.plot(xs, [statistics.median(by_load[x]) for x in xs], marker="o", color=colour(name), label=name,
                  linestyle="-" if "bf16" in name else "--")
    axes.set_xlabel(titles[0])
    axes.set_ylabel(titles[1])
    if log:
        axes.set_yscale("log")
    axes.legend(frameon=False)
    axes.grid(alpha=0.3)
    save(figure, path)


def save(figure, path: pathlib.Path) -> None:
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def main() -> None:
    folder = pathlib.Path(sys.argv[1])
    for path in sorted(folder.glob("*.jsonl")):
        suite, lines = path.stem, [json.loads(text) for text in path.read_text().splitlines()]
        if "loads" in lines[0]["result"]:
            curves(lines, "concurrency", "output_tokens_per_s", ("requests at once", "output tokens/s"),
                   folder / f"{suite}-concurrency.svg")
            curves(lines, "rate", "ttft_p99_ms", ("requests/s", "time to first token, p99, ms"), folder / f"{suite}-ttft.svg", True)
            curves(lines, "rate", "itl_p99_ms", ("requests/s", "between tokens, p99, ms"), folder / f"{suite}-itl.svg", True)
            continue
        bars(medians(lines, lambda result: result["workload"]["output_tokens_per_s"]), f"{suite}: output tokens/s, all requests at once",
             folder / f"{suite}-throughput.svg")
        bars(medians(lines, lambda result: result["peak_memory_mib"]), f"{suite}: peak memory, MiB", folder / f"{suite}-memory.svg")


if __name__ == "__main__":
    main()
