"""Score one portion of proteins, or some pairs of encoded ones: the same table of predictions in whichever process.

Shapes: N examples, K proteins of an example, P proteins, D width.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa

from peftide.config import PredictSettings, ScreenSettings
from peftide.data.portions import Portion
from peftide.errors import UserError
from peftide.inference.embed import Advance, embed_proteins
from peftide.inference.portion_encoder import Embedder, embed_portion, embedder_of
from peftide.inference.predict import EXAMPLES_AT_ONCE, prediction_columns, score_examples
from peftide.inference.score import load_for_inference
from peftide.inference.store import StateStore
from peftide.inference.work import Loaded
from peftide.models.property_model import PropertyModel
from peftide.models.target import Target
from peftide.records import Dataset, Proteins


@dataclass(frozen=True)
class Predictor:
    """A bundle, and how its scores become answers; see `prediction_columns`."""

    model: PropertyModel
    embedder: Embedder
    threshold: float
    min_confidence: float | None

    def table(self, dataset: Dataset, scores: np.ndarray) -> pa.Table:
        """The rows of the output for examples and their scores."""
        columns = prediction_columns(
            dataset, scores, self.model.target, threshold=self.threshold, min_confidence=self.min_confidence
        )
        return pa.table({name: pa.array(column) for name, column in columns.items()})


def load_predictor(settings: PredictSettings) -> Predictor:
    """The model of a bundle, from settings alone, so that any process can have it. Raises UserError as loading does."""
    model, encoder, token_budget = load_for_inference(settings.bundle, settings)
    check_answers(settings, model.target)
    embedder = embedder_of(model, encoder, token_budget, bundle=settings.bundle)
    return Predictor(model, embedder, settings.threshold, settings.min_confidence)


def check_answers(settings: PredictSettings, target: Target) -> None:
    """Raise UserError where answers shall be withheld that are not one answer, or a threshold has nothing to decide."""
    if settings.threshold != PredictSettings.threshold and target.kind not in ("binary", "multilabel"):
        raise UserError(f"--threshold: a {target.kind} prediction is not a yes or no; leave it out")
    if settings.min_confidence is not None and target.kind not in ("binary", "multiclass"):
        raise UserError(
            f"--min-confidence: a {target.kind} prediction is not one answer that could be withheld; leave it out"
        )


def predict_portion(
    predictor: Predictor,
    portion: Portion,
    *,
    store: StateStore | None = None,
    advance: Advance = lambda residues: None,
) -> pa.Table:
    """The predictions of a portion's proteins, in its order; each different sequence is encoded once."""
    model, embedder = predictor.model, predictor.embedder
    row_of = {sequence: row for row, sequence in enumerate(dict.fromkeys(portion.sequences))}
    pieces = embedder.cut(Proteins(tuple(row_of), tuple(row_of)))
    vectors_PD = embed_proteins(
        embedder.encoder, pieces, token_budget=embedder.token_budget, store=store, advance=advance
    )
    members_N1 = np.array([[row_of[sequence]] for sequence in portion.sequences])
    examples = Dataset(
        task=model.task,
        kind=model.target.kind,
        proteins=portion.proteins,
        members_NK=np.arange(len(portion.ids))[:, None],
        targets=None,
        classes=model.target.classes,
    )
    return predictor.table(examples, score_examples(model, vectors_PD, members_N1))


def predict_encoded(predictor: Predictor, examples: Dataset, vectors_PD: np.ndarray) -> pa.Table:
    """The predictions of some examples from the vectors of all proteins, of which few are in memory at once."""
    tables = []
    for start in range(0, len(examples), EXAMPLES_AT_ONCE):
        part = examples.subset(np.arange(start, min(start + EXAMPLES_AT_ONCE, len(examples))))
        rows, members = np.unique(part.members_NK, return_inverse=True)
        some_PD = np.array(vectors_PD[rows])
        scores = score_examples(predictor.model, some_PD, members.reshape(part.members_NK.shape))
        tables.append(predictor.table(part, scores))
    return pa.concat_tables(tables)


def load_prediction(settings: PredictSettings) -> Loaded[Portion, pa.Table]:
    """What `peftide predict` does to portions of single proteins, for any process. Raises UserError as loading does."""
    predictor = load_predictor(settings)
    return Loaded(predictor.embedder.identity(), partial(predict_portion, predictor))


def load_members(settings: PredictSettings | ScreenSettings) -> Loaded[Portion, pa.Table]:
    """Vectors of the proteins of pairs by a bundle, for any process. Raises UserError as loading does."""
    embedder = embedder_of(*load_for_inference(settings.bundle, settings), bundle=settings.bundle)
    return Loaded(embedder.identity(), partial(embed_portion, embedder))
