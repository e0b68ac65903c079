"""Metrics of decisions: what is said against what is true, from weighted counts.

Shapes: C classes; confusion_CC has the true class in rows, the said class in columns.
"""

import numpy as np

NOT_DEFINED = float("nan")


def yes_no_metrics(positive_N: np.ndarray, said_N: np.ndarray, weights_N: np.ndarray | None = None) -> dict[str, float]:
    """Accuracy, balanced accuracy, precision, recall, specificity, F1 and MCC of boolean decisions.

    Rules for what cannot be divided: nothing said to be positive gives precision 0; MCC is 0 when all decisions or
    all truths are equal; recall and F1 need a positive, specificity a negative, balanced accuracy both (else NaN).
    """
    code_N = 2 * positive_N.astype(np.int64) + said_N
    counts = np.bincount(code_N, weights=weights_N, minlength=4).astype(np.float64)
    true_negative, false_positive, false_negative, true_positive = (float(count) for count in counts)
    positives, negatives = true_positive + false_negative, true_negative + false_positive
    said = true_positive + false_positive
    recall = true_positive / positives if positives else NOT_DEFINED
    specificity = true_negative / negatives if negatives else NOT_DEFINED
    spread = np.sqrt(positives) * np.sqrt(negatives) * np.sqrt(said) * np.sqrt(true_negative + false_negative)
    covariance = true_positive * true_negative - false_positive * false_negative
    return {
        "accuracy": (true_positive + true_negative) / (positives + negatives),
        "balanced_accuracy": (recall + specificity) / 2,
        "precision": true_positive / said if said else 0.0,
        "recall": recall,
        "specificity": specificity,
        "f1": 2 * true_positive / (positives + said) if positives else NOT_DEFINED,
        "mcc": float(covariance / spread) if spread else 0.0,
    }


def confusion_matrix(
    classes_N: np.ndarray, said_N: np.ndarray, *, num_classes: int, weights_N: np.ndarray | None = None
) -> np.ndarray:
    """Weighted count of examples by true class (rows) and said class (columns), (C, C) float64."""
    codes_N = classes_N * num_classes + said_N
    counts = np.bincount(codes_N, weights=weights_N, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes).astype(np.float64)


def multiclass_metrics(confusion_CC: np.ndarray) -> dict[str, float]:
    """Accuracy, balanced accuracy (mean recall of the classes present) and MCC (Gorodkin 2004)."""
    total = confusion_CC.sum()
    truths_C, said_C, right_C = confusion_CC.sum(axis=1), confusion_CC.sum(axis=0), np.diag(confusion_CC)
    present_C = truths_C > 0
    one_answer = (truths_C > 0).sum() == 1 or (said_C > 0).sum() == 1  # then rounding could leave a spread below zero
    spread = 0.0 if one_answer else np.sqrt(total**2 - truths_C @ truths_C) * np.sqrt(total**2 - said_C @ said_C)
    covariance = right_C.sum() * total - truths_C @ said_C
    return {
        "accuracy": float(right_C.sum() / total),
        "balanced_accuracy": float(np.mean(right_C[present_C] / truths_C[present_C])),
        "mcc": float(covariance / spread) if spread else 0.0,
    }
