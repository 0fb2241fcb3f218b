"""Search at inference on letters: which of the searches makes a wanted letter most often, at equal network evaluations?

python benchmarks/search.py --run RUN --labels 0 4 7

RUN is a trained run of ``experiment=sbf_glyphs``. The verifier is a classifier trained on half of the training data;
the share of the wanted letter and the held-out score come from another one, trained on the other half. The other
searches get at most as many network evaluations as the path search.
"""

import argparse
import time

import torch
from measured import write_rows

from sbflow.command.build import build
from sbflow.command.run import load_run
from sbflow.command.search import halves
from sbflow.metric.classifier import EndClassifier, train_classifier
from sbflow.search import BestOfN, Paths, Roll, SearchResult, ZeroOrder, bridge_roll, rescore
from sbflow.verifier import ClassifierLogProbability


def searches(args: argparse.Namespace) -> dict:
    """The path search in all steps, and the others and coarse ones with no more evaluations."""
    budget = Paths(args.width, args.branches, args.block).evaluations(args.num_steps)
    chosen = {}
    for steps in (args.num_steps, args.search_steps):
        options = {"budget": budget, "search_steps": steps, "max_rows": args.max_rows}
        chosen[f"paths, {steps} steps"] = Paths(branches=args.branches, block=args.block, **options)
        chosen[f"best of N, {steps} steps"] = BestOfN(**options)
        chosen[f"zero order, {steps} steps"] = ZeroOrder(**options)
    return chosen


def row_of(
    result: SearchResult, x: torch.Tensor, label: int, verifiers: list[ClassifierLogProbability], held: EndClassifier
) -> dict:
    """Numbers of a search and of the plain translation."""
    checked = rescore(result, x, verifiers[1])
    wanted = held.num_classes0 + label
    return {
        "plain_share": round((held.predict(result.baseline) == wanted).double().mean().item(), 4),
        "share": round((held.predict(result.samples) == wanted).double().mean().item(), 4),
        "plain_score": round(result.baseline_score.mean().item(), 3),
        "score": round(result.score.mean().item(), 3),
        "plain_held_out": round(checked.baseline_score.mean().item(), 3),
        "held_out": round(checked.score.mean().item(), 3),
        "plain_msd": round((result.baseline - x).square().mean().item(), 4),
        "msd": round((result.samples - x).square().mean().item(), 4),
        "letters": round(held.end_share(result.samples, 1), 4),
        "plain_letters": round(held.end_share(result.baseline, 1), 4),
    }


def measure(
    roll: Roll, x: torch.Tensor, label: int, classifiers: list[EndClassifier], args: argparse.Namespace
) -> list:
    """One row per search."""
    verifiers = [ClassifierLogProbability(one, one.num_classes0 + label) for one in classifiers]
    rows = []
    for name, search in searches(args).items():
        start = time.perf_counter()
        result = search(roll, x, verifiers[0], seed=args.seed)
        row = {
            "label": label,
            "search": name,
            "inputs": len(x),
            "num_steps": roll.num_steps,
            "drift_evaluations": result.drift_evaluations,
            "verifier_evaluations": result.verifier_evaluations,
        }
        rows.append(row | row_of(result, x, label, verifiers, classifiers[1]))
        rows[-1]["seconds"] = round(time.perf_counter() - start, 1)
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", required=True)
    parser.add_argument("--labels", type=int, nargs="+", default=[0, 4, 7])
    parser.add_argument("--inputs", type=int, default=100)
    parser.add_argument("--num-steps", type=int, default=30)
    parser.add_argument("--search-steps", type=int, default=8)
    parser.add_argument("--width", type=int, default=2)
    parser.add_argument("--branches", type=int, default=4)
    parser.add_argument("--block", type=int, default=2)
    parser.add_argument("--max-rows", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", default="search.csv")
    args = parser.parse_args()

    run = load_run(args.run, needs="translate")
    data = build(run.config, "data")
    classifiers = [train_classifier(half, seed=args.seed + k) for k, half in enumerate(halves(data.split("train")))]
    flow = run.algorithm
    roll = bridge_roll(flow.ema.module, flow.process, num_steps=args.num_steps, last_noise=flow.last_noise)
    test = data.split("test").x0
    x = test[torch.randperm(len(test), generator=torch.Generator().manual_seed(args.seed))[: args.inputs]]
    for label in args.labels:
        write_rows(args.output, measure(roll, x, label, classifiers, args))


if __name__ == "__main__":
    main()
