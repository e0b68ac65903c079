"""Small scikit-learn models under one signature for every kind of target, the better one chosen on validation.

Shapes: N examples, F features, C classes.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from peftide.evaluation.metrics import higher_is_better, main_metric, measure
from peftide.records import TargetKind

Scorer = Callable[[np.ndarray], np.ndarray]  # features (N, F) -> scores as `measure` takes them


@dataclass(frozen=True)
class Chosen:
    """The model that did best on validation, and by what."""

    name: str
    scorer: Scorer
    metric: str
    value: float | None


def linear_model(kind: TargetKind, seed: int) -> Pipeline:
    """Logistic (or ridge) regression on standardised features."""
    model = Ridge() if kind == "regression" else LogisticRegression(max_iter=1000, random_state=seed)
    return make_pipeline(StandardScaler(), model)


def boosted_trees(kind: TargetKind, seed: int) -> Pipeline:
    """Histogram gradient boosting, 100 rounds of trees."""
    if kind == "regression":
        return make_pipeline(HistGradientBoostingRegressor(early_stopping=False, random_state=seed))
    return make_pipeline(HistGradientBoostingClassifier(early_stopping=False, random_state=seed))


MODELS: dict[str, Callable[[TargetKind, int], Pipeline]] = {
    "linear model": linear_model,
    "gradient boosting": boosted_trees,
}


def choose_model(
    kind: TargetKind,
    train: tuple[np.ndarray, np.ndarray],
    val: tuple[np.ndarray, np.ndarray],
    *,
    classes: tuple[str, ...],
    generator: np.random.Generator,
) -> Chosen:
    """Fit every one of MODELS on `train` (features, targets) and keep the best on `val` by the main metric.

    Where validation leaves that metric undefined (one class only), the first model is kept.
    """
    metric = main_metric(kind)
    seed = int(generator.integers(2**31))
    best: Chosen | None = None
    for name, build in MODELS.items():
        scorer = fit_scorer(kind, lambda build=build: build(kind, seed), *train, num_classes=len(classes))
        value = measure(kind, val[1], scorer(val[0]), classes=classes).get(metric)
        if best is None or _is_better(metric, value, best.value):
            best = Chosen(
                "ridge regression" if name.startswith("logistic") and kind == "regression" else name,
                scorer,
                metric,
                value,
            )
    assert best is not None
    return best


def fit_scorer(
    kind: TargetKind,
    build: Callable[[], Pipeline],
    features_NF: np.ndarray,
    targets: np.ndarray,
    *,
    num_classes: int,
) -> Scorer:
    """Fit one model (one per class where labels may be several) and return its scores as a function of the features.

    A class that training never shows gets probability 0, one that it always shows 1.
    """
    if kind == "regression":
        fitted = build().fit(features_NF, targets)
        return lambda asked_NF: np.asarray(fitted.predict(asked_NF))
    if kind == "binary":
        return _fit_yes_no(build, features_NF, targets > 0.5)
    if kind == "multilabel":
        scorers = [_fit_yes_no(build, features_NF, column_N > 0.5) for column_N in targets.T]
        return lambda asked_NF: np.stack([scorer(asked_NF) for scorer in scorers], axis=1)
    present = np.unique(targets)
    if len(present) == 1:
        return lambda asked_NF: np.tile(np.eye(num_classes)[present[0]], (len(asked_NF), 1))
    model = build().fit(features_NF, targets)

    def scores(asked_NF: np.ndarray) -> np.ndarray:
        scores_NC = np.zeros((len(asked_NF), num_classes))
        scores_NC[:, present] = model.predict_proba(asked_NF)
        return scores_NC

    return scores


def _fit_yes_no(build: Callable[[], Pipeline], features_NF: np.ndarray, truths_N: np.ndarray) -> Scorer:
    if truths_N.all() or not truths_N.any():
        return lambda asked_NF: np.full(len(asked_NF), float(truths_N[0]))
    model = build().fit(features_NF, truths_N)
    return lambda asked_NF: np.asarray(model.predict_proba(asked_NF))[:, 1]


def _is_better(metric: str, value: float | None, best: float | None) -> bool:
    if value is None or best is None:
        return best is None and value is not None
    return value > best if higher_is_better(metric) else value < best
