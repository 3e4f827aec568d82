"""How does FuxiCTR 2.3 do on the same rows? Runs in FuxiCTR's own environment, started by `bench_train`.

_fuxictr.py FOLDER     holds spec.json, and train.npz, validation.npz, test.npz of integers

The three models are put together from FuxiCTR's own layers as its model zoo does. One thing is set right: with
`share_embedding` it leaves the first-order weights of a history at N(0, 1), which would ruin its DeepFM.
Prints one line of JSON.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from fuxictr.features import FeatureMap
from fuxictr.pytorch.dataloaders.npz_dataloader import NpzDataLoader
from fuxictr.pytorch.layers import (
    CrossNetMix,
    CrossNetV2,
    DIN_Attention,
    FactorizationMachine,
    FeatureEmbedding,
    FeatureEmbeddingDict,
    MLP_Block,
)
from fuxictr.pytorch.models import BaseModel
from torch import nn


class DeepFM(BaseModel):
    """FM and MLP over the same embeddings."""

    def __init__(self, feature_map, spec, **kwargs):
        super().__init__(feature_map, **kwargs)
        self.embedding_layer = FeatureEmbedding(feature_map, spec["embedding_size"])
        self.fm = FactorizationMachine(feature_map)
        self.mlp = MLP_Block(feature_map.sum_emb_out_dim(), output_dim=1, hidden_units=spec["hidden"])
        finish(self, spec)

    def forward(self, inputs):
        x = self.get_inputs(inputs)
        embedded = self.embedding_layer(x)
        return {"y_pred": self.output_activation(self.fm(x, embedded) + self.mlp(embedded.flatten(start_dim=1)))}


class DCNv2(BaseModel):
    """Low-rank crosses beside an MLP."""

    def __init__(self, feature_map, spec, **kwargs):
        super().__init__(feature_map, **kwargs)
        self.embedding_layer = FeatureEmbedding(feature_map, spec["embedding_size"])
        width = feature_map.sum_emb_out_dim()
        if spec["rank"]:
            self.crosses = CrossNetMix(width, spec["cross_layers"], low_rank=spec["rank"], num_experts=1)
        else:
            self.crosses = CrossNetV2(width, spec["cross_layers"])
        self.mlp = MLP_Block(width, output_dim=None, hidden_units=spec["hidden"])
        self.out = nn.Linear(width + spec["hidden"][-1], 1)
        finish(self, spec)

    def forward(self, inputs):
        embedded = self.embedding_layer(self.get_inputs(inputs), flatten_emb=True)
        both = torch.cat([self.crosses(embedded), self.mlp(embedded)], dim=-1)
        return {"y_pred": self.output_activation(self.out(both))}


class DIN(BaseModel):
    """Attention over the history, then an MLP."""

    def __init__(self, feature_map, spec, **kwargs):
        super().__init__(feature_map, **kwargs)
        self.targets, self.sequences = spec["targets"], spec["sequences"]
        self.size = spec["embedding_size"]
        self.embedding_layer = FeatureEmbeddingDict(feature_map, self.size)
        self.attention = DIN_Attention(
            self.size * len(self.targets), attention_units=[spec["attention"]], hidden_activations="Dice"
        )
        self.mlp = MLP_Block(feature_map.sum_emb_out_dim(), output_dim=1, hidden_units=spec["hidden"])
        finish(self, spec)

    def forward(self, inputs):
        x = self.get_inputs(inputs)
        fields = self.embedding_layer(x)
        target = torch.cat([fields[name] for name in self.targets], dim=-1)
        history = torch.cat([fields[name] for name in self.sequences], dim=-1)
        interest = self.attention(target, history, x[self.sequences[0]].long() != 0)
        fields.update(zip(self.sequences, interest.split(self.size, dim=-1), strict=True))
        flat = self.embedding_layer.dict2tensor(fields, flatten_emb=True)
        return {"y_pred": self.output_activation(self.mlp(flat))}


def finish(model, spec):
    """What every model of FuxiCTR's zoo ends its constructor with, and the first-order weights set right."""
    model.compile("adam", "binary_crossentropy", spec["learning_rate"])
    model.reset_parameters()
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding) and module.embedding_dim == 1:
            assert "fm" in name
            nn.init.normal_(module.weight[1:], std=1e-4)
    model.model_to_device()


class Whole:
    """All rows as tensors, shuffled batches: what a data loader could at best be."""

    def __init__(self, feature_map, path, batch_size):
        stored = np.load(path)
        names = [*feature_map.features, *feature_map.labels]
        self.columns = {name: torch.from_numpy(stored[name]) for name in names}
        self.batch_size, self.rows = batch_size, len(stored[feature_map.labels[0]])

    def __len__(self):
        return -(-self.rows // self.batch_size)

    def __iter__(self):
        for places in torch.randperm(self.rows).split(self.batch_size):
            yield {name: column[places] for name, column in self.columns.items()}


def feature_map_of(spec, folder):
    """FuxiCTR's description of the columns."""
    made = FeatureMap("rows", str(folder))
    made.labels = ["label"]
    made.default_emb_dim = spec["embedding_size"]
    for name, column in spec["columns"].items():
        made.features[name] = {"source": "", "vocab_size": column["size"], "padding_idx": 0}
        if "share" in column:
            made.features[name]["share_embedding"] = column["share"]
        if "length" in column:
            encoder = None if spec["kind"] == "din" else "layers.MaskedAveragePooling()"
            made.features[name] |= {"type": "sequence", "max_len": column["length"], "feature_encoder": encoder}
        else:
            made.features[name]["type"] = "categorical"
    made.num_fields = made.get_num_fields()
    made.set_column_index()
    return made


def main():
    """Train, score, print."""
    folder = Path(sys.argv[1])
    spec = json.loads((folder / "spec.json").read_text())
    torch.set_num_threads(spec["threads"])
    torch.manual_seed(spec["seed"])
    feature_map = feature_map_of(spec, folder)

    def loader(name, *, shuffle=False):
        path = str(folder / f"{name}.npz")
        return NpzDataLoader(feature_map, path, batch_size=spec["batch_size"], shuffle=shuffle, num_workers=1)

    said = {}
    (folder / "weights" / "rows").mkdir(parents=True, exist_ok=True)
    model = {"deepfm": DeepFM, "dcnv2": DCNv2, "din": DIN}[spec["kind"]](
        feature_map,
        spec,
        gpu=-1,
        metrics=["AUC", "logloss"],
        verbose=0,
        model_root=str(folder / "weights"),
        embedding_regularizer=spec["embedding_l2"],
        net_regularizer=spec["l2"],
    )
    whole = Whole(feature_map, folder / "train.npz", spec["batch_size"])
    if spec["task"] == "speed":
        model._max_gradient_norm = 10.0  # what its `fit` sets
        for name, data in (("in_memory", whole), ("own_loader", loader("train", shuffle=True))):
            model.train()
            started = 0.0
            for step, batch in enumerate(data):  # the first batches warm up, then the clock runs
                if step == spec["warm_up"]:
                    started = time.perf_counter()
                model.train_step(batch)
            said[name] = spec["steps"] * spec["batch_size"] / (time.perf_counter() - started)
    else:
        model.fit(whole, epochs=spec["epochs"], validation_data=loader("validation"))
        said["validation_auc"] = float(model.evaluate(loader("validation"))["AUC"])
        np.save(folder / "scores.npy", model.predict(loader("test")))
    print(json.dumps(said))


if __name__ == "__main__":
    main()
