"""SoundingShapes: the facts of a scene, and their rendering as video and audio."""

import collections
import dataclasses
import itertools

import numpy as np
import pytest

from tfavmae.errors import UserError
from tfavmae_datasets.sounding_shapes import audio, classes, config, physics, render
from tfavmae_datasets.sounding_shapes import scene as scenes
from tfavmae_datasets.sounding_shapes.generator import label_row

DEMO, STANDARD = config.DEMO, config.STANDARD
BOTH = pytest.mark.parametrize("settings", [DEMO, STANDARD], ids=["demo", "standard"])


@pytest.fixture(scope="module")
def samples():
    """Scenes by (configuration, index), drawn once."""
    drawn = {}

    def get(settings, count):
        key = settings.name
        for i in range(len(drawn.setdefault(key, [])), count):
            drawn[key].append(scenes.sample(settings, 0, "train", i))
        return drawn[key][:count]

    return get


# --- Classes and ceilings ---


def test_demo_classes_are_as_documented():
    table = classes.class_table(DEMO)
    groups = collections.Counter(c.group for c in table)
    assert groups == {"ear": 4, "eye": 4, "both": 4}
    assert len({(c.look, c.timbre) for c in table}) == 12
    assert classes.ceilings(DEMO) == {
        "audio": pytest.approx(8 / 12),
        "video": pytest.approx(8 / 12),
        "audio_video": 1.0,
    }


@BOTH
def test_groups_need_the_sense_they_are_named_after(settings):
    table = classes.class_table(settings)
    looks = collections.Counter(c.look for c in table)
    timbres = collections.Counter(c.timbre for c in table)
    unique = {
        c.group: {(looks[d.look] == 1, timbres[d.timbre] == 1) for d in table if d == c}
        for c in table
    }
    assert unique == {
        "ear": {(False, True)},
        "eye": {(True, False)},
        "both": {(False, False)},
    }


@pytest.mark.parametrize(
    "settings",
    [
        dataclasses.replace(DEMO, missing_audio=0.1, missing_video=0.2),
        dataclasses.replace(
            DEMO, num_ear_classes=2, num_eye_classes=4, num_both_classes=8
        ),
        dataclasses.replace(
            DEMO, num_ear_classes=0, num_eye_classes=2, num_both_classes=0
        ),
    ],
    ids=["missing", "14 classes", "2 classes"],
)
def test_ceilings_are_what_an_observer_that_counts_reaches(settings):
    """Learns the likeliest label of each observation from half of the clips."""
    drawn = [scenes.sample(settings, 0, "train", i) for i in range(3000)]
    for over, modality in itertools.product(
        ("present", "all"), ("audio", "video", "audio_video")
    ):
        ceiling = classes.ceilings(settings, over=over)[modality]
        seen = [(_observe(s, modality), s.label) for s in drawn]
        if over == "present":
            seen = [(o, label) for o, label in seen if None not in o]
        counts = collections.defaultdict(collections.Counter)
        for observation, label in seen[::2]:
            counts[observation][label] += 1
        best = {o: c.most_common(1)[0][0] for o, c in counts.items()}
        accuracy = np.mean([best[o] == label for o, label in seen[1::2]])
        assert accuracy == pytest.approx(ceiling, abs=0.04), (over, modality)


def _observe(scene, modality):
    main = scene.sounding[0]
    heard = main.timbre if scene.has_audio else None
    looked = main.look if scene.has_video else None
    both = (heard, looked)
    return {"audio": both[:1], "video": both[1:], "audio_video": both}[modality]


def test_nothing_but_look_and_timbre_depends_on_the_class_table():
    """The condition under which counting pairs is exact."""
    other = dataclasses.replace(DEMO, num_ear_classes=8, num_both_classes=0)
    for i in range(60):
        a, b = (scenes.sample(c, 0, "train", i) for c in (DEMO, other))
        assert a.label == b.label and a.impacts == b.impacts
        assert (a.texture, a.ambience, a.verb) == (b.texture, b.ambience, b.verb)
        np.testing.assert_array_equal(a.positions, b.positions)
        body = dataclasses.asdict(a.sounding[0])
        other_body = dataclasses.asdict(b.sounding[0])
        for name in set(body) - {"look", "timbre"}:
            assert body[name] == other_body[name]


# --- Scenes ---


@BOTH
def test_a_scene_is_a_function_of_seed_split_and_index(settings):
    rows = [
        label_row(scenes.sample(settings, *key), settings)
        for key in [(0, "train", 3), (0, "train", 3), (1, "train", 3), (0, "test", 3)]
    ]
    assert rows[0] == rows[1]
    assert rows[0]["positions"] != rows[2]["positions"] != rows[3]["positions"]


@BOTH
def test_labels_are_balanced_and_modalities_missing_as_stated(settings, samples):
    drawn = samples(settings, 40 * settings.num_classes)
    assert set(collections.Counter(s.label for s in drawn).values()) == {40}
    n = len(drawn)
    for name in ("audio", "video"):
        expected = getattr(settings, f"missing_{name}")
        missing = sum(not getattr(s, f"has_{name}") for s in drawn)
        spread = (expected * (1 - expected) * n) ** 0.5
        assert abs(missing - expected * n) < 4 * spread
    assert all(s.has_audio or s.has_video for s in drawn)


def test_the_demo_gallery_has_500_clips_with_both_modalities():
    drawn = (
        scenes.sample(DEMO, 0, "validation", i)
        for i in range(DEMO.num_validation_clips)
    )
    assert sum(s.has_audio and s.has_video for s in drawn) >= 500


def test_ambience_goes_with_the_texture_in_the_stated_fraction(samples):
    drawn = samples(DEMO, 600)
    match = [
        classes.AMBIENCES.index(s.ambience) == classes.TEXTURES.index(s.texture)
        for s in drawn
    ]
    assert np.mean(match) == pytest.approx(DEMO.ambience_match, abs=0.06)


@BOTH
def test_impacts_are_enough_and_every_sounding_object_strikes(settings, samples):
    for s in samples(settings, 200):
        assert settings.min_impacts <= len(s.impacts) <= settings.max_impacts
        assert {i.body for i in s.impacts} == set(range(len(s.sounding)))
        assert all(0 < i.time < settings.clip_seconds for i in s.impacts)


def test_the_labelled_object_is_clearly_the_largest_sounding_one(samples):
    pairs = [s.sounding for s in samples(STANDARD, 200) if len(s.sounding) == 2]
    assert len(pairs) > 50
    assert all(a.radius > 1.2 * b.radius for a, b in pairs)


def test_silent_objects_never_touch_a_wall(samples):
    for s in samples(STANDARD, 100):
        for k, body in enumerate(s.silent, start=len(s.sounding)):
            path = s.positions[:, k]
            assert path.min() > body.radius and path.max() < 1 - body.radius


@BOTH
def test_label_rows_agree_with_the_scene(settings, samples):
    names = classes.event_names(settings)
    for s in samples(settings, 100):
        row = label_row(s, settings)
        events = {names[e] for e in row["events"]}
        assert {names[s.label], s.ambience} <= events
        assert ("collision" in events) == ("collision" in row["event_kinds"])
        times = np.array(row["event_times"])
        assert (np.diff(times[:, 0]) >= 0).all() and (times[:, 0] < times[:, 1]).all()
        nearest = np.round(times[:, 0] * settings.frame_rate)
        expected = np.minimum(nearest, settings.num_frames - 1)
        np.testing.assert_array_equal(row["impact_frames"], expected)
        assert np.shape(row["positions"]) == (settings.num_frames, 2)
        assert row["look"] in row["caption"] and row["ambience"] in row["caption"]


# --- Physics ---


@BOTH
def test_bodies_stay_inside_and_touch_something_at_every_impact(settings):
    rng = np.random.default_rng(0)
    for verb in settings.verbs:
        radii = np.array([0.17, 0.1][: settings.sounding_objects[1]])
        start = None
        while start is None:
            start = scenes._start(settings, rng, radii, verb)
        gravity = 5.0 if verb == "bounce" else 0.0
        path, impacts = physics.simulate(*start, radii, seconds=4.0, gravity=gravity)
        p = path.at(np.linspace(0, 3.999, 2000))
        assert (p >= radii[:, None] - 1e-9).all()
        assert (p <= 1 - radii[:, None] + 1e-9).all()
        for impact in impacts:
            at = path.at(np.array([impact.time]))[0]
            own = at[impact.body]
            gaps = [*(own - radii[impact.body]), *(1 - radii[impact.body] - own)]
            if impact.kind == "collision":
                gaps = [np.linalg.norm(at[0] - at[1]) - radii.sum()]
            assert min(np.abs(gaps)) < 1e-9


def test_collisions_keep_energy_and_momentum():
    radii, v = np.array([0.1, 0.15]), np.array([[0.5, 0.1], [-0.3, 0.05]])
    path, impacts = physics.simulate([[0.3, 0.5], [0.7, 0.52]], v, radii, seconds=0.6)
    assert [i.kind for i in impacts] == ["collision"] * 2
    after, mass = path.velocities[-1], radii[:, None] ** 2
    np.testing.assert_allclose((mass * after**2).sum(), (mass * v**2).sum())
    np.testing.assert_allclose((mass * after).sum(0), (mass * v).sum(0))


def test_a_ball_falls_as_it_should():
    _, impacts = physics.simulate(
        [[0.5, 0.5]], [[0.0, 0.0]], [0.1], seconds=1.0, gravity=5.0, restitution=0.5
    )
    assert impacts[0].time == pytest.approx((2 * 0.4 / 5) ** 0.5)
    assert impacts[0].speed == pytest.approx((2 * 0.4 * 5) ** 0.5)
    # Half the speed back up: the next flight takes 2 * v / g.
    assert impacts[1].time - impacts[0].time == pytest.approx(impacts[0].speed / 5)


# --- Sound ---


def test_each_sound_starts_on_the_sample_of_its_impact():
    # Without the ambiences of single loud ticks, which are heard at any level.
    quiet = dataclasses.replace(DEMO, ambience_level_db=-90.0, num_ambiences=6)
    for i in range(40):
        scene = scenes.sample(quiet, 0, "train", i)
        wave = np.abs(audio.render(scene, quiet).astype(int))
        start = round(scene.impacts[0].time * quiet.sample_rate_hz)
        assert wave[:start].max(initial=0) < 8
        assert 0 <= np.argmax(wave >= 8) - start <= 3


@pytest.mark.parametrize("name", sorted(audio.TIMBRES))
def test_every_timbre_is_audible_and_carries_its_pitch(name):
    body = scenes.Body(0, "disc", name, "red", 0.1, 0.5, 600.0, 0.0, 0.0)
    low_share = []
    for pitch in (300.0, 1200.0):
        pitched = dataclasses.replace(body, pitch_hz=pitch)
        wave = audio.strike(pitched, 16000, np.random.default_rng(0))
        assert np.abs(wave).max() == pytest.approx(0.5)
        assert 0.05 < len(wave) / 16000 <= 1.0
        power = np.abs(np.fft.rfft(wave, 16000)) ** 2
        low_share.append(power[:900].sum() / power.sum())
    assert low_share[0] > low_share[1] + 0.1


def test_pitch_falls_with_size_and_loudness_rises_with_speed():
    rng = np.random.default_rng(0)
    bodies = [
        scenes._body(DEMO, rng, 0, "disc", "flute", s, "slide") for s in (0, 0.5, 1)
    ]
    pitches = [b.pitch_hz for b in bodies]
    assert pitches == sorted(pitches, reverse=True)
    assert (pitches[0], pitches[-1]) == pytest.approx((1760, 220))
    heard = [
        np.abs(np.fft.rfft(audio.strike(b, 16000, rng), 16000)).argmax() for b in bodies
    ]
    np.testing.assert_allclose(heard, pitches, rtol=0.01)
    assert audio.loudness(0.6) < audio.loudness(1.2) < audio.loudness(1.8) == 1.0


@pytest.mark.parametrize("name", classes.AMBIENCES)
def test_ambiences_have_the_configured_level(name):
    wave = audio.ambience(name, STANDARD, np.random.default_rng(0))
    level = 10 * np.log10(np.mean(wave**2))
    assert level == pytest.approx(STANDARD.ambience_level_db, abs=0.01)


# --- Pictures ---


def test_an_object_is_drawn_where_the_label_says():
    scene = next(
        s for i in range(200) if (s := scenes.sample(DEMO, 0, "train", i)).label == 7
    )
    assert scene.sounding[0].look == "disc"
    frames = render.render(scene, DEMO).astype(float)
    empty = render.render(dataclasses.replace(scene, sounding=()), DEMO)
    mask = np.abs(frames - empty).sum(-1) > 60
    for f, (x, y) in enumerate(scene.positions[:, 0] * DEMO.frame_size - 0.5):
        rows, columns = np.nonzero(mask[f])
        assert (columns.mean(), rows.mean()) == pytest.approx((x, y), abs=0.6)
        radius = scene.sounding[0].radius * DEMO.frame_size
        assert np.sqrt(mask[f].sum() / np.pi) == pytest.approx(radius, abs=1.0)


def test_looks_differ_and_fill_their_circle():
    grid = np.linspace(-1.2, 1.2, 121)
    x, y = grid[None, None, :], grid[None, :, None]
    masks = {name: look(x, y)[0] < 0 for name, look in render.LOOKS.items()}
    assert set(masks) == set(classes.LOOKS)
    for name, mask in masks.items():
        reach = np.abs(grid[mask.any(0) | mask.any(1)]).max()
        assert 0.8 < reach < 1.1, name
        for other in set(masks) - {name}:
            overlap = (mask & masks[other]).sum() / (mask | masks[other]).sum()
            assert overlap < 0.9, (name, other)


@pytest.mark.parametrize("texture", classes.TEXTURES)
def test_backgrounds_stay_darker_than_objects(texture):
    ground = render.background(texture, 0.15, 64, np.random.default_rng(0))
    assert ground.shape == (64, 64, 3) and ground.std() > 5
    assert ground.mean() < 110 < np.mean(list(classes.COLOURS.values()))


# --- Configurations ---


@pytest.mark.parametrize(
    "change",
    [
        {"frame_size": 63},
        {"num_ear_classes": 3},
        {"num_eye_classes": 1},
        {"num_both_classes": 6},
        {"num_ear_classes": 40},
        {"num_ambiences": 99},
        {"ambience_match": 1.2},
        {"sounding_objects": (2, 1)},
        {"min_radius": 0.5},
        {"max_radius": 0.45},
        {"lowest_pitch_hz": 5000.0},
        {"highest_pitch_hz": 7000.0},
        {"min_speed": 0.0},
        {"min_impacts": 0},
        {"verbs": ("slide", "fly")},
        {"missing_audio": 0.6, "missing_video": 0.6},
        {"sample_rate_hz": 12345},
        {"clip_seconds": 0.0},
    ],
    ids=str,
)
def test_an_impossible_setting_is_named(change):
    with pytest.raises(UserError, match="|".join(change)) as error:
        dataclasses.replace(DEMO, **change)
    assert "\n" not in str(error.value)


def test_an_unreachable_number_of_impacts_is_explained():
    slow = dataclasses.replace(DEMO, min_speed=0.05, max_speed=0.05, min_impacts=50,
                               max_impacts=60, verbs=("slide",))  # fmt: skip
    with pytest.raises(UserError, match=r"no motion .* min_impacts"):
        scenes.sample(slow, 0, "train", 0)


def test_an_unknown_configuration_is_refused_with_the_known_ones():
    with pytest.raises(UserError, match=r"'large'.*demo, standard"):
        config.get("large")


def test_the_limits_of_the_catalogues_are_theirs():
    assert (len(classes.LOOKS), len(classes.TIMBRES)) == (
        config.MAX_LOOKS,
        config.MAX_TIMBRES,
    )
    assert len(classes.AMBIENCES) == len(classes.TEXTURES) == config.MAX_AMBIENCES
    assert set(classes.TIMBRES) == set(audio.TIMBRES)
