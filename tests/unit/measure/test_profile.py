"""What was measured before is kept, for a week, on this machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from saebench.artifacts import cache_folder, sealed, write_json
from saebench.measure.profile import Profile, speed_facts
from saebench.plan.forecast.rates import TrainingRate

FACTS = {"cpu": "one", "threads": 2}


def test_values_come_back(tmp_path: Path) -> None:
    profile = Profile(FACTS, tmp_path)
    assert profile.get("training", "a") is None
    profile.put("training", "a", TrainingRate(1.0, 2.0, 3.0))
    profile.put("disk", "write", 0.5)
    profile.save()
    again = Profile(FACTS, tmp_path)
    assert again.path == profile.path
    assert again.get("training", "a") == {"setup_s": 1.0, "step_s": 2.0, "finish_token_s": 3.0}
    assert again.get("disk", "write") == 0.5
    again.forget()
    assert again.get("disk", "write") is None


def test_two_plans_at_once_keep_each_others_measurements(tmp_path: Path) -> None:
    before = Profile(FACTS, tmp_path)
    before.put("disk", "write", 0.5)
    before.put("training", "old", TrainingRate(9.0, 9.0))
    before.save()
    one, two = Profile(FACTS, tmp_path), Profile(FACTS, tmp_path)
    two.forget()
    one.put("training", "a", TrainingRate(1.0, 2.0))
    one.put("disk", "write", 0.25)
    two.put("training", "b", TrainingRate(3.0, 4.0))
    one.save()
    two.save()
    both = Profile(FACTS, tmp_path)
    assert [both.get("training", key)["step_s"] for key in "ab"] == [2.0, 4.0]
    assert both.get("disk", "write") == 0.25
    assert both.get("training", "old") is None  # what was forgotten does not come back


def test_another_machine_has_another_profile(tmp_path: Path) -> None:
    assert Profile(FACTS, tmp_path).path != Profile({**FACTS, "threads": 1}, tmp_path).path


def test_what_is_old_or_from_the_future_is_measured_again(tmp_path: Path) -> None:
    profile = Profile(FACTS, tmp_path)
    profile.put("disk", "write", 0.5)
    profile.save()
    data = json.loads(profile.path.read_text())
    (entry,) = data["entries"].values()
    for date in ("2020-01-01T00:00:00+00:00", "2999-01-01T00:00:00+00:00"):
        entry["date"] = date
        write_json(profile.path, sealed(data, "profile_sha256"))
        assert Profile(FACTS, tmp_path).get("disk", "write") is None


def test_the_date_is_that_of_the_oldest_value_used(tmp_path: Path) -> None:
    profile = Profile(FACTS, tmp_path)
    profile.put("disk", "write", 0.5)
    profile.put("training", "a", TrainingRate(1.0, 2.0))
    today = profile.date({"disk/write": None})
    profile._entries["disk/write"]["date"] = "2026-01-02T03:04:05+00:00"
    assert profile.date({"disk/write": None, "training/a": None, "training/unknown": None}) == "2026-01-02"
    assert profile.date({"training/a": None}) == today


@pytest.mark.parametrize("content", ["", "[]", "{", '{"entries": 3}', '{"entries": {"disk/write": {}}}'])
def test_a_damaged_file_is_named_and_an_empty_profile(tmp_path: Path, content: str) -> None:
    path, said = Profile(FACTS, tmp_path).path, []
    path.write_text(content)
    assert Profile(FACTS, tmp_path, said.append).get("disk", "write") is None
    (line,) = said
    assert line.startswith(f"{path}: damaged (") and line.endswith(". This machine is measured again")


def test_a_changed_rate_is_not_believed(tmp_path: Path) -> None:
    profile, said = Profile(FACTS, tmp_path), []
    profile.put("disk", "write", 0.5)
    profile.save()
    profile.path.write_text(profile.path.read_text().replace("0.5", "0.4"))
    assert Profile(FACTS, tmp_path, said.append).get("disk", "write") is None
    assert len(said) == 1


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    profile = Profile(FACTS, tmp_path / "file" / "below")
    profile.put("disk", "write", 0.5)
    profile.save()
    assert profile.get("disk", "write") == 0.5


def test_the_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "saebench"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder() == tmp_path / "home" / ".cache" / "saebench"


def test_a_machine_says_what_decides_its_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    facts = speed_facts("cpu")
    assert facts["threads"] == 3
    assert facts["device"] == "cpu"
    assert facts["backend"] in ("bf16-screen", "onednn", "plain")
