"""What is recommended without any training by gradient? A file of this folder: a `Config` and a `Model`.

Contract, tested for every file:

    NEEDS_TEXT: bool                              whether it reads stored vectors
    class Config(BaseModel): ...                  extra="forbid", frozen=True; its line in a study's TOML
    class Model:                                  a `ctr_models.sequential.ranking.Scorer`
        def __init__(self, config: Config, data: Sequences, text: ItemText | None) -> None
        def scores(self, history: Histories) -> np.ndarray

text: stored vectors of all items of the catalogue as they are, not reduced.
"""
