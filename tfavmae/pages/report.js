"use strict";
let playing = null;
function stop() {
  if (!playing) return;
  playing.audio.pause();
  playing.clip.classList.remove("playing");
  playing = null;
}
function show(clip, share) {
  const count = Number(clip.dataset.frames), screen = clip.querySelector(".screen");
  const frame = Math.min(count - 1, Math.floor(share * count));
  if (count > 1) screen.style.backgroundPosition = 100 * frame / (count - 1) + "% 0";
  clip.style.setProperty("--at", 100 * share + "%");
}
function tick() {
  if (!playing) return;
  const { audio, clip } = playing;
  show(clip, audio.duration ? audio.currentTime / audio.duration : 0);
  if (audio.ended) { show(clip, 0); stop(); return; }
  requestAnimationFrame(tick);
}
document.addEventListener("click", (event) => {
  const button = event.target.closest("button.play");
  if (button) {
    const clip = button.closest(".clip");
    const again = playing && playing.clip === clip;
    stop();
    if (again) return;
    const audio = document.getElementById(clip.dataset.audio);
    audio.currentTime = 0;
    playing = { audio, clip };
    clip.classList.add("playing");
    audio.play().then(tick, stop);
  }
  const copy = event.target.closest("button.copy");
  if (copy) {
    const text = copy.closest(".command").querySelector("code").textContent;
    navigator.clipboard.writeText(text).then(() => {
      copy.textContent = "copied";
      setTimeout(() => { copy.textContent = "copy"; }, 1500);
    });
  }
});
document.querySelectorAll(".clip").forEach((clip) => {
  const screen = clip.querySelector(".screen");
  screen.addEventListener("pointermove", (event) => {
    if (playing || event.pointerType !== "mouse") return;
    const box = screen.getBoundingClientRect();
    show(clip, (event.clientX - box.left) / box.width);
  });
  screen.addEventListener("pointerleave", () => { if (!playing) show(clip, 0); });
});
