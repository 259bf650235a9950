"""Dataset `hub`: a local folder in the hub's layout, and errors without a network."""

from __future__ import annotations

import json

import pytest

from saebench.activations.sources.split_text import SplitText
from saebench.api import SuiteError
from saebench.api.splits import is_held_out
from saebench_plugins.core_datasets.plugin import HubOptions
from saebench_plugins.core_datasets.texts.hub import as_text, open_hub
from saebench_plugins.core_datasets.texts.hub import findings as inspect_hub
from saebench_plugins.core_datasets.texts.presets import recipe as recipe_hub

TEXTS = [f"Row {number} of the dataset." for number in range(50)]


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "hf"))


@pytest.fixture
def parquet_folder(tmp_path):
    import pyarrow
    import pyarrow.parquet

    folder = tmp_path / "repo" / "data"
    folder.mkdir(parents=True)
    for shard, texts in enumerate((TEXTS[:30], TEXTS[30:])):
        pyarrow.parquet.write_table(pyarrow.table({"text": texts}), folder / f"train-{shard:05d}-of-00002.parquet")
    pyarrow.parquet.write_table(pyarrow.table({"text": ["other"]}), folder / "validation-00000-of-00001.parquet")
    return folder.parent


def everything(options, context):
    opened = open_hub(options, context)
    return [document.text for split in ("train", "held-out") for document in SplitText(opened, "x").documents(split)]


@pytest.mark.parametrize("streaming", [True, False])
def test_a_folder_in_the_hubs_layout(parquet_folder, streaming, context):
    options = HubOptions(id=str(parquet_folder), streaming=streaming)
    assert sorted(everything(options, context)) == sorted(TEXTS)
    opened = open_hub(options, context)
    assert list(SplitText(opened, "x").documents("train")) == list(SplitText(opened, "x").documents("train"))
    assert opened.manifest()["split"] == "train"
    assert len(recipe_hub(options)["files"]) == 3


def test_max_documents_and_splits(parquet_folder, context):
    assert sorted(everything(HubOptions(id=str(parquet_folder), max_documents=20), context)) == sorted(TEXTS[:20])
    with pytest.raises(SuiteError, match="with split 'test'"):
        open_hub(HubOptions(id=str(parquet_folder), split="test"), context)


def test_what_the_plan_and_the_record_hear(tmp_path, context):
    folder = tmp_path / "rows"
    folder.mkdir()
    texts = ["nul \0 inside", "ends with </s>", " \u200b ", *TEXTS]
    (folder / "train.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    options = HubOptions(id=str(folder))
    remarks = " ".join(inspect_hub(options).remarks)
    assert "invalid UTF-8 in 1 of 52 documents (1 characters)" in remarks
    assert "1 of 52 documents hold the text of a special token" in remarks
    opened = open_hub(options, context)
    texts = [document.text for split in ("held-out", "train") for document in SplitText(opened, "x").documents(split)]
    assert "nul \ufffd inside" in texts
    assert len(texts) == 52
    read = opened.manifest()["read"]
    assert (read["documents"], read["empty"], read["replaced_characters"]) == (52, 1, 1)


def test_an_empty_part_is_in_the_plan(tmp_path, context):
    folder = tmp_path / "rows"
    folder.mkdir()
    text = next(text for text in TEXTS if not is_held_out(text))
    (folder / "train.jsonl").write_text(json.dumps({"text": text}) + "\n")
    options = HubOptions(id=str(folder))
    assert "its only document does not fall into the held-out part" in inspect_hub(options).empty["held-out"]
    with pytest.raises(SuiteError, match="its only document does not fall into the held-out part"):
        list(SplitText(open_hub(options, context), "x").documents("held-out"))


def test_conversations_are_joined(tmp_path, context):
    folder = tmp_path / "chat"
    folder.mkdir()
    rows = [
        {"conversation": [{"role": "user", "content": f"Hi {i}"}, {"role": "assistant", "content": "Hello"}]}
        for i in range(20)
    ]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    texts = everything(HubOptions(id=str(folder), text_column="conversation"), context)
    assert "user: Hi 3\n\nassistant: Hello" in texts
    assert len(texts) == 20


def test_text_of_other_values():
    assert as_text([{"from": "human", "value": "a"}, "b"], "x") == "human: a\n\nb"
    assert as_text(None, "x") == ""
    for value in (3, [1, 2], {"a": 1}, [{"content": ["part"]}]):
        with pytest.raises(SuiteError, match="expected text or a conversation"):
            as_text(value, "x")


def test_a_missing_column_lists_those_there_are(parquet_folder, context):
    with pytest.raises(SuiteError, match=r"no text column 'txt'; found columns text\. Did you mean 'text'"):
        everything(HubOptions(id=str(parquet_folder), text_column="txt"), context)


@pytest.mark.parametrize("streaming", [True, False])
def test_offline_the_error_says_what_to_do(streaming, context):
    with pytest.raises(
        SuiteError, match="hf download roneneldan/TinyStories --repo-type dataset --local-dir FOLDER"
    ) as caught:
        open_hub(HubOptions(preset="tinystories", streaming=streaming), context)
    assert "\n" not in str(caught.value)


def test_an_empty_folder_is_no_dataset(tmp_path, context):
    (tmp_path / "empty").mkdir()
    with pytest.raises(SuiteError, match="the hub's layout"):
        open_hub(HubOptions(id=str(tmp_path / "empty")), context)
