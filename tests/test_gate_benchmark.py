"""The simulation behind the gate's error rates: it draws what its scenarios say, and prints what readers expect."""

import numpy as np
import pytest

from benchmarks import gate
from benchmarks.gate import SCENARIOS, simulate
from benchmarks.gate_draws import Scenario, World, draw, older_answer
from benchmarks.gate_nights import alarms, nights
from regraft.params_file import load_params
from tests.support.pipeline import ROOT

SETTINGS = load_params(ROOT / "params.yaml").promote
PHOTOS = 200_000


@pytest.mark.parametrize("name", [name for name in SCENARIOS if not name.startswith("bursts")])
def test_the_true_difference_of_a_scenario_is_what_it_says(name: str):
    world = World()
    contest = draw(world, SCENARIOS[name], PHOTOS, np.random.default_rng(0)).contest
    error = np.sqrt(contest.b + contest.c) / contest.n
    assert contest.d == pytest.approx(SCENARIOS[name].change_on(world), abs=4 * error)


@pytest.mark.parametrize("discordance", [0.04, 0.08, 0.15])
def test_two_equal_models_differ_on_as_many_photos_as_a_world_says(discordance: float):
    contest = draw(World(discordance=discordance), Scenario(), PHOTOS, np.random.default_rng(0)).contest
    error = np.sqrt(discordance / PHOTOS)
    assert (contest.b + contest.c) / contest.n == pytest.approx(discordance, abs=4 * error)
    assert contest.older.mean() == pytest.approx(World().accuracy, abs=4 * np.sqrt(0.09 / PHOTOS))


def test_a_model_is_as_sure_as_it_is_often_right():
    world, random = World(), np.random.default_rng(0)
    logits = world.logits(random.standard_normal(PHOTOS, np.float32), world.accuracy, random)
    confidence = 1 / (1 + np.exp(-np.abs(logits)))
    assert confidence.mean() == pytest.approx(world.accuracy, abs=4 * confidence.std() / np.sqrt(PHOTOS))


def test_only_one_photo_of_a_group_is_compared():
    drawn = [
        draw(World(), Scenario(group=4, one_per_group=one), 400, np.random.default_rng(0)) for one in (True, False)
    ]
    assert [each.contest.n for each in drawn] == [100, 400]
    assert drawn[0].contest.d == pytest.approx(drawn[1].contest.d)


@pytest.mark.parametrize(
    ("change", "before", "not_less"),
    [(0.0, "Promoted", "Promoted"), (-0.01, "Promoted", "Refused"), (-0.02, "Refused", "Refused")],
)
def test_the_rules_beside_the_gate_count_a_loss_of_exactly_their_limit(change: float, before: str, not_less: str):
    assert (older_answer("before", change), older_answer("not_less", change)) == (before, not_less)


def test_in_a_world_that_falls_a_person_who_approves_all_but_red_is_stopped_by_the_first_model():
    name, rules = "0.25 points worse every night", ("approves_all", "approves_promoted")
    found = nights(World(), name, 346, SETTINGS, rules, sequences=6)
    assert found["approves_all"]["accuracy"] > 0.835  # 0.750 is the last model; 0.862 of 200 sequences
    assert found["approves_promoted"]["accuracy"] > found["approves_all"]["accuracy"]


def test_a_small_folder_moves_and_does_not_fall_with_a_world_that_falls():
    equal = nights(World(), "equal", 54, SETTINGS, ("auto",), sequences=8)["auto"]
    falling = nights(World(), "0.25 points worse every night", 54, SETTINGS, ("auto",), sequences=8)["auto"]
    assert equal["new"] > 0.3
    assert falling["accuracy"] > 0.82


def test_new_photos_find_a_production_that_is_worse_and_rarely_one_that_is_not():
    assert alarms(World(), 0.04, 10, sequences=500) > 0.65
    assert alarms(World(), 0.0, 10, sequences=500) < 0.05


def test_the_result_has_every_rate_by_scenario_and_number_of_photos(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("benchmarks.gate_nights.NIGHTS", 3)
    monkeypatch.setattr(gate, "_COURSES", gate._COURSES[:1])
    found = simulate(SETTINGS, draws=2, sequences=1)
    for scenario in ("equal", "worse_0.02", "worse_0.04", "better_0.02"):
        assert {"30", "200", "346", "1000", "5000"} < set(found["now"][scenario])
        for of in found["now"][scenario].values():
            assert of["promoted"] + of["refused"] + of["undecided"] == pytest.approx(1)
            assert of["promoted"] <= of["goes_in"] <= 1
    assert {row["rule"] for row in found["sequences"]} == set(gate._MODES)
    assert "promoted / refused / undecided" in capsys.readouterr().out
