"""How does a text vector become an item embedding of the model's width? An affine map, fitted on training items only.

LLM2Sequential (Harte et al. 2023, arXiv 2309.09261) initialises the item table of a sequential model with reduced
text vectors; AlphaFuse (Hu et al. 2025) keeps the language subspace as it is and learns ids beside it. Every method
here ends in one map x -> (x - mean) @ components, so that items which come later get their vector by the same rule.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, Field, NonNegativeInt, model_validator

from ctr_models.text import NO_VARIANCE
from storage.errors import ConfigError


class ItemInit(BaseModel, extra="forbid", frozen=True):
    """How text enters a sequential model."""

    feature_set: str
    """A feature set of items."""
    reduction: Literal["pca", "random", "lda", "autoencoder"] = "pca"
    """Principal components; a Gaussian random projection; discriminant directions of `classes`; the code of an
    autoencoder (linear encoder, nonlinear decoder)."""
    classes: str | None = None
    """Of lda: an attribute of the items. Clusters of the vectors (k-means) where there is none."""
    whiten: bool = False
    """Turn and scale the reduced vectors to equal variance in all directions and length 1 on average."""
    trainable: bool = True
    id_width: NonNegativeInt = 0
    """So many of the model's dimensions hold learned ids and no text. AlphaFuse is `reduction = "pca", whiten = true,
    trainable = false` with half of the width for ids: they take the place of the weakest language directions."""

    @model_validator(mode="after")
    def _classes_are_for_lda(self) -> "ItemInit":
        if self.classes is not None and self.reduction != "lda":
            raise ValueError('classes are for reduction "lda" only')
        return self


Width = Annotated[int, Field(ge=1)]


@dataclass(frozen=True)
class Reduction:
    """x -> (x - mean) @ components. mean: float32 [dim]; components: float32 [dim, width]."""

    mean: np.ndarray
    components: np.ndarray

    @property
    def width(self) -> int:
        """Dimensions of a reduced vector."""
        return self.components.shape[1]

    def apply(self, vectors: np.ndarray) -> np.ndarray:
        """Reduced vectors, float32 [n, width]."""
        return ((vectors - self.mean) @ self.components).astype(np.float32)


def fit_reduction(
    config: ItemInit, vectors: np.ndarray, *, width: int, classes: np.ndarray | None = None, seed: int = 0
) -> Reduction:
    """Fit on the vectors [n, dim] of items that occur in training rows; at most `width` - `id_width` dimensions.

    classes: int [n], of lda; negative where unknown. Fewer dimensions come out where the vectors span fewer, or where
    there are too few classes. Raises ConfigError where nothing can be fitted.
    """
    wanted = width - config.id_width
    if wanted < 1:
        raise ConfigError(f"id_width {config.id_width} leaves no dimension for text of a model of width {width}")
    if len(vectors) < 2:
        raise ConfigError(
            f"feature set {config.feature_set!r} has vectors for {len(vectors)} training items; 2 are needed"
        )
    vectors = np.asarray(vectors, np.float64)
    if config.reduction == "pca":
        mean, components = _pca(vectors, wanted)
    elif config.reduction == "random":
        mean = np.zeros(vectors.shape[1])
        components = np.random.default_rng(seed).normal(size=(vectors.shape[1], wanted)) / np.sqrt(wanted)
    elif config.reduction == "lda":
        mean, components = _lda(vectors, wanted, classes, seed)
    else:
        mean, components = _autoencoder(vectors, wanted, seed)
    if config.whiten:
        mean, components = _whitened(vectors, mean, components)
    return Reduction(mean.astype(np.float32), np.ascontiguousarray(components, np.float32))


def _pca(vectors: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    mean = vectors.mean(axis=0)
    variance, axes = np.linalg.eigh(np.cov(vectors, rowvar=False, bias=True))
    kept = np.argsort(-variance)[:width]
    kept = kept[variance[kept] > variance.max() * NO_VARIANCE]
    if not len(kept):
        raise ConfigError("all text vectors are the same: there is nothing to reduce")
    return mean, axes[:, kept]


def _lda(vectors: np.ndarray, width: int, classes: np.ndarray | None, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Fisher's discriminant directions (scikit-learn's eigen solver, shrunk by Ledoit and Wolf 2004)."""
    from sklearn.cluster import KMeans
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    if classes is None:
        clusters = KMeans(min(width + 1, len(vectors) // 2), random_state=seed)
        classes = np.asarray(clusters.fit_predict(vectors))
    named = classes >= 0
    if len(np.unique(classes[named])) < 2:
        raise ConfigError("lda needs items of at least two classes")
    discriminant = LinearDiscriminantAnalysis(solver="eigen", shrinkage="auto", n_components=None)
    discriminant.fit(vectors[named], classes[named])
    found = min(width, len(discriminant.classes_) - 1)
    return vectors.mean(axis=0), discriminant.scalings_[:, :found]


def _autoencoder(vectors: np.ndarray, width: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A linear encoder and a decoder with one hidden layer, trained for 30 epochs on the squared error."""
    import torch
    from torch import nn

    mean = vectors.mean(axis=0)
    scale = np.sqrt(vectors.var(axis=0).mean()) or 1.0
    data = torch.from_numpy(((vectors - mean) / scale).astype(np.float32))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = nn.Linear(data.shape[1], width, bias=False)
        decoder = nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, data.shape[1]))
        optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=2e-3)
        for _ in range(30):
            for chosen in torch.randperm(len(data)).split(256):
                lost = (decoder(encoder(data[chosen])) - data[chosen]).square().mean()
                optimizer.zero_grad()
                lost.backward()
                optimizer.step()
    return mean, encoder.weight.detach().numpy().T.astype(np.float64)


def _whitened(vectors: np.ndarray, mean: np.ndarray, components: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The map followed by PCA whitening (Kessy, Lewin, Strimmer 2018, section 2), over the root of the width."""
    reduced = (vectors - mean) @ components
    variance, axes = np.linalg.eigh(np.atleast_2d(np.cov(reduced, rowvar=False, bias=True)))
    kept = np.flatnonzero(variance > variance.max() * NO_VARIANCE)[::-1]
    return vectors.mean(axis=0), components @ axes[:, kept] / np.sqrt(variance[kept] * len(kept))
