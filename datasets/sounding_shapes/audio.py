"""Audio of a scene: struck materials over an ambience.

Timbre comes from the material, pitch from the size, loudness from the speed; each
sound starts on the sample nearest to its impact.
"""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np

from tfavmae_datasets.sounding_shapes import scene as scenes
from tfavmae_datasets.sounding_shapes.config import SoundingShapesConfig

# `(low_hz, high_hz, rng=rng)` to noise of the length of the clip; see `band_noise`.
Noise = Callable[..., np.ndarray]

_ATTACK_SECONDS = 0.002  # short enough to be heard at the time of the impact
_IMPACT_PEAK = 0.5
# Impacts at this speed (widths per second) or faster are the loudest; the slowest
# are this much softer.
_LOUD_SPEED, _QUIETEST = 1.8, 0.3


@dataclasses.dataclass(frozen=True)
class Timbre:
    """A struck sound: decaying partials of the pitch plus filtered noise.

    Args:
        seconds: length until it is cut off (with a short fade).
        partials: (frequency ratio to the pitch, amplitude, decay seconds) each.
        glide: (octaves, seconds): the pitch starts that far off and settles in that
            time.
        tremolo: (rate in Hz, depth in [0, 1]).
        vibrato: (rate in Hz, depth in octaves).
        noise: (amplitude, decay seconds, lowest, highest edge of the band in Hz).
        noise_follows_pitch: band edges are ratios to the pitch instead of Hz.
        repeats: seconds at which the noise strikes again.
    """

    seconds: float
    partials: tuple[tuple[float, float, float], ...] = ()
    glide: tuple[float, float] = (0.0, 1.0)
    tremolo: tuple[float, float] = (0.0, 0.0)
    vibrato: tuple[float, float] = (0.0, 0.0)
    noise: tuple[float, float, float, float] = (0.0, 1.0, 0.0, 0.0)
    noise_follows_pitch: bool = False
    repeats: tuple[float, ...] = ()


TIMBRES = {
    "flute": Timbre(0.45, ((1, 1.0, 0.35),)),
    "buzzer": Timbre(
        0.3, tuple((k, k**-0.7, 9.0) for k in range(1, 19, 2)), tremolo=(28.0, 0.6)
    ),
    "zap": Timbre(0.35, ((1, 1.0, 0.25), (2, 0.5, 0.2)), glide=(2.2, 0.09)),
    "drum": Timbre(
        0.25,
        ((1, 1.0, 0.07),),
        glide=(1.0, 0.02),
        noise=(1.0, 0.06, 0.4, 1.8),
        noise_follows_pitch=True,
    ),
    "wood": Timbre(0.09, ((1, 1.0, 0.022), (3.9, 0.7, 0.015))),
    "spring": Timbre(
        0.45, ((1, 1.0, 0.4), (2, 0.5, 0.3)), glide=(-1.3, 0.2), vibrato=(13.0, 0.08)
    ),
    "bell": Timbre(
        0.7, ((1, 1.0, 0.5), (2.76, 0.8, 0.4), (5.4, 0.6, 0.3), (8.9, 0.3, 0.2))
    ),
    "shaker": Timbre(0.22, ((1, 0.5, 0.1),), noise=(1.6, 0.09, 3000.0, 7600.0)),
    "string": Timbre(0.6, tuple((k, k**-0.6, 0.5 / k) for k in range(1, 11))),
    "clap": Timbre(
        0.2,
        ((1, 0.4, 0.06),),
        noise=(1.4, 0.012, 900.0, 3200.0),
        repeats=(0.0, 0.03, 0.06),
    ),
    "gong": Timbre(
        0.8,
        tuple((r, 0.7, 0.6) for r in (1, 1.35, 1.71, 2.13, 2.6, 3.2)),
        tremolo=(6.0, 0.5),
    ),
    "horn": Timbre(0.35, ((1, 0.5, 9.0), (2, 0.8, 9.0), (3, 1.0, 9.0), (4, 0.7, 9.0))),
    "siren": Timbre(0.5, ((1, 1.0, 0.6), (3, 0.3, 0.6)), vibrato=(5.0, 0.4)),
    "glass": Timbre(0.4, ((1, 0.6, 0.25), (4.2, 1.0, 0.2), (6.3, 0.6, 0.15))),
}


def render(scene: "scenes.Scene", config: SoundingShapesConfig) -> np.ndarray:
    """The audio track: int16 `(samples,)`."""
    rng = scenes.generator(scene.seed, purpose=2)
    mix = ambience(scene.ambience, config, rng)
    notes = [strike(b, config.sample_rate_hz, rng) for b in scene.sounding]
    for impact in scene.impacts:
        start = round(impact.time * config.sample_rate_hz)
        note = notes[impact.body][: max(len(mix) - start, 0)]
        mix[start : start + len(note)] += loudness(impact.speed) * note
    # Impacts that overlap may add up beyond full scale.
    peak = np.abs(mix).max()
    if peak > 0.98:
        mix *= 0.98 / peak
    return np.round(mix * 32767).astype(np.int16)


def loudness(speed: float) -> float:
    """Amplitude in [0.3, 1] of an impact with this normal speed."""
    return float(np.clip(speed / _LOUD_SPEED, _QUIETEST, 1.0))


def strike(
    body: "scenes.Body", sample_rate_hz: int, rng: np.random.Generator
) -> np.ndarray:
    """The note of one impact of `body`: float `(samples,)`, peak 0.5."""
    timbre = TIMBRES[body.timbre]
    t = np.arange(round(timbre.seconds * sample_rate_hz)) / sample_rate_hz
    note = _tone(timbre, body.pitch_hz, t, sample_rate_hz)
    amplitude, decay, low, high = timbre.noise
    if amplitude:
        scale = body.pitch_hz if timbre.noise_follows_pitch else 1.0
        noise = band_noise(len(t), sample_rate_hz, low * scale, high * scale, rng)
        envelope = np.zeros_like(t)
        for start in timbre.repeats or (0.0,):
            envelope += np.where(t >= start, np.exp(-(t - start).clip(0) / decay), 0)
        note = note + amplitude * envelope * noise
    rate, depth = timbre.tremolo
    note = note * (1 - depth * (0.5 - 0.5 * np.cos(2 * np.pi * rate * t)))
    fade = np.clip((timbre.seconds - t) / 0.02, 0, 1)
    # Not 0 at the first sample, which is the time of the impact.
    note = note * np.minimum(1, (t + 1e-4) / _ATTACK_SECONDS) * fade
    return _IMPACT_PEAK * note / np.abs(note).max()


def _tone(
    timbre: Timbre, pitch_hz: float, t: np.ndarray, sample_rate_hz: int
) -> np.ndarray:
    """The partials at times `t` in seconds."""
    octaves, settle = timbre.glide
    rate, depth = timbre.vibrato
    bend = octaves * np.exp(-t / settle) + depth * np.sin(2 * np.pi * rate * t)
    frequency = pitch_hz * np.exp2(bend)  # (samples,)
    phase = 2 * np.pi * np.cumsum(frequency) / sample_rate_hz
    tone = np.zeros_like(t)
    for ratio, amplitude, decay in timbre.partials:
        # A partial above Nyquist would fold back as another pitch.
        audible = ratio * frequency < 0.48 * sample_rate_hz
        tone += audible * amplitude * np.exp(-t / decay) * np.sin(ratio * phase)
    return tone


def band_noise(
    num_samples: int,
    sample_rate_hz: int,
    low_hz: float,
    high_hz: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """Gaussian noise between two frequencies, standard deviation 0.5."""
    spectrum = np.fft.rfft(rng.standard_normal(num_samples))
    frequency = np.fft.rfftfreq(num_samples, 1 / sample_rate_hz)
    # Soft edges: a sharp band would ring.
    edge = 0.1 * low_hz + 20
    rise = 1 / (1 + np.exp(-(frequency - low_hz) / edge))
    fall = 1 / (1 + np.exp((frequency - high_hz) / (0.1 * high_hz)))
    noise = np.fft.irfft(spectrum * rise * fall, num_samples)
    return 0.5 * noise / noise.std()


def ambience(
    name: str, config: SoundingShapesConfig, rng: np.random.Generator
) -> np.ndarray:
    """A steady background: float `(samples,)` of the configured level."""
    num_samples, rate = config.num_samples, config.sample_rate_hz
    t = np.arange(num_samples) / rate
    noise = functools.partial(band_noise, num_samples, rate)
    wave = _AMBIENCES[name](t, noise, rng)
    return wave * 10 ** (config.ambience_level_db / 20) / np.sqrt(np.mean(wave**2))


# --- Ambiences, each a wave of any level at times `t` in seconds ---


def rain(t: np.ndarray, noise: Noise, rng: np.random.Generator) -> np.ndarray:
    return noise(2500, 7000, rng=rng)


def wind(t: np.ndarray, noise: Noise, rng: np.random.Generator) -> np.ndarray:
    gust = 1 + 0.6 * np.sin(2 * np.pi * (rng.uniform(0.4, 0.9) * t + rng.random()))
    return gust * noise(250, 800, rng=rng)


def hum(t: np.ndarray, noise: Noise, rng: np.random.Generator) -> np.ndarray:
    phase = 2 * np.pi * (rng.uniform(98, 102) * t + rng.random())
    return sum(np.sin(k * phase) / k**0.5 for k in (1, 2, 3, 4, 6, 8, 11))


def crickets(t: np.ndarray, noise: Noise, rng: np.random.Generator) -> np.ndarray:
    pulse = np.sin(2 * np.pi * (rng.uniform(14, 18) * t + rng.random())) > 0.2
    return pulse * np.sin(2 * np.pi * rng.uniform(4300, 4900) * t)


def stream(t: np.ndarray, noise: Noise, rng: np.random.Generator) -> np.ndarray:
    wave = 0.1 * noise(500, 2500, rng=rng)
    for start in rng.uniform(0, t[-1], round(14 * t[-1])):
        age = (t - start).clip(0)
        chirp = rng.uniform(900, 2600) * age * (1 + 4 * age)
        wave += (t > start) * np.exp(-age / 0.03) * np.sin(2 * np.pi * chirp)
    return wave


def engine(t: np.ndarray, noise: Noise, rng: np.random.Generator) -> np.ndarray:
    beat = np.sin(2 * np.pi * (rng.uniform(9, 12) * t + rng.random()))
    return (0.15 + (beat > 0)) * noise(60, 1200, rng=rng)


def static(t: np.ndarray, noise: Noise, rng: np.random.Generator) -> np.ndarray:
    crackle = np.where(rng.random(len(t)) < 0.004, rng.standard_normal(len(t)), 0)
    return 6 * crackle + 0.05 * noise(1000, 7000, rng=rng)


def drone(t: np.ndarray, noise: Noise, rng: np.random.Generator) -> np.ndarray:
    root = rng.uniform(1950, 2050)
    return sum(
        np.sin(2 * np.pi * (root * ratio * t + rng.random()))
        for ratio in (1, 1.25, 1.5, 2)
    )


_AMBIENCES = {
    function.__name__: function
    for function in (rain, wind, hum, crickets, stream, engine, static, drone)
}
