"""Numbers and names as a report writes them, and what the words mean, for biologists."""

import math

from peftide.evaluation.metrics import RECALLS

RECALL_NAMES = {f"precision_at_recall_{100 * recall:.0f}": f"{100 * recall:.0f} %" for recall in RECALLS}
METRIC_WORDS = {
    "aupr": "AUPR",
    "auroc": "AUROC",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "precision": "precision",
    "recall": "recall",
    "specificity": "specificity",
    "f1": "F1",
    "mcc": "MCC",
    "brier": "Brier score",
    "log_loss": "log loss",
    "ece": "calibration error (ECE)",
    "subset_accuracy": "exact-set accuracy",
    "spearman": "Spearman's correlation",
    "pearson": "Pearson's correlation",
    "rmse": "RMSE",
    "mae": "mean absolute error",
    "r2": "R²",
    "prevalence": "prevalence",
    "num_examples": "examples",
    "num_classes_scored": "classes scored",
} | {name: f"precision at {percent} recall" for name, percent in RECALL_NAMES.items()}
PREDICTOR_WORDS = {
    "majority": "Same answer for all",
    "label-rate": "Protein's label rate",
    "composition": "Amino-acid composition",
    "kmers": "Residue pairs (k-mers)",
    "homology": "Homology transfer",
    "random-backbone": "Random backbone",
}
SPLIT_WORDS = {"train": "training", "val": "validation", "test": "test"}
PART_WORDS = {"val": "validation", "test": "the test part"}
MEANINGS = {
    "aupr": "Area under the precision-recall curve: how pure the top of the ranked list is, over all cut-offs. 1 is "
    "perfect; a random order gives the share of positives (the prevalence).",
    "auroc": "How often a positive is ranked above a negative. 1 is perfect, 0.5 a random order. Looks good too easily "
    "where positives are rare.",
    "accuracy": "Share of right answers. Where one class is common, always naming it scores high.",
    "balanced_accuracy": "Mean of the recalls of the classes: accuracy as if all classes were equally common.",
    "precision": "Of the examples called positive, the share that is.",
    "recall": "Of the positives, the share that is found (sensitivity).",
    "specificity": "Of the negatives, the share that is called negative.",
    "f1": "Harmonic mean of precision and recall; high only where both are.",
    "mcc": "Matthews' correlation of prediction and truth: 1 perfect, 0 no skill. Fair with unequal classes.",
    "brier": "Mean squared distance of the probability from what came true. 0 is perfect.",
    "log_loss": "Mean surprise at the truth, in nats; sure mistakes cost most. 0 is perfect.",
    "ece": "Expected calibration error: how far, on average, a probability is from the share that comes true. 0 is "
    "perfect.",
    "subset_accuracy": "Share of examples with all their labels right and no other.",
    "spearman": "Agreement of the two orders: 1 the same order, 0 none.",
    "pearson": "Closeness to a straight line: 1 on a line, 0 none.",
    "rmse": "Root mean squared error, in the unit of the label; large misses weigh most.",
    "mae": "Mean distance of prediction and truth, in the unit of the label.",
    "r2": "Share of the variance that is explained; 0 or less is no better than always saying the mean.",
    "prevalence": "Share of positives among the examples.",
} | {
    name: f"Precision of the shortest list from the top that holds {percent} of the positives."
    for name, percent in RECALL_NAMES.items()
}
GENERAL_MEANINGS = (
    ("training, validation, test", "The model learns from the first, its best epoch is chosen on the second, and the "
     "third is what it is judged by."),
    ("interval", "95 % interval by the bootstrap: proteins or families (not pairs) are drawn again and again. A "
     "model tried on other proteins of the same kind would mostly land within."),
    ("baseline", "A simple predictor on the same split. A language model is worth its cost only where it beats them."),
    ("leakage", "Test proteins, or close relatives of them, are also in training: the score then measures memory."),
)  # fmt: skip
MACRO_MEANING = "Mean over the classes that have both kinds of examples; every class counts the same, however rare."
ABSENT = "\N{EN DASH}"


def metric_words(name: str) -> str:
    """A metric as it is written: `macro AUPR` for macro_aupr; an unknown name as it is."""
    if name.startswith("macro_"):
        return f"macro {metric_words(name.removeprefix('macro_'))}"
    return METRIC_WORDS.get(name, name)


def capital(text: str) -> str:
    """A text with a capital at its start, the rest as it is."""
    return text[:1].upper() + text[1:]


def predictor_words(name: str) -> str:
    """A baseline as it is written, with the backbone that it is "of"; an unknown name as it is."""
    name, of, backbone = name.partition(" of ")
    return PREDICTOR_WORDS.get(name, name) + of + backbone


def glossary(metrics: list[str]) -> tuple[tuple[str, str], ...]:
    """Words and meanings: the general ones, then those of the metrics that the page shows."""
    entries = dict(GENERAL_MEANINGS)
    if any(name.startswith("macro_") for name in metrics):
        entries["macro"] = MACRO_MEANING
    for name in (name.removeprefix("macro_") for name in metrics):
        if name in MEANINGS:
            entries.setdefault(metric_words(name), MEANINGS[name])
    return tuple(entries.items())


def number(value: float | None) -> str:
    """Three decimals below 10, two below 1,000, none beyond and for counts; three digits of what is very small."""
    if value is None:
        return ABSENT
    if value < 0:
        return "\N{MINUS SIGN}" + number(-value)
    if isinstance(value, int) or value >= 1000:
        return f"{value:,.0f}"
    if 0 < value < 0.0005:
        return f"{value:.2e}"
    return f"{value:.3f}" if value < 10 else f"{value:.2f}"


def threshold_words(value: float) -> str:
    """A threshold to type: eight digits, rounded down, so that what passes it passes what is written."""
    if value <= 0:
        return "0"
    scale = 10.0 ** (7 - math.floor(math.log10(value)))
    return f"{math.floor(value * scale) / scale:.8g}"


def signed(value: float) -> str:
    """A number with its sign."""
    return ("+" if value >= 0 else "") + number(value)


def interval_words(low: float, high: float) -> str:
    """The two ends of an interval."""
    return f"{number(low)} to {number(high)}"


def signed_interval_words(low: float, high: float) -> str:
    """The two ends of an interval of differences."""
    return f"{signed(low)} to {signed(high)}"


def percent(fraction: float) -> str:
    """A fraction as a percentage with one decimal."""
    return f"{100 * fraction:.1f} %"


def duration(seconds: float | None) -> str:
    """Seconds, minutes or hours."""
    if seconds is None:
        return ABSENT
    if seconds < 120:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def count_of(number_of: int, noun: str) -> str:
    """`1 pair`, `2,000 pairs`."""
    return f"{number_of:,} {noun}{'' if number_of == 1 else 's'}"
